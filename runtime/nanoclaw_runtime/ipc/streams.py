"""Between code that blocks and streams of a loop: pieces are made and used in threads, one at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator
from typing import Self, TypeVar

from nanoclaw_runtime.domain.errors import TransferRefused

_Result = TypeVar("_Result")


async def flowing(pieces: Iterator[bytes]) -> AsyncGenerator[bytes]:
    """The pieces, each made in a thread while nobody waits for the loop."""
    while piece := await asyncio.to_thread(_next_piece, pieces):
        yield piece


async def drained(chunks: AsyncIterator[bytes], consume: Callable[[Callable[[int], bytes]], _Result]) -> _Result:
    """What `consume` makes of the chunks in a thread, reading them like a file.

    An error of the stream is raised where it is read. Cancelling this ends the reading.
    """
    source = _Reader(chunks, asyncio.get_running_loop())
    try:
        return await asyncio.to_thread(consume, source.read)
    finally:
        source.closed = True


async def sieved(
    chunks: AsyncIterator[bytes], sieve: Callable[[Callable[[int], bytes]], Iterator[bytes]]
) -> AsyncGenerator[bytes]:
    """The pieces that `sieve` makes of the chunks, reading them like a file; see `drained`."""
    source = _Reader(chunks, asyncio.get_running_loop())
    try:
        async for piece in flowing(sieve(source.read)):
            yield piece
    finally:
        source.closed = True


def gathered(pieces: Iterable[bytes], size: int) -> Iterator[bytes]:
    """The same bytes in pieces of at least so many, but for the last one."""
    waiting, length = list[bytes](), 0
    for piece in pieces:
        waiting.append(piece)
        length += len(piece)
        if length >= size:
            yield b"".join(waiting)
            waiting, length = [], 0
    yield b"".join(waiting)


class Lively:
    """Chunks that do not keep anybody waiting. No generator: whoever is cancelled leaves a thread that still reads."""

    def __init__(self, chunks: AsyncIterator[bytes], within: float) -> None:
        """Raises TransferRefused when none comes in so many seconds."""
        self._chunks, self._within = chunks, within

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            async with asyncio.timeout(self._within):
                return await anext(self._chunks)
        except TimeoutError:
            raise TransferRefused(f"the archive broke off: nothing came for {self._within:.0f} s") from None


class _Reader:
    def __init__(self, chunks: AsyncIterator[bytes], loop: asyncio.AbstractEventLoop) -> None:
        self._chunks, self._loop = chunks, loop
        self._rest = b""
        self.closed = False

    def read(self, size: int) -> bytes:
        """At most `size` bytes; none at the end."""
        while not self._rest:
            if self.closed:
                raise ConnectionAbortedError("nobody waits for this any more")
            chunk = asyncio.run_coroutine_threadsafe(self._following(), self._loop).result()
            if chunk is None:
                return b""
            self._rest = chunk
        piece, self._rest = self._rest[:size], self._rest[size:]
        return piece

    async def _following(self) -> bytes | None:
        return await anext(self._chunks, None)


def _next_piece(pieces: Iterator[bytes]) -> bytes:
    return next((piece for piece in pieces if piece), b"")
