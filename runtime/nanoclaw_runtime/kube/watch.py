"""List, then watch, for ever: a picture of one kind that cannot freeze.

A watch fails in silence: the other end of a half-open connection is gone and no error comes.
Three things guard against it. The socket has keepalive and a read timeout; the API server ends
every watch after half a minute, so a healthy one never stays silent longer; and whatever arrives,
unless it is an event, a bookmark or the start of an answer, is no sign of life: after 45 seconds
without one everything is listed anew. So it is at the end of a watch behind 45 seconds without an
event or a bookmark: it may be quiet, or of a server that was set back and has not come to our
version again. A list tells what is gone as well.

An answer of 410, as a status or as an event inside the stream, an event that cannot be read and
one that comes out of order mean a new list too. A connection that merely ends is resumed where
it was. Not here: what anybody does with the changes (`reflector`, `groups`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import aiohttp
import msgspec
import structlog

from nanoclaw_runtime.kube.client import PAGE, KubeClient, selectors
from nanoclaw_runtime.kube.errors import KubeError, StreamLost, Target, error_of
from nanoclaw_runtime.kube.http import read_chunk
from nanoclaw_runtime.kube.lines import LineSplitter
from nanoclaw_runtime.kube.resources import Object, Resource, Slim
from nanoclaw_runtime.kube.retry import jitter, pause, worth_it

_log = structlog.get_logger(__name__)

T = TypeVar("T", bound=Object)


@dataclass(frozen=True)
class Pace:
    """How long one watch runs and how long silence is believed, in seconds."""

    watch: int = 30
    silence: float = 45.0
    """After this long without a sign of life the watch counts as dead."""


PACE: Final = Pace()

BRIEF: Final = 0.5
"""Seconds; an answer that ends sooner is no watch."""


@dataclass(frozen=True)
class Change(Generic[T]):
    """One object is new or different, or gone."""

    name: str
    object: T | None
    """None when it is gone."""


@dataclass(frozen=True)
class Batch(Generic[T]):
    """What changed, in the order it happened."""

    changes: tuple[Change[T], ...]
    listed: bool
    """This came from a list: the picture is complete as of now."""


class _Event(Slim, frozen=True):
    type: str
    object: msgspec.Raw


class _ListMetadata(Slim, frozen=True):
    resource_version: str = ""
    following: str = msgspec.field(default="", name="continue")


class _Page(Slim, frozen=True):
    metadata: _ListMetadata
    items: list[msgspec.Raw] | None = None


class _Refusal(Slim, frozen=True):
    code: int = 500


class _Disorder(Exception):  # a reason to list anew; nobody else ever sees it
    """An event from before what was already seen."""


_EVENT: Final = msgspec.json.Decoder(_Event)
_PAGE: Final = msgspec.json.Decoder(_Page)
_OBJECT: Final = msgspec.json.Decoder(Object)
_REFUSAL: Final = msgspec.json.Decoder(_Refusal)


class Watch(Generic[T]):
    """One kind in one namespace, narrowed by selectors. Iterate `batches` once."""

    def __init__(
        self,
        client: KubeClient,
        resource: Resource,
        kind: type[T],
        *,
        namespace: str = "",
        labels: str = "",
        fields: str = "",
        pace: Pace = PACE,
    ) -> None:
        self._client = client
        self._target = Target("watch", resource.plural, namespace or client.namespace)
        self._path = resource.path(self._target.namespace)
        self._selectors = selectors(labels, fields)
        self._decode = msgspec.json.Decoder(kind).decode
        self._pace = pace
        self._alive_at = self._told_at = _now()
        self._version = ""
        self._failures = 0
        self.objects: dict[str, T] = {}
        """By name, as of the batch that was yielded last."""
        self.lists = 0
        """Complete lists so far; every one after the first means that the history was lost or not trusted."""

    @property
    def age(self) -> float:
        """Seconds since the last sign of life."""
        return _now() - self._alive_at

    async def batches(self) -> AsyncGenerator[Batch[T]]:
        """The changes, beginning with everything there is. Never ends and never raises.

        Trouble with the API server is logged and outlived, with pauses of at most eight seconds.
        """
        while True:
            self._failures += 1  # taken back by every event and bookmark, and by the end of a watch that lasted
            trouble: Exception | None = None
            try:
                if not self._version:
                    yield await self._list()
                async with contextlib.aclosing(self._follow()) as batches:
                    async for batch in batches:
                        yield batch
            except Exception as error:  # noqa: BLE001  # whatever it is, the next list shows the truth again
                trouble = error
                self._judge(error)
            if _now() - self._told_at > self._pace.silence:
                self._version = ""
            if self._failures:
                await asyncio.sleep(pause(self._failures - 1, trouble))

    async def _list(self) -> Batch[T]:
        found: dict[str, T] = {}
        query = [*self._selectors, ("limit", str(PAGE))]
        while True:
            content = await self._client.fetch("GET", self._path, self._target, query=query)
            page = _PAGE.decode(content)
            for raw in page.items or ():
                item = self._decode(raw)
                found[item.metadata.name] = item
            self._alive()
            if not page.metadata.following:
                break
            query = [*self._selectors, ("limit", str(PAGE)), ("continue", page.metadata.following)]
        gone = [Change[T](name, None) for name in self.objects if name not in found]
        new = [
            Change(name, item)
            for name, item in found.items()
            if name not in self.objects
            or self.objects[name].metadata.resource_version != item.metadata.resource_version
        ]
        self.objects.clear()
        self.objects.update(found)
        self._version = page.metadata.resource_version
        self._told_at = _now()
        self.lists += 1
        return Batch((*gone, *new), listed=True)

    async def _follow(self) -> AsyncGenerator[Batch[T]]:
        """The batches of one watch request, until the API server ends it. Raises when it ends otherwise."""
        silence = self._pace.silence
        query = [
            *self._selectors,
            ("watch", "true"),
            ("allowWatchBookmarks", "true"),
            ("resourceVersion", self._version),
            ("timeoutSeconds", str(max(1, round(jitter(self._pace.watch))))),
        ]
        async with contextlib.AsyncExitStack() as stack:
            stream = self._client.stream("GET", self._path, self._target, query=query, read_timeout=silence)
            async with asyncio.timeout(silence):
                response = await stack.enter_async_context(stream)
            self._alive()
            lines = LineSplitter()
            begun = _now()
            believed_until = begun + silence
            while True:
                async with asyncio.timeout_at(believed_until):
                    found = await self._read(response, lines)
                if found is None:
                    if _now() - begun > BRIEF:
                        self._failures = 0
                    return
                if not found:
                    continue
                changes, trouble = self._learn_all(found)
                if changes:
                    yield Batch(tuple(changes), listed=False)
                if trouble is not None:
                    raise trouble
                believed_until = _now() + silence

    async def _read(self, response: aiohttp.ClientResponse, lines: LineSplitter) -> list[bytes] | None:
        """Complete lines, possibly none; None at the end. A line without its end is not believed."""
        chunk = await read_chunk(response, self._target)
        return lines.feed(chunk) if chunk else None

    def _learn_all(self, lines: list[bytes]) -> tuple[list[Change[T]], Exception | None]:
        """The changes up to the first line that is bad, and what is wrong with that one.

        What stands before it is in the cache already, so whoever waits for it has to hear of it.
        """
        changes: list[Change[T]] = []
        for line in lines:
            try:
                change = self._learn(line)
            except Exception as error:  # noqa: BLE001  # raised behind the batch
                return changes, error
            if change is not None:
                changes.append(change)
        return changes, None

    def _learn(self, line: bytes) -> Change[T] | None:
        event = _EVENT.decode(line)
        if event.type == "ERROR":
            raise error_of(self._target, _REFUSAL.decode(event.object).code, {}, bytes(event.object))
        if event.type == "BOOKMARK":
            self._advance(_OBJECT.decode(event.object).metadata.resource_version)
            return None
        item = self._decode(event.object)
        if not self._advance(item.metadata.resource_version):
            return None
        if event.type == "DELETED":
            self.objects.pop(item.metadata.name, None)
            return Change(item.metadata.name, None)
        self.objects[item.metadata.name] = item
        return Change(item.metadata.name, item)

    def _advance(self, version: str) -> bool:
        """Remember how far we are; False for what was seen already. Raises for what should have come before."""
        self._alive()
        self._told_at = self._alive_at
        self._failures = 0
        if version == self._version:
            return False
        if version.isdecimal() and self._version.isdecimal() and int(version) < int(self._version):
            raise _Disorder
        self._version = version
        return True

    def _judge(self, error: Exception) -> None:
        """Log it, and decide whether the watch may go on where it was."""
        resumed = isinstance(error, StreamLost) or (isinstance(error, KubeError) and worth_it(error))
        if not resumed:
            self._version = ""
        self._failures = max(1, self._failures)  # the pause before the next try, even after a healthy watch
        expected = isinstance(error, KubeError | TimeoutError | msgspec.MsgspecError | _Disorder)
        _log.warning(
            "watch.interrupted",
            target=str(self._target),
            error=type(error).__name__,
            reason=str(error),
            silent_for=round(self.age, 1),
            resumed=resumed,
            exc_info=not expected,
        )

    def _alive(self) -> None:
        self._alive_at = _now()


def _now() -> float:
    return asyncio.get_running_loop().time()
