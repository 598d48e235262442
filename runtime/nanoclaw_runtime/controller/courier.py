"""Carries what waits in the outbox to the chat networks: one text of a chat after the other, chats side by side.

A text is never lost and, while nothing crashes, never carried twice: a piece is written down as
taken before the next one goes. A process that dies between the network's word and that note, or a
network whose word gets lost, makes one piece appear twice: no network we know lets us ask whether
it has it. How a text is cut into pieces is the channel's business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final, TypeVar

import structlog

from nanoclaw_runtime.channels.base import Channel, ChannelFailed, ChannelRefused
from nanoclaw_runtime.domain.errors import StoreFailed
from nanoclaw_runtime.store.outbox import Outbox
from nanoclaw_runtime.store.records import Post
from nanoclaw_runtime.telemetry import Metrics

CHATS_AT_ONCE: Final = 16
"""Chats that are written to at the same time; networks ask bots to stay below 30 messages a second."""
LONGEST_PAUSE: Final = 300.0
"""Seconds between two tries, unless the network asks for more."""
TRIES: Final = 296
"""After this many a text is given up. With the pauses between them that is a day of trying."""
STORE_PAUSE: Final = 5.0
"""Seconds until a database that refused is asked again."""
LAST_WORDS: Final = 10.0
"""Seconds in which pieces that are under way may still be taken when the process stops."""

_Result = TypeVar("_Result")

_log = structlog.get_logger(__name__)


def pause(attempts: int, retry_after: float | None = None) -> float:
    """Seconds until the next try, after so many that failed before this one: 1, 2, 4 … 300."""
    return max(min(2.0 ** min(attempts, 30), LONGEST_PAUSE), retry_after or 0.0)


class Courier:
    """The only one who sends. `run` it once; what is left when it is cancelled is for the next process."""

    def __init__(
        self,
        outbox: Outbox,
        channels: Sequence[Channel],
        *,
        metrics: Metrics | None = None,
        pause: Callable[[int, float | None], float] = pause,
        store_pause: float = STORE_PAUSE,
    ) -> None:
        self._outbox = outbox
        self._channels = channels
        self._pause = pause
        self._store_pause = store_pause
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._freed = asyncio.Event()
        self._oldest: datetime | None = None
        self._metrics = metrics or Metrics()
        self._metrics.outbox_oldest_seconds.set_function(self._oldest_age)

    async def run(self) -> None:
        """Deliver until cancelled; then bring what is under way to its end, so that it is not sent again."""
        async with asyncio.TaskGroup() as tasks:
            try:
                while True:
                    added = self._outbox.database.added  # taken before the look, so that a text in between wakes us
                    self._freed.clear()
                    await self._rest(added, await self._recorded(partial(self._send_due, tasks)))
            finally:
                if self._under_way:
                    await asyncio.wait(self._under_way.values(), timeout=LAST_WORDS)

    async def _send_due(self, tasks: asyncio.TaskGroup) -> datetime | None:
        """Send what is due; when there is more to do unless somebody wakes us before."""
        now, busy = datetime.now(UTC), set(self._under_way)
        self._oldest = await self._outbox.oldest_waiting()
        # What is under way now may be recorded behind the look, so the look tells nothing about those chats.
        due = await self._outbox.due(now, CHATS_AT_ONCE + len(busy))
        for post in [post for post in due if post.jid not in busy][: CHATS_AT_ONCE - len(busy)]:
            self._under_way[post.jid] = tasks.create_task(self._deliver(post), name=f"text {post.id} to {post.jid}")
        return await self._outbox.next_due(now)

    def _oldest_age(self) -> float:
        return 0.0 if self._oldest is None else (datetime.now(UTC) - self._oldest).total_seconds()

    async def _rest(self, added: asyncio.Event, until: datetime | None) -> None:
        seconds = None if until is None else max(0.0, (until - datetime.now(UTC)).total_seconds())
        wakers = [
            asyncio.create_task(added.wait(), name="waiting for texts"),
            asyncio.create_task(self._freed.wait(), name="waiting for a chat"),
        ]
        try:
            await asyncio.wait(wakers, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for waker in wakers:
                waker.cancel()

    async def _deliver(self, post: Post) -> None:
        """The next piece of a text."""
        try:
            await self._carry(post)
        except (ChannelFailed, ChannelRefused) as error:
            await self._not_taken(post, error)
        except Exception as error:  # noqa: BLE001 - one text must not end the others
            _log.exception("text not delivered", jid=post.jid, group=post.folder, post=post.id)
            await self._not_taken(post, ChannelFailed(f"{type(error).__name__} in the controller; see its log"))
        finally:
            del self._under_way[post.jid]
            self._freed.set()

    async def _carry(self, post: Post) -> None:
        channel = next((channel for channel in self._channels if channel.owns(post.jid)), None)
        if channel is None:
            raise ChannelRefused(
                f"no channel for {post.jid!r} is configured; configure it in the stack and run "
                f"`nanoclaw outbox retry {post.id}`"
            )
        parts = channel.parts(post.text, sender=post.sender)
        if post.parts < len(parts):
            await channel.send(post.jid, parts[post.parts])
        if post.parts + 1 < len(parts):
            await self._recorded(partial(self._outbox.part_sent, post.id))
            return
        await self._recorded(partial(self._outbox.sent, post.id, at=datetime.now(UTC)))
        _log.info("text delivered", jid=post.jid, group=post.folder, post=post.id, channel=channel.name)

    async def _not_taken(self, post: Post, error: ChannelFailed | ChannelRefused) -> None:
        now, told = datetime.now(UTC), str(error)
        log = _log.bind(jid=post.jid, group=post.folder, post=post.id, reason=told)
        if isinstance(error, ChannelRefused) or post.attempts + 1 >= TRIES:
            await self._recorded(partial(self._outbox.failed, post.id, told, at=now))
            self._metrics.texts_given_up.inc()
            log.error("text given up")
            return
        seconds = self._pause(post.attempts, error.retry_after)
        await self._recorded(partial(self._outbox.again, post.id, now + timedelta(seconds=seconds), told))
        log.warning("text not taken, tried again", seconds=seconds, attempts=post.attempts + 1)

    async def _recorded(self, work: Callable[[], Awaitable[_Result]]) -> _Result:
        """Do it until the database takes it: a text that was sent and not written down would be sent again."""
        while True:
            try:
                return await work()
            except StoreFailed as error:
                _log.error("outbox not reached, tried again", reason=str(error), seconds=self._store_pause)
                await asyncio.sleep(self._store_pause)
