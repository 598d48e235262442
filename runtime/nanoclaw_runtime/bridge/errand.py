"""Errands at the controller's end: what is asked of a group's pod, and what of its answers is believed.

A pod speaks for its own group alone, and even so it may be an agent's doing what it says: paths are checked, an archive
is taken apart and put together anew on its way through, and number, size and pace have bounds. Nothing is kept here but
a listing. Not here: which pod is sent (`server`), what the files are for (`controller.transfer`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from typing import Final, Self

from nanoclaw_runtime.bridge.errands import (
    FILES_AT_ONCE,
    PATIENCE,
    Done,
    Failed,
    Found,
    FromPod,
    Give,
    List,
    Remove,
    Take,
    beating,
)
from nanoclaw_runtime.bridge.protocol import LATEST, Alive, Channel, Pace, Piece, StreamEnded
from nanoclaw_runtime.domain.errors import TransferRefused
from nanoclaw_runtime.domain.transfer import Area, FileFacts, FileList, FilesTaken, moves
from nanoclaw_runtime.ipc import archive, streams

LISTED: Final = 600.0
"""Seconds for a listing."""
RATE: Final = 400
BURST: Final = 1000
"""Messages of less than a piece that are taken from a pod."""
SMALL: Final = 64 * 1024
SLOWEST: Final = 16 * 1024
"""Bytes a second at which an archive has to come from a pod: it keeps a thread, and whoever exports all groups."""


class Errand:
    """One thing done by a pod. Its owner closes the connection."""

    def __init__(self, channel: Channel[FromPod]) -> None:
        self._channel = channel
        self._pace = Pace(RATE, BURST)
        self._waited, self._came = 0.0, 0

    async def listing(self, area: Area) -> FileList:
        """Raises TransferRefused, StreamEnded."""
        try:
            async with beating(self._channel), asyncio.timeout(LISTED):
                await self._channel.send(List(area))
                files, done = await self._found()
        except TimeoutError:
            raise StreamEnded(f"it did not list its files in {LISTED:.0f} s") from None
        return FileList(files=tuple(sorted(files, key=lambda file: file.path)), left_out=_number(done.left_out))

    async def _found(self) -> tuple[list[FileFacts], Done]:
        files, bounds = list[FileFacts](), archive.Bounds("the area, as its pod tells,")
        while isinstance(message := await self._following(PATIENCE), Found):
            if len(message.files) > FILES_AT_ONCE:
                raise StreamEnded(f"{len(message.files)} files at once; {FILES_AT_ONCE} are the most")
            for file in message.files:
                bounds.count(file.path)
                files.append(_facts(file.path, file.size, file.modified))
        return files, _done(message)

    async def pieces(self, area: Area) -> AsyncGenerator[bytes]:
        """The area as a tar stream of ours. Raises TransferRefused, StreamEnded."""
        async with beating(self._channel):
            await self._channel.send(Give(area))
            sieve = streams.sieved(_Pieces(self), lambda read: _again(read, area))
            async with contextlib.aclosing(sieve) as pieces:
                async for piece in pieces:
                    yield piece

    async def take(self, area: Area, chunks: AsyncIterator[bytes]) -> FilesTaken:
        """Bring the files of a tar stream. Raises TransferRefused, StreamEnded, and what `chunks` raise."""
        async with beating(self._channel):
            await self._channel.send(Take(area))
            answering = asyncio.create_task(self._answer(None), name="bridge, answer of an errand")
            try:
                await self._bring(chunks, answering)
                await asyncio.wait({answering}, timeout=PATIENCE)  # from here on: a large archive takes its time
                done = _said(answering)
            finally:
                answering.cancel()
                await asyncio.gather(answering, return_exceptions=True)
        return FilesTaken(files=_number(done.files), bytes=_number(done.bytes), left_out=_number(done.left_out))

    async def remove(self, area: Area, paths: list[str]) -> int:
        """How many of the files were there. Raises TransferRefused, StreamEnded."""
        async with beating(self._channel):
            await self._channel.send(Remove(area, paths))
            return _number((await self._answer(PATIENCE)).files)

    async def _bring(self, chunks: AsyncIterator[bytes], answering: asyncio.Task[Done]) -> None:
        """Send pieces for as long as the pod has not answered."""
        async for chunk in chunks:
            for start in range(0, len(chunk), archive.PIECE):
                if answering.done():
                    return
                await self._channel.send(Piece(chunk[start : start + archive.PIECE]))
        await self._channel.send(Piece(b""))

    async def _answer(self, within: float | None) -> Done:
        return _done(await self._following(within))

    async def _following(self, within: float | None) -> FromPod:
        """The next word but that the pod lives. Raises StreamEnded."""
        try:
            async with asyncio.timeout(within):
                while True:
                    message = await self._channel.receive()
                    if not (isinstance(message, Piece) and len(message.content) >= SMALL):
                        await self._pace.keep()
                    if not isinstance(message, Alive):
                        return message
        except TimeoutError:
            raise _silent() from None

    async def piece(self) -> bytes:
        """The next one of an archive; none at its end. Raises TransferRefused, StreamEnded."""
        begun = asyncio.get_running_loop().time()
        message = await self._following(min(PATIENCE, PATIENCE + self._came / SLOWEST - self._waited))
        self._waited += asyncio.get_running_loop().time() - begun
        if isinstance(message, Piece) and message.content:
            self._came += len(message.content)
            return message.content
        _done(message)
        return b""


class _Pieces:
    """Of an archive, to its end. No generator: whoever is cancelled leaves a thread that still reads."""

    def __init__(self, errand: Errand) -> None:
        self._errand = errand

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if piece := await self._errand.piece():
            return piece
        raise StopAsyncIteration


def _again(read: Callable[[int], bytes], area: Area) -> Iterator[bytes]:
    return streams.gathered(archive.sifted(read, moves(area)), archive.PIECE)


def _said(answering: asyncio.Task[Done]) -> Done:
    """Raises StreamEnded where there is no answer, and what it raises."""
    if not answering.done():
        raise _silent()
    return answering.result()


def _silent() -> StreamEnded:
    return StreamEnded("it says nothing")


def _done(message: FromPod) -> Done:
    match message:
        case Done():
            return message
        case Failed(reason):
            raise TransferRefused("".join(each if each.isprintable() else "?" for each in reason[:500]))
        case other:
            raise StreamEnded(f"{type(other).__name__} at the end of an errand")


def _facts(path: str, size: int, modified: int) -> FileFacts:
    return FileFacts(path=archive.path_below(path), size=_number(size), modified=_number(modified))


def _number(told: int) -> int:
    return min(max(told, 0), LATEST)
