"""Between code that blocks and streams of a loop: pieces are made and used in threads, one at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from typing import TypeVar

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
