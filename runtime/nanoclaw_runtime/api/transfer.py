"""Routes of imports and exports: records as JSON in portions, files as tar streams of any length."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Depends, Query, Request
from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse

from nanoclaw_runtime.api.guard import TAR
from nanoclaw_runtime.controller.transfer import Transfer
from nanoclaw_runtime.domain.errors import TransferRefused
from nanoclaw_runtime.domain.transfer import (
    LARGEST_NUMBER,
    AnswerPage,
    Area,
    ChatBundle,
    ChatsTaken,
    FileList,
    FilesTaken,
    Inventory,
    MessagePage,
    Portion,
    Removal,
    Removed,
    Taken,
    TaskBundle,
)

Position = Annotated[int, Query(ge=0, le=LARGEST_NUMBER)]
PageSize = Annotated[int, Query(ge=1, le=1000)]

_GROUPS: Final = "/transfer/groups/{folder}"
_TAR_BODY: Final = {
    "requestBody": {"required": True, "content": {TAR: {"schema": {"type": "string", "format": "binary"}}}}
}


def router(transfer: Transfer) -> APIRouter:
    """The routes below /transfer."""
    routes = APIRouter()
    _records(routes, transfer)
    _files(routes, transfer, _GROUPS + "/{area}", _group_place)
    _files(routes, transfer, "/transfer/{area}", _common_place)
    return routes


def _records(routes: APIRouter, transfer: Transfer) -> None:
    @routes.get("/transfer/groups")
    async def inventory() -> Inventory:
        return await transfer.inventory()

    @routes.post(_GROUPS + "/records")
    async def take(folder: str, portion: Portion) -> Taken:
        return await transfer.take_records(folder, portion)

    @routes.get(_GROUPS + "/messages")
    async def messages(folder: str, after: Position = 0, limit: PageSize = 1000) -> MessagePage:
        return MessagePage(messages=tuple(await transfer.messages(folder, after=after, limit=limit)))

    @routes.get(_GROUPS + "/answers")
    async def answers(folder: str, after: Position = 0, limit: PageSize = 1000) -> AnswerPage:
        return AnswerPage(answers=tuple(await transfer.answers(folder, after=after, limit=limit)))

    @routes.get("/transfer/tasks")
    async def tasks() -> TaskBundle:
        return await transfer.tasks()

    @routes.get("/transfer/chats")
    async def chats() -> ChatBundle:
        return ChatBundle(chats=tuple(await transfer.chats()))

    @routes.post("/transfer/chats")
    async def take_chats(bundle: ChatBundle) -> ChatsTaken:
        return ChatsTaken(chats=await transfer.take_chats(bundle))


Place = tuple[Area, str | None]


def _group_place(folder: str, area: Literal["group", "sessions"]) -> Place:
    return Area(area), folder


def _common_place(area: Literal["global", "project"]) -> Place:
    return Area(area), None


def _files(routes: APIRouter, transfer: Transfer, base: str, place_of: Callable[..., Place]) -> None:
    here: Place = Depends(place_of)

    @routes.get(f"{base}/files")
    async def listing(place: Place = here) -> FileList:
        return await transfer.files(*place)

    @routes.get(f"{base}/files.tar", response_class=StreamingResponse)
    async def give(place: Place = here) -> StreamingResponse:
        return StreamingResponse(await transfer.give_files(*place), media_type=TAR)

    @routes.put(f"{base}/files", openapi_extra=_TAR_BODY)
    async def take(request: Request, place: Place = here) -> FilesTaken:
        """A tar archive; its files replace those of the same paths, all of them or, on a refusal, none."""
        try:
            return await transfer.take_files(request.stream(), *place)
        except ClientDisconnect as gone:
            raise TransferRefused("the archive broke off; nothing of it was kept") from gone

    @routes.post(f"{base}/files/removal")
    async def remove(removal: Removal, place: Place = here) -> Removed:
        return Removed(files=await transfer.remove_files(removal.paths, *place))
