"""The controller's API with typed answers, whichever way it is reached (`transport`)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ValidationError

from nanoclaw_runtime.api.schemas import (
    TOKEN_HEADER,
    AcceptedView,
    EventView,
    GroupList,
    GroupView,
    MessageList,
    MessageView,
    Problem,
    Readiness,
    SessionList,
    SessionView,
)
from nanoclaw_runtime.cli.errors import UNAVAILABLE, Away, CommandFailed, Refused
from nanoclaw_runtime.cli.installation import Target
from nanoclaw_runtime.cli.stream import StreamReader
from nanoclaw_runtime.cli.transport import Transport

if TYPE_CHECKING:
    from nanoclaw_runtime.cli.service_proxy import ServiceProxy

RECONNECT: Final = 1.0
# Seconds between two tries to reach a controller that is gone for the moment.
PATIENCE: Final = 60.0
# Seconds; a controller that is replaced is back in a few, one that moves to another node in tens.

_Answer = TypeVar("_Answer", bound=BaseModel)


class Remote:
    """One installation's controller. Open it with `Remote.connect` as an async context manager."""

    def __init__(self, transport: Transport, token: str | None) -> None:
        self.transport = transport
        self._token = token

    @classmethod
    async def connect(cls, target: Target) -> Self:
        """Raises NotConfigured without a cluster, NotReachable, or CommandFailed for an unclear namespace."""
        # Only the way that is gone: each has a client of its own, and they take longest to import.
        if target.url is not None:
            from nanoclaw_runtime.cli.direct import Direct  # noqa: PLC0415

            return cls(Direct(target.url, target.token_file), target.token)
        from nanoclaw_runtime.cli.service_proxy import ServiceProxy  # noqa: PLC0415

        return cls(await ServiceProxy.connect(target), target.token)

    @property
    def cluster(self) -> ServiceProxy:
        """For what is asked of the cluster itself; only where there is one."""
        from nanoclaw_runtime.cli.service_proxy import ServiceProxy  # noqa: PLC0415 - see `connect`

        assert isinstance(self.transport, ServiceProxy)
        return self.transport

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.transport.close()

    async def send(
        self, folder: str, text: str, *, sender: str, client_id: str, absent: Callable[[], None] = lambda: None
    ) -> AcceptedView:
        """Have a message committed, once for a `client_id`.

        A controller that is being replaced is waited for, `PATIENCE` seconds; `absent` is called when that begins.
        """
        body = {"text": text, "sender": sender, "id": client_id}
        until: float | None = None
        while True:
            try:
                return await self.ask(AcceptedView, "POST", f"/v1/groups/{part(folder)}/messages", body)
            except (Away, Refused) as error:
                if isinstance(error, Refused) and error.status != UNAVAILABLE:
                    raise
                if until is None:
                    until = time.monotonic() + PATIENCE
                    absent()
                if time.monotonic() > until:
                    raise
            await asyncio.sleep(RECONNECT)

    async def groups(self) -> list[GroupView]:
        return (await self.group_list()).groups

    async def group_list(self) -> GroupList:
        """The groups, and the nodes whose groups are not among them."""
        return await self.ask(GroupList, "GET", "/v1/groups")

    async def group(self, folder: str) -> GroupView:
        return await self.ask(GroupView, "GET", f"/v1/groups/{part(folder)}")

    async def sessions(self) -> list[SessionView]:
        return (await self.ask(SessionList, "GET", "/v1/sessions")).sessions

    async def stop(self, session: str) -> None:
        await self.call("DELETE", f"/v1/sessions/{part(session)}")

    async def history(self, folder: str, *, after: int, limit: int) -> list[MessageView]:
        path = f"/v1/groups/{part(folder)}/messages?after={after}&limit={limit}"
        return (await self.ask(MessageList, "GET", path)).messages

    async def readiness(self) -> Readiness:
        """The controller's own checks, whether they hold or not."""
        status, content = await self._request("GET", "/readyz", headers={})
        if status not in {200, 503}:
            raise _refusal(status, content)
        return _decoded(Readiness, content)

    async def healthz(self) -> bool:
        """Whether the controller answers; needs no token."""
        status, _ = await self._request("GET", "/healthz", headers={})
        return status == 200

    async def events(self, folder: str | None, *, after: int | None) -> AsyncGenerator[EventView]:
        """Events behind `after` (None: from now on) as they come; a lost stream is taken up where it broke."""
        # Refusals in the controller's words.
        groups = await self.groups() if folder is None else [await self.group(folder)]
        if folder is None and any(group.node for group in groups):
            if after is not None:
                raise CommandFailed("each node's controller numbers its events for itself; name a group with --after")
            async with contextlib.aclosing(
                _merged([self.events(group.folder, after=None) for group in groups])
            ) as all_:
                async for event in all_:
                    yield event
            return
        path = "/v1/events" if folder is None else f"/v1/groups/{part(folder)}/events"
        headers = await self._headers()
        while True:
            address = path if after is None else f"{path}?after={after}"
            reader = StreamReader()
            # Away: the controller restarts, or the network blinked.
            with contextlib.suppress(Away):
                async with contextlib.aclosing(self.transport.stream(address, headers)) as chunks:
                    async for chunk in chunks:
                        for event in reader.feed(chunk):
                            yield event
            if reader.position is not None:
                after = reader.position
            await asyncio.sleep(RECONNECT)

    async def ask(self, kind: type[_Answer], method: str, path: str, body: Any = None) -> _Answer:
        """Call the API and read its answer as `kind`. Raises Refused, NotReachable or CommandFailed."""
        return _decoded(kind, await self.call(method, path, body))

    async def call(self, method: str, path: str, body: Any = None) -> bytes:
        """Call the API; the body of its answer. Raises Refused or NotReachable."""
        status, content = await self._request(method, path, body, await self._headers())
        if status >= 400:
            raise _refusal(status, content)
        return content

    async def upload(self, path: str, content: AsyncIterable[bytes]) -> bytes:
        """PUT an archive that is made while it is sent; the body of the answer. Raises Refused or NotReachable."""
        headers = await self._headers() | {"Content-Type": "application/x-tar"}
        status, answer = await self.transport.upload(path, content=content, headers=headers)
        if status >= 400:
            raise _refusal(status, answer)
        return answer

    async def download(self, path: str) -> AsyncGenerator[bytes]:
        """The body of a GET in pieces, however long it is. Raises NotReachable, also when it breaks off."""
        async with contextlib.aclosing(self.transport.stream(path, await self._headers())) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _request(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        return await self.transport.request(method, path, body=body, headers=headers or {})

    async def _headers(self) -> dict[str, str]:
        if self._token is None:
            self._token = await self.transport.token()
        return {TOKEN_HEADER: self._token}


async def _merged(streams: Sequence[AsyncGenerator[EventView]]) -> AsyncGenerator[EventView]:
    """What several endless streams bring, as it comes; the first that breaks ends it."""
    arrived: asyncio.Queue[EventView] = asyncio.Queue(maxsize=1)

    async def follow(stream: AsyncGenerator[EventView]) -> None:
        async with contextlib.aclosing(stream):
            async for event in stream:
                await arrived.put(event)

    tasks = [asyncio.create_task(follow(stream)) for stream in streams]
    try:
        while True:
            coming = asyncio.create_task(arrived.get())
            try:
                await asyncio.wait([coming, *tasks], return_when=asyncio.FIRST_COMPLETED)
                for broken in (task for task in tasks if task.done()):
                    broken.result()
                yield await coming
            finally:
                coming.cancel()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def part(text: str) -> str:
    """`text` as one part of a path."""
    return quote(text, safe="")


def _refusal(status: int, content: bytes) -> Refused:
    try:
        return Refused(status, Problem.model_validate_json(content).detail)
    except ValidationError:
        return Refused(status, f"the controller answered with status {status}; `nanoclaw doctor` looks for the reason")


def _decoded(kind: type[_Answer], content: bytes) -> _Answer:
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        start = json.dumps(content[:60].decode(errors="replace"))
        raise CommandFailed(
            f"the controller's answer {start} is not understood; use a command line of its version"
        ) from error
