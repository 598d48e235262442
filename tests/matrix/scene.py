"""One group's chat as somebody lives it who misses nothing: what was sent, and every event since.

The events come by the API, over as many connections as it takes; a controller that is away is waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Self

from nanoclaw_runtime.api.schemas import AcceptedView, EventView
from nanoclaw_runtime.cli.errors import CommandFailed, NotReachable
from nanoclaw_runtime.cli.remote import Remote
from nanoclaw_runtime.store.records import EventType, RecordedState

PATIENCE = 120.0
"""Seconds for anything that should happen; a wait in vain ends with what was seen."""
AWAY = 0.5
FINISHING = {EventType.ANSWER, EventType.DONE, EventType.FAILURE}


class Scene:
    def __init__(self, remote: Remote, group: str) -> None:
        self.remote, self.group = remote, group
        self.sent: list[AcceptedView] = []
        self.events: list[EventView] = []
        self._more = asyncio.Condition()

    @classmethod
    @contextlib.asynccontextmanager
    async def of(cls, remote: Remote, group: str) -> AsyncIterator[Self]:
        scene = cls(remote, group)
        following = asyncio.create_task(scene._follow(), name=f"follow {group}")
        try:
            yield scene
        finally:
            following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await following

    async def send(self, text: str) -> AcceptedView:
        """Return when it is acknowledged, however often that has to be tried."""
        client_id = secrets.token_hex(8)
        while True:
            with contextlib.suppress(NotReachable):
                self.sent.append(await self.remote.send(self.group, text, sender="ann", client_id=client_id))
                return self.sent[-1]
            await asyncio.sleep(AWAY)

    async def say(self, text: str) -> EventView:
        """The answer to a message."""
        return await self.answer(await self.send(text))

    async def answer(self, sent: AcceptedView) -> EventView:
        return await self.until(lambda event: event.type is EventType.ANSWER and sent.id in event.payload["messages"])

    async def running(self, sent: AcceptedView) -> str:
        """The session that has its input, and began behind this message."""
        event = await self.until(
            lambda event: event.id > sent.event and state_of(event) is RecordedState.RUNNING,
        )
        return str(event.payload["session"])

    async def began(self, answer: EventView) -> datetime:
        """When the agent that answered had its input."""
        running = await self.until(
            lambda event: event.payload.get("session") == answer.payload["session"] and state_of(event) is not None
        )
        return running.created

    async def over(self, session: str) -> EventView:
        return await self.until(
            lambda event: (
                event.payload.get("session") == session
                and state_of(event) in {RecordedState.ENDED, RecordedState.FAILED}
            )
        )

    async def until(self, matches: Callable[[EventView], bool]) -> EventView:
        """The first event that matches, of those that were and those to come."""
        seen = 0
        try:
            async with asyncio.timeout(PATIENCE), self._more:
                while True:
                    for event in self.events[seen:]:
                        if matches(event):
                            return event
                    seen = len(self.events)
                    await self._more.wait()
        except TimeoutError:
            raise AssertionError(f"{self.group}: nothing more came within {PATIENCE:.0f} s; {self.story()}") from None

    def faults(self) -> list[str]:
        """What was promised and is not so: a sentence each."""
        times = Counter(message for event in self.events for message in finishes(event))
        answers = Counter(
            (event.payload["session"], event.payload["ordinal"])
            for event in self.events
            if event.type is EventType.ANSWER
        )
        wrong = [f"message {sent.id} was finished {times[sent.id]} times" for sent in self.sent if times[sent.id] != 1]
        return wrong + [
            f"output {output} was published {count} times" for output, count in answers.items() if count > 1
        ]

    def story(self) -> str:
        """The events, short."""
        return "; ".join(
            f"{event.id} {event.type} { ({**event.payload, 'text': str(event.payload.get('text'))[:80]}) }"
            for event in self.events[-8:]
        )

    async def _follow(self) -> None:
        after = 0
        while True:
            with contextlib.suppress(CommandFailed):
                async with contextlib.aclosing(self.remote.events(self.group, after=after)) as events:
                    async for event in events:
                        after = event.id
                        async with self._more:
                            self.events.append(event)
                            self._more.notify_all()
            await asyncio.sleep(AWAY)


def state_of(event: EventView) -> RecordedState | None:
    """Of the session the event tells about."""
    return RecordedState(event.payload["state"]) if event.type is EventType.SESSION else None


def finishes(event: EventView) -> list[int]:
    """The messages that are over with this event."""
    return list(event.payload["messages"]) if event.type in FINISHING else []
