"""The routes: each takes a request apart, asks the controller, and puts the answer together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Annotated, Final

from fastapi import APIRouter, FastAPI, Header, Path, Query, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from nanoclaw_runtime.api import document, problems, stream
from nanoclaw_runtime.api.guard import PREFIX, Guard
from nanoclaw_runtime.api.schemas import (
    AcceptedView,
    GroupList,
    GroupView,
    MessageList,
    MessageView,
    NewMessage,
    Readiness,
    SessionList,
    SessionView,
)
from nanoclaw_runtime.controller.view import ControllerView
from nanoclaw_runtime.domain.errors import GroupUnknown
from nanoclaw_runtime.telemetry import Metrics

LARGEST: Final = 2**63 - 1
# What a database counts to.

Between = Callable[[ASGIApp], ASGIApp]
"""What stands between the token's check and the routes; it is given the routes."""

Position = Annotated[int, Query(ge=0, le=LARGEST)]
Number = Annotated[int, Path(ge=1, le=LARGEST)]
PageSize = Annotated[int, Query(ge=1, le=1000)]


def create_app(
    controller: ControllerView,
    token: Callable[[], str],
    metrics: Metrics,
    routers: Sequence[APIRouter] = (),
    *,
    between: Between | None = None,
) -> FastAPI:
    """The API of one controller. `token` is asked at each request, so a rotated token works at once.

    `routers` serve the controller's other parts, each made by a module of this package. `between` gets
    what has shown the token, and may pass it on to the routes.

    `app.state.closing` is an asyncio.Event that ends the event streams.
    """
    app = FastAPI(
        title="NanoClaw",
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.closing = asyncio.Event()
    if between is not None:
        app.add_middleware(between)
    app.add_middleware(Guard, token=token)
    problems.install(app)
    document.describe(app)
    app.include_router(_groups(controller), prefix=PREFIX)
    app.include_router(_messages(controller, metrics), prefix=PREFIX)
    app.include_router(_sessions(controller), prefix=PREFIX)
    app.include_router(_events(controller, app.state.closing), prefix=PREFIX)
    for router in routers:
        app.include_router(router, prefix=PREFIX)
    app.include_router(_probes(controller, metrics))
    return app


def _groups(controller: ControllerView) -> APIRouter:
    router = APIRouter()

    @router.get("/groups")
    async def groups() -> GroupList:
        return GroupList(groups=[GroupView.of(status) for status in await controller.groups()])

    @router.get("/groups/{folder}")
    async def group(folder: str) -> GroupView:
        for status in await controller.groups():
            if status.folder == folder:
                return GroupView.of(status)
        raise GroupUnknown(folder)

    return router


def _messages(controller: ControllerView, metrics: Metrics) -> APIRouter:
    router = APIRouter()

    @router.post("/groups/{folder}/messages", status_code=202)
    async def send(folder: str, message: NewMessage, response: Response) -> AcceptedView:
        accepted = await controller.accept(
            folder,
            message.text,
            sender=message.sender,
            sender_name=message.sender_name or message.sender,
            client_id=message.id,
        )
        if accepted.message.content != message.text:
            raise HTTPException(
                409, f"id: {message.id!r} belongs to another message of this group; nothing was stored, use a new id"
            )
        if accepted.created:
            metrics.messages_accepted.inc()
        response.headers["Location"] = f"{PREFIX}/groups/{folder}/messages/{accepted.message.id}"
        return AcceptedView.of(accepted)

    @router.get("/groups/{folder}/messages")
    async def history(folder: str, after: Position = 0, limit: PageSize = 100) -> MessageList:
        found = await controller.history(folder, after=after, limit=limit)
        return MessageList(messages=[MessageView.of(message) for message in found])

    @router.get("/groups/{folder}/messages/{number}")
    async def message(folder: str, number: Number) -> MessageView:
        for found in await controller.history(folder, after=number - 1, limit=1):
            if found.id == number:
                return MessageView.of(found)
        raise HTTPException(404, f"group {folder!r} has no message {number}")

    return router


def _sessions(controller: ControllerView) -> APIRouter:
    router = APIRouter()

    @router.get("/sessions")
    async def sessions() -> SessionList:
        return SessionList(sessions=[SessionView.of(status) for status in controller.sessions()])

    @router.delete("/sessions/{session}", status_code=202)
    async def stop(session: str) -> dict[str, str]:
        await controller.stop_session(session)
        return {"session": session}

    return router


def _events(controller: ControllerView, closing: asyncio.Event) -> APIRouter:
    router = APIRouter()

    @router.get("/events", response_class=stream.EventStream)
    async def events(
        after: Position | None = None,
        last_event_id: Annotated[int | None, Header(ge=0, le=LARGEST)] = None,
    ) -> stream.EventStream:
        """Every group's events. A client that comes back names the last id it has seen."""
        return await _stream(controller, last_event_id, after, None, closing)

    @router.get("/groups/{folder}/events", response_class=stream.EventStream)
    async def group_events(
        folder: str,
        after: Position | None = None,
        last_event_id: Annotated[int | None, Header(ge=0, le=LARGEST)] = None,
    ) -> stream.EventStream:
        await controller.history(folder, limit=1)  # refuses a group that is not there before the stream begins
        return await _stream(controller, last_event_id, after, folder, closing)

    return router


async def _stream(
    controller: ControllerView, seen: int | None, after: int | None, folder: str | None, closing: asyncio.Event
) -> stream.EventStream:
    """Behind what the client has seen or asked for; only what is new when it said neither."""
    position = after if seen is None else seen
    if position is None:
        position = await controller.last_event()
    return stream.response(controller.events(after=position, folder=folder), position, closing)


def _probes(controller: ControllerView, metrics: Metrics) -> APIRouter:
    router = APIRouter(include_in_schema=False)

    @router.get("/healthz")
    async def healthz() -> Response:
        return Response("alive\n", media_type="text/plain")

    @router.get("/readyz")
    async def readyz(response: Response) -> Readiness:
        readiness = Readiness.of(await controller.checks())
        response.status_code = 200 if readiness.ready else 503
        metrics.ready.set(readiness.ready)
        return readiness

    @router.get("/metrics")
    async def numbers() -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return router
