"""The routes that add, change and remove groups; looking at them is in `app`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from nanoclaw_runtime.api.group_schemas import GroupChange, NewGroup, RegisteredGroup
from nanoclaw_runtime.api.guard import PREFIX
from nanoclaw_runtime.controller.groups import GroupBook, Sessions

BY_API = "api"
"""Who asked for a group, in its record, when no agent did."""


def router(book: GroupBook, sessions: Sessions) -> APIRouter:
    """Routes over the groups of one controller; `sessions` are those it may have to end."""
    router = APIRouter()

    @router.post("/groups", status_code=201)
    async def register(group: NewGroup, response: Response) -> RegisteredGroup:
        kept = await book.register(group.spec(), BY_API)
        response.headers["Location"] = f"{PREFIX}/groups/{kept.folder}"
        return RegisteredGroup.of(kept, book)

    @router.patch("/groups/{folder}")
    async def change(folder: str, change: GroupChange) -> RegisteredGroup:
        kept = await book.change(
            folder,
            name=change.name,
            requires_trigger=change.requires_trigger,
            priority=change.priority,
            container_config=change.container_config,
            by=BY_API,
        )
        return RegisteredGroup.of(kept, book)

    @router.delete("/groups/{folder}", status_code=204)
    async def remove(
        folder: str,
        force: Annotated[bool, Query(description="End its session and give up what waits.")] = False,
    ) -> None:
        await book.remove(folder, sessions, force=force)

    return router
