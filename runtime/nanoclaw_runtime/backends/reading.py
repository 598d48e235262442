"""One pass over an agent's output, whichever stream or log it comes from."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from typing import Any

from nanoclaw_runtime.contract.wire import ContainerOutput
from nanoclaw_runtime.domain.model import AgentOutput
from nanoclaw_runtime.ipc.markers import MarkerParser


class Reading:
    """Reads from the beginning, counts every output, and gives those from `following` on."""

    def __init__(self, following: int) -> None:
        self._parser = MarkerParser()
        self._following = following
        self.count = 0

    def feed(self, data: bytes) -> list[AgentOutput]:
        return self._numbered(self._parser.feed(data))

    def close(self) -> list[AgentOutput]:
        return self._numbered(self._parser.close())

    def _numbered(self, found: list[ContainerOutput]) -> list[AgentOutput]:
        numbered = [AgentOutput(self.count + place, output) for place, output in enumerate(found)]
        self.count += len(found)
        return [output for output in numbered if output.ordinal >= self._following]


async def until(end: Coroutine[Any, Any, None], chunks: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    """The chunks as they come, until there are no more or `end` returns. Both are over behind it."""
    ending = asyncio.create_task(end, name="end of a log")
    reading = asyncio.ensure_future(anext(chunks, b""))
    try:
        while await asyncio.wait({reading, ending}, return_when=asyncio.FIRST_COMPLETED):
            if not reading.done() or not (data := reading.result()):
                return
            yield data
            reading = asyncio.ensure_future(anext(chunks, b""))
    finally:
        ending.cancel()
        reading.cancel()
        await asyncio.gather(ending, reading, return_exceptions=True)
        await chunks.aclose()
