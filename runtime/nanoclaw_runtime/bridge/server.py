"""The controller's end of all bridges: lets pods in, knows which stream is whose, and tells what arrived.

The rest of the controller works on files of its own tree and calls `changed` when one is new; it asks `settled` before
it believes what a session left. Who a pod is decides `callers`; a pod's own word counts for nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from nanoclaw_runtime.bridge.certificate import Certificate
from nanoclaw_runtime.bridge.errand import Errand
from nanoclaw_runtime.bridge.errands import FROM_POD
from nanoclaw_runtime.bridge.listener import Listener
from nanoclaw_runtime.bridge.protocol import UP, Channel, Hello, Refused, StreamEnded, Up, Welcome, reasons
from nanoclaw_runtime.bridge.stream import Stream
from nanoclaw_runtime.bridge.tree import SessionFiles
from nanoclaw_runtime.contract import bridge
from nanoclaw_runtime.telemetry import Metrics

HELLO: Final = 5.0
"""Seconds for a connection to say who it is."""
MET: Final = 20.0
"""Seconds for a pod that was sent on an errand to connect, and be judged, once more."""
JUDGED_AT_ONCE: Final = 8
"""Callers whose tokens are reviewed at the same time; the others wait."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Caller:
    """Whose pod is at the other end."""

    folder: str
    session: str
    pod: str


class CallerRefused(Exception):
    """Why a connection is none of a session's."""


Identify = Callable[[str], Awaitable[Caller]]
"""The pod that a token was made for. Raises CallerRefused."""


@dataclass(frozen=True)
class _Met:
    """The connection a pod was sent to make; it is closed when the errand is `over`."""

    errand: Errand
    over: asyncio.Event


class BridgeServer:
    """See `ipc.mailbox.Carrier` and `controller.pod_files.Reach`. `run` is its life."""

    def __init__(self, tree: Path, certificate: Certificate, identify: Identify, metrics: Metrics) -> None:
        self._tree = tree
        self._identify = identify
        self._judging = asyncio.Semaphore(JUDGED_AT_ONCE)
        self._streams: dict[str, Stream] = {}
        self._sent = itertools.count(1)
        self._awaited: dict[tuple[str, str, int], asyncio.Future[_Met]] = {}
        """Errands that pods were sent on and have not connected for, by group, session and number."""
        self._moved = asyncio.Event()
        self._lost = metrics.bridge_lost
        self._refused = metrics.bridge_refused
        metrics.bridge_streams.set_function(lambda: len(self._streams))
        self.listener = Listener(self._serve, certificate.server)

    async def run(self, address: str, port: int) -> None:
        """Serve pods until cancelled. Raises OSError when the address cannot be had."""
        await self.listener.run(address, port)

    def changed(self, folder: str) -> None:
        """See `Carrier.changed`."""
        for stream in self._streams.values():
            if stream.files.folder == folder:
                stream.changed()

    async def settled(self, folder: str, session: str) -> None:
        """See `Carrier.settled`."""
        files = SessionFiles(self._tree, folder, session)
        try:
            async with asyncio.timeout(bridge.LAST_REPORT):
                while True:
                    moved = self._moved  # before the look, so that what happens during it counts
                    if await self._reported(files):
                        return
                    await moved.wait()
        except TimeoutError:
            raise OSError(f"the pod of session {session} of group {folder!r} did not say what its agent took") from None

    def reaches(self, folder: str) -> bool:
        """See `Reach.reaches`."""
        return self._able(folder) is not None

    @contextlib.asynccontextmanager
    async def errand(self, folder: str) -> AsyncIterator[Errand]:
        """See `Reach.errand`."""
        stream = self._able(folder)
        if stream is None:
            raise StreamEnded(f"no pod of group {folder!r} is connected")
        key = folder, stream.files.session, next(self._sent)
        awaited = self._awaited[key] = asyncio.get_running_loop().create_future()
        try:
            await stream.send_on(key[-1])
            await asyncio.wait({awaited, stream.over}, timeout=MET, return_when=asyncio.FIRST_COMPLETED)
            if not awaited.done():  # a pod drops its errands with its stream
                raise StreamEnded(f"the pod of group {folder!r} did not connect once more")
            yield awaited.result().errand
        finally:
            del self._awaited[key]
            awaited.cancel()
            if not awaited.cancelled():  # it came, if only in the moment in which nobody waited any more
                awaited.result().over.set()

    def _able(self, folder: str) -> Stream | None:
        """The stream of the group's youngest pod that can be sent on errands."""
        streams = [each for each in self._streams.values() if each.files.folder == folder and each.errands]
        return streams[-1] if streams else None

    async def _meet(self, channel: Channel[Up], caller: Caller, errand: int) -> None:
        """Hand the connection over to who sent the pod, until the errand is over. Raises StreamEnded."""
        awaited = self._awaited.get((caller.folder, caller.session, errand))
        if awaited is None or awaited.done():
            raise StreamEnded("nobody sent it on this errand")
        over = asyncio.Event()
        awaited.set_result(_Met(Errand(channel.speaking(FROM_POD, largest=bridge.LARGEST_REPORT)), over))
        await over.wait()

    async def _reported(self, files: SessionFiles) -> bool:
        stream = self._streams.get(files.session)
        if stream is None or stream.files.folder != files.folder:
            return await asyncio.to_thread(files.has_reported)  # of a pod that is here it may be an earlier one's
        try:
            await stream.report()
        except StreamEnded:
            return False
        return True

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        channel = Channel(reader, writer, UP, largest=bridge.LARGEST_HELLO)
        try:
            hello, caller = await self._met(channel)
            channel.largest = bridge.LARGEST_REPORT
            await channel.send(Welcome())
            if hello.errand:
                await self._meet(channel, caller, hello.errand)
            else:
                await self._carry(channel, hello, caller)
        except CallerRefused as refused:
            _log.warning("bridge.refused", reason=str(refused))
            self._refused.inc()
            with contextlib.suppress(StreamEnded):
                await channel.send(Refused(str(refused)))
        except StreamEnded as ended:
            _log.info("bridge.no-stream", reason=str(ended))
        finally:
            await channel.close()

    async def _met(self, channel: Channel[Up]) -> tuple[Hello, Caller]:
        try:
            async with asyncio.timeout(HELLO):
                hello = await channel.receive()
        except TimeoutError:
            raise StreamEnded("it does not say who it is") from None
        if not isinstance(hello, Hello):
            raise StreamEnded("it does not say hello")
        async with self._judging:
            return hello, await self._identify(hello.token)

    async def _carry(self, channel: Channel[Up], hello: Hello, caller: Caller) -> None:
        log = _log.bind(group=caller.folder, session=caller.session, pod=caller.pod)
        stream = Stream(channel, SessionFiles(self._tree, caller.folder, caller.session), synced=self._tell)
        if (older := self._streams.get(caller.session)) is not None:
            older.abort()  # half-open, or of a container that was started again
        self._streams[caller.session] = stream
        self._tell()
        log.info("bridge.stream")
        try:
            await stream.run(hello)
        except* OSError as errors:
            if self._streams.get(caller.session) is stream:
                self._lost.inc()
                log.warning("bridge.lost", reason=reasons(errors))
        finally:
            stream.ended()
            if self._streams.get(caller.session) is stream:
                del self._streams[caller.session]
            self._tell()
        log.info("bridge.over", reported=stream.finished)

    def _tell(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()
