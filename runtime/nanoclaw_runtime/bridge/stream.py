"""One pod's stream, at the controller's end: what is new goes down, what comes up is written into the tree.

What goes down is worked out from the files each time, so nothing has to be remembered beyond the stream: on a new one
every input that is still there is sent again, and the pod says first which ones are gone. Not here: whose pod it is
(`callers`).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

from nanoclaw_runtime.bridge.protocol import (
    LAST,
    Alive,
    Ask,
    Bye,
    Channel,
    Go,
    Handled,
    Hello,
    Input,
    Pace,
    Piece,
    Report,
    Request,
    Snapshot,
    StreamEnded,
    Synced,
    Taken,
    Up,
)
from nanoclaw_runtime.bridge.tree import SessionFiles
from nanoclaw_runtime.contract import bridge
from nanoclaw_runtime.domain.errors import TransferRefused
from nanoclaw_runtime.ipc.streams import flowing

RATE: Final = 400
"""Messages a second that are taken from a pod in the long run; it is made to wait for more."""
BURST: Final = 1000

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class _Open:
    """A request that is not dealt with."""

    serial: int
    kind: str
    size: int


class Stream:
    """`run` is its life. It ends when the pod has said its last, goes away, or is replaced."""

    def __init__(self, channel: Channel[Up], files: SessionFiles, *, synced: Callable[[], None]) -> None:
        """`synced` is called when the pod has all that waited for it."""
        self.files = files
        self.errands = False
        """Whether the pod can be sent on errands, now that it has its folders."""
        self._synced = synced
        self.finished = False
        """The last report has arrived."""
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when nothing is carried any more."""
        self._channel = channel
        self._news = asyncio.Event()
        self._sent: dict[str, int | tuple[int, ...]] = {}
        self._open: dict[tuple[str, bytes], _Open] = {}
        self._none_open = asyncio.Event()
        self._none_open.set()
        self._numbers = itertools.count(LAST + 1)
        self._asked: dict[int, asyncio.Future[None]] = {}

    def changed(self) -> None:
        """There may be something new for the pod."""
        self._news.set()

    def abort(self) -> None:
        """End at once."""
        self._channel.abort()

    async def run(self, hello: Hello) -> None:
        """Carry until the end. Raises StreamEnded when the pod goes without a last report, and OSError."""
        await asyncio.to_thread(self.files.forget_report)
        async with (
            asyncio.TaskGroup() as tasks
        ):  # both ways from the beginning: neither end waits for the other to read
            down = tasks.create_task(self._down(hello), name="bridge, down")
            beat = tasks.create_task(self._channel.beat(), name="bridge, heartbeat")
            await self._up()
            down.cancel()
            beat.cancel()

    async def report(self) -> None:
        """Return when everything that is so in the pod now has arrived. Raises StreamEnded."""
        if self.finished:
            return
        number = next(self._numbers)
        asked = self._asked[number] = asyncio.get_running_loop().create_future()
        try:
            await self._channel.send(Ask(number))
            await asked
        finally:
            del self._asked[number]

    async def send_on(self, errand: int) -> None:
        """Have the pod connect once more. Raises StreamEnded."""
        await self._channel.send(Go(errand))

    def ended(self) -> None:
        """Nobody who waits for a report gets one, and no errand begins."""
        self.over.set_result(None)
        for asked in self._asked.values():
            if not asked.done():
                asked.set_exception(StreamEnded("the stream is over"))

    async def _send_carried(self) -> None:
        try:
            pieces = await asyncio.to_thread(self.files.carried)
        except TransferRefused as refused:  # its agent starts without
            _log.warning("bridge.not-carried", group=self.files.folder, reason=str(refused))
        else:
            async with contextlib.aclosing(flowing(pieces)) as stream:
                async for piece in stream:
                    await self._channel.send(Piece(piece))
        await self._channel.send(Piece(b""))

    # Down

    async def _down(self, hello: Hello) -> None:
        if not hello.carried:
            await self._send_carried()
        await self._send_news()
        await self._channel.send(Synced())
        self.errands = hello.errands
        self._synced()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(bridge.POLL if self._open else None):
                    await self._news.wait()
            self._news.clear()
            await self._send_news()
            await self._send_handled()

    async def _send_news(self) -> None:
        for name, version in await asyncio.to_thread(self.files.snapshots):
            if self._sent.get(name) != version:
                content = await asyncio.to_thread(self.files.snapshot, name)
                if content is not None:
                    await self._channel.send(Snapshot(name, content))
                self._sent[name] = version
        await self._send_inputs()

    async def _send_inputs(self) -> None:
        waiting = await asyncio.to_thread(self.files.inputs)
        for name, version in waiting:
            if self._sent.get(name) != version:
                content = await asyncio.to_thread(self.files.input, name)
                if content is not None:
                    await self._channel.send(Input(name, version, content))
                    self._sent[name] = version

    async def _send_handled(self) -> None:
        """Which requests the controller has dealt with: it has removed them then."""
        if not self._open:
            return
        wanted = dict(self._open)
        there = await asyncio.to_thread(self.files.placed, wanted)
        for place, request in wanted.items():
            if place not in there and self._open.get(place) is request:  # and no newer one came meanwhile
                del self._open[place]
                await self._channel.send(Handled(request.serial))
        if not self._open:
            self._none_open.set()

    # Up

    async def _up(self) -> None:
        pace = Pace(RATE, BURST)
        while not self.finished:
            match await self._channel.receive():
                case Taken(name, version):
                    await asyncio.to_thread(self.files.taken, name, version)
                case Request() as request:
                    await self._take(request)
                case Report(number):
                    await self._reported(number)
                case Alive():
                    pass
                case Hello():
                    raise StreamEnded("it says hello twice")
            await pace.keep()

    async def _take(self, request: Request) -> None:
        place = request.kind, request.name
        others = [each for key, each in self._open.items() if key != place]
        too_many = sum(each.kind == request.kind for each in others) >= bridge.REQUESTS_AT_ONCE
        if too_many or sum(each.size for each in others) > bridge.REQUEST_BYTES_AT_ONCE:
            raise StreamEnded("more requests than may be open at once")
        await asyncio.to_thread(self.files.place, request)
        self._open[place] = _Open(request.serial, request.kind, len(request.content))
        self._none_open.clear()
        self._news.set()

    async def _reported(self, number: int) -> None:
        if number == LAST:
            await asyncio.to_thread(self.files.set_reported)
            self.finished = True
            for waiting in self._asked.values():
                _answer(waiting)
            await self._last_ones()
            await self._channel.send(Bye())
        elif (asked := self._asked.get(number)) is not None:
            _answer(asked)

    async def _last_ones(self) -> None:
        """Wait for the requests of the last moment to be dealt with.

        A file that stays until the next session is carried out again when that comes later than anybody remembers.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(bridge.LAST_HANDLED):
                await self._none_open.wait()


def _answer(asked: asyncio.Future[None]) -> None:
    if not asked.done():
        asked.set_result(None)
