"""One API in front of several members: a request for a group that another has is passed on to it.

Behind the token's check and in front of the routes. What is about one group goes to its member and
comes back as it is, streams included; lists of the whole installation are asked of every member and
joined, and say whose part is missing; what is named by an id alone is looked for. Numbers of events
and texts are each member's own, so what would need them across members is refused in one sentence.
Which member has a group is not decided here (`places.Elsewhere`), nor how lists are joined (`joined_lists`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import parse_qs

import httpx
import structlog
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response, StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nanoclaw_runtime.api.guard import PREFIX
from nanoclaw_runtime.api.joined_lists import JOINS
from nanoclaw_runtime.api.places import Elsewhere, Place
from nanoclaw_runtime.api.problems import problem
from nanoclaw_runtime.contract import names

FORWARDED: Final = "X-Nanoclaw-Forwarded"
"""Header of a request that a member passed on, with its node: it is answered or refused, never passed on again."""

CONNECT: Final = 3.0
"""Seconds to reach another member."""
PART: Final = 10.0
"""Seconds another member may take for its part of a list."""
SILENCE: Final = 60.0
"""Seconds in which another member says something: an answer, or a heartbeat between two events."""
FILES: Final = 600.0
"""The same where it lists files, or puts an archive in place behind its last piece."""
RETRY: Final = "5"
# Seconds a caller is asked to wait.

_HOP_BY_HOP: Final = frozenset(
    {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "host", "proxy-connection"}
)

_log = structlog.get_logger(__name__)


def client() -> httpx.AsyncClient:
    """For `Forwarding`, which says of each request how long its answer may take."""
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it tells of every request
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
    return httpx.AsyncClient(timeout=httpx.Timeout(None, connect=CONNECT), limits=limits, trust_env=False)


class Forwarding:
    """ASGI middleware; `app` serves what is here."""

    def __init__(self, app: ASGIApp, members: Elsewhere, http: httpx.AsyncClient) -> None:
        self._app, self._members, self._http = app, members, http

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = await self._answer(scope, receive)
        await (answer or self._app)(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive) -> Response | None:
        """What another member says; None for what is ours to answer."""
        if (folder := _folder(scope)) is not None:
            return await self._of_group(folder, scope, receive)
        others, path = self._members.others(), scope["path"].removeprefix(PREFIX)
        if not others or FORWARDED in Headers(scope=scope) or not scope["path"].startswith(f"{PREFIX}/"):
            return None
        if refusal := _refusal(scope["method"], path):
            return problem(409, refusal)
        if scope["method"] == "GET" and path in JOINS:
            return await self._joined(path, others, scope)
        if path.startswith(("/sessions/", "/tasks/")):
            return await self._found(others, scope, receive)
        return None

    # About one group

    async def _of_group(self, folder: str, scope: Scope, receive: Receive) -> Response | None:
        place = self._members.place(folder)
        if place is None:
            why = self._members.waits(folder)
            return _later(f"group {folder!r} {why}; try again in a moment") if why else None
        if FORWARDED in Headers(scope=scope):
            return _later(f"group {folder!r} is changing its node; try again in a moment")
        try:
            return await self._passed_on(place, scope, _body(receive))
        except HTTPException as error:  # the body grew too large on the way
            return problem(error.status_code, error.detail)
        except httpx.HTTPError as error:
            _log.warning("request not passed on", group=folder, node=place.node, reason=_told(error))
            return _later(
                f"group {folder!r} is on {place.trouble}; its data is there: try again when that node is back"
            )

    async def _passed_on(self, place: Place, scope: Scope, content: AsyncIterator[bytes] | None) -> Response:
        if not place.address:
            raise httpx.ConnectError("its address is not known")
        headers = Headers(scope=scope)
        request = self._http.build_request(
            scope["method"],
            _url(place, scope),
            headers=_passed(headers) | {FORWARDED: self._members.node},
            content=content if "content-length" in headers or "transfer-encoding" in headers else None,
            timeout=httpx.Timeout(None, connect=CONNECT, read=_patience(scope)),
        )
        response = await self._http.send(request, stream=True)
        return StreamingResponse(_pieces(response), response.status_code, _passed(response.headers))

    # About all of them

    async def _joined(self, path: str, others: Sequence[Place], scope: Scope) -> Response:
        """Every member's part of a list as one."""
        own = await self._own(scope)
        if own.status_code != 200:
            return own
        parts = await asyncio.gather(*(self._part(place, scope) for place in others))
        found = [(self._members.node, json.loads(bytes(own.body)))]
        missing: list[dict[str, str]] = []
        for place, part in zip(others, parts, strict=True):
            if isinstance(part, str):
                missing.append({"node": place.node, "reason": part})
            else:
                found.append((place.node, part))
        if missing and path.startswith("/transfer/"):
            gone = ", ".join(each["node"] for each in missing)
            return _later(f"the controllers of these nodes do not answer: {gone}; without their part it is not all")
        joined = JOINS[path](found) | ({"missing": missing} if missing else {})
        return Response(json.dumps(joined), media_type="application/json")

    async def _found(self, others: Sequence[Place], scope: Scope, receive: Receive) -> Response:
        """The answer of whoever knows what the address names."""
        try:
            content = b"".join([piece async for piece in _body(receive)])
        except HTTPException as error:  # it grew too large on the way
            return problem(error.status_code, error.detail)
        except httpx.WriteError as gone:
            return problem(400, str(gone))
        answer = await self._own(scope, content)
        silent: list[str] = []
        for place in others:
            if answer.status_code != 404:
                break
            try:
                response = await self._ask(place, scope, content)
            except httpx.HTTPError as error:
                _log.warning("member not asked", node=place.node, reason=_told(error))
                silent.append(place.trouble)
                continue
            if response.status_code != 404:
                answer = Response(response.content, response.status_code, _passed(response.headers))
        if answer.status_code == 404 and silent:
            return _later(f"no member that answers knows it, and it may be on {' or '.join(silent)}")
        return answer

    async def _part(self, place: Place, scope: Scope) -> dict[str, Any] | str:
        """A member's part, or why it has none."""
        try:
            response = await self._ask(place, scope)
            if response.status_code != 200:
                return f"its controller answered with status {response.status_code}"
            found: dict[str, Any] = response.json()
        except (httpx.HTTPError, ValueError) as error:
            _log.warning("member not asked", node=place.node, reason=_told(error))
            return f"not seen for {place.quiet}" if place.unseen else "its controller does not answer"
        return found

    async def _ask(self, place: Place, scope: Scope, content: bytes = b"") -> httpx.Response:
        if not place.address:
            raise httpx.ConnectError("its address is not known")
        headers = _passed(Headers(scope=scope)) | {FORWARDED: self._members.node}
        return await self._http.request(
            scope["method"], _url(place, scope), headers=headers, content=content or None, timeout=PART
        )

    async def _own(self, scope: Scope, content: bytes = b"") -> Response:
        """The answer of our own routes, read to its end."""
        status, headers, body = 500, list[tuple[bytes, bytes]](), bytearray()
        asked = False

        async def receive() -> Message:
            nonlocal asked
            if asked:
                await asyncio.Event().wait()  # nobody hangs up
            asked = True
            return {"type": "http.request", "body": content, "more_body": False}

        async def send(message: Message) -> None:
            nonlocal status, headers
            if message["type"] == "http.response.start":
                status, headers = message["status"], list(message["headers"])
            elif message["type"] == "http.response.body":
                body.extend(message.get("body", b""))

        await self._app(scope, receive, send)
        answer = Response(bytes(body), status)
        answer.raw_headers = headers
        return answer


def _folder(scope: Scope) -> str | None:
    """The group a request is about: by its address, or by its query."""
    address: str = scope["path"]
    parts = address.removeprefix(f"{PREFIX}/").split("/")
    if address.startswith(f"{PREFIX}/"):
        match parts:
            case ["groups", folder, *_] | ["transfer", "groups", folder, *_]:
                return folder
            case ["transfer", "project" | "global", *_]:
                return names.MAIN_FOLDER
            case ["transfer", "chats"] if scope["method"] == "POST":
                return names.MAIN_FOLDER
            case ["tasks" | "outbox", *_]:
                wanted = parse_qs(scope["query_string"].decode("latin-1")).get("group")
                return wanted[0] if wanted else None
    return None


def _patience(scope: Scope) -> float:
    return FILES if scope["path"].startswith(f"{PREFIX}/transfer/") else SILENCE


def _refusal(method: str, path: str) -> str | None:
    if path == "/events":
        return (
            "the events of all groups are numbered by each node's controller for itself, so there is no one stream of "
            "them; follow /v1/groups/{folder}/events of each group"
        )
    if path.startswith("/outbox/") and method == "POST":
        return "texts are numbered by each node's controller for itself; name the group as well, with ?group=FOLDER"
    return None


def _passed(headers: Mapping[str, str]) -> dict[str, str]:
    """What of a message's headers is for its other end."""
    named = {name.strip().lower() for name in headers.get("connection", "").split(",")}
    return {name: value for name, value in headers.items() if name.lower() not in _HOP_BY_HOP | named}


def _url(place: Place, scope: Scope) -> str:
    query = scope["query_string"].decode("latin-1")
    path = scope.get("raw_path", scope["path"].encode()).decode("latin-1")
    return f"http://{place.address}{path}" + (f"?{query}" if query else "")


async def _body(receive: Receive) -> AsyncIterator[bytes]:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise httpx.WriteError("the caller went away")
        if piece := message.get("body", b""):
            yield piece
        if not message.get("more_body", False):
            return


async def _pieces(response: httpx.Response) -> AsyncIterator[bytes]:
    """An answer as it comes; one that breaks off breaks off here as well."""
    async with contextlib.aclosing(response):
        async for piece in response.aiter_raw():
            yield piece


def _later(detail: str) -> Response:
    return problem(503, detail, headers={"Retry-After": RETRY})


def _told(error: Exception) -> str:
    return str(error) or type(error).__name__
