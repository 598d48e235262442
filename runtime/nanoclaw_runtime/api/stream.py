"""Events as `text/event-stream`: heartbeats between them, an end when the server stops.

A reader that is slow holds up only its own generator, which holds one event; nothing is queued.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final

from starlette.responses import StreamingResponse

from nanoclaw_runtime.api.schemas import EventView
from nanoclaw_runtime.store.records import Event

HEARTBEAT: Final = 15.0
# Seconds; below the idle timeouts of common proxies.


def encode(event: Event) -> str:
    """One event as it is on the wire; JSON has no line ends of its own."""
    data = EventView.of(event).model_dump_json(by_alias=True)
    return f"id: {event.id}\nevent: {event.type}\ndata: {data}\n\n"


async def lines(
    events: AsyncIterator[Event], position: int, closing: asyncio.Event, *, heartbeat: float = HEARTBEAT
) -> AsyncGenerator[str, None]:
    """The stream's text until `closing` is set; a comment whenever nothing came for `heartbeat` seconds.

    It begins with `position`, the id behind which the events are: a client that loses the stream before its first
    event then knows from where to go on.
    """
    yield f": connected\nid: {position}\n\n"
    stop = asyncio.create_task(closing.wait(), name="end of event stream")
    following = asyncio.create_task(_next(events), name="next event")
    try:
        while not stop.done():
            done, _ = await asyncio.wait({stop, following}, timeout=heartbeat, return_when=asyncio.FIRST_COMPLETED)
            if following in done:
                event = following.result()
                if event is None:
                    return
                yield encode(event)
                following = asyncio.create_task(_next(events), name="next event")
            elif not done:
                yield ": nothing new\n\n"
    finally:
        stop.cancel()
        following.cancel()
        await asyncio.gather(stop, following, return_exceptions=True)
        if isinstance(events, AsyncGenerator):
            await events.aclose()


class EventStream(StreamingResponse):
    """The kind of answer, as the API's document names it."""

    media_type = "text/event-stream"


def response(events: AsyncIterator[Event], position: int, closing: asyncio.Event) -> EventStream:
    """See `lines`."""
    return EventStream(
        _closed_with_request(lines(events, position, closing)),
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _closed_with_request(text: AsyncGenerator[str, None]) -> AsyncIterator[str]:
    """Ends the generator in the task that read it, also when the client goes away."""
    async with contextlib.aclosing(text):
        async for piece in text:
            yield piece


async def _next(events: AsyncIterator[Event]) -> Event | None:
    return await anext(events, None)
