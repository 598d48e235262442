"""A controller at the API's seam: everything in memory, and no agent behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

from nanoclaw_runtime.controller.status import Check, GroupState, GroupStatus, SessionState, SessionStatus
from nanoclaw_runtime.controller.view import Accepted
from nanoclaw_runtime.domain.errors import GroupUnknown, SessionUnknown, StoreFailed
from nanoclaw_runtime.domain.model import SessionKind
from nanoclaw_runtime.store.records import Event, EventType, Message, MessageState

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


class SmallController:
    """Groups `main` and `team`, one session `s1`; `says` publishes an answer."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.published: list[Event] = []
        self.stopped: list[str] = []
        self.followers = 0
        self.health = [Check("database", ok=True, detail="fine")]
        self.broken = False
        self.refused = asyncio.Event()
        """Set when somebody met it broken."""
        self._changed = asyncio.Condition()

    async def accept(self, folder, text, *, sender, sender_name, client_id=None) -> Accepted:
        if self.broken:
            raise StoreFailed("the database refused: disk full; make room")
        self._known(folder)
        for known in self.messages:
            if client_id and (known.folder, known.client_id) == (folder, client_id):
                return Accepted(known, created=False, status=self._status(folder))
        event = await self._publish(folder, EventType.MESSAGE, {"text": text, "senderName": sender_name})
        number = len(self.messages) + 1
        message = Message(
            number, folder, client_id, sender, sender_name, text, NOW, MessageState.WAITING, None, None, event.id
        )
        self.messages.append(message)
        trigger = None if folder == "main" or text.startswith("@Andy") else "@Andy"
        return Accepted(message, created=True, status=self._status(folder), trigger=trigger)

    async def groups(self) -> list[GroupStatus]:
        return [self._status("main"), self._status("team")]

    def sessions(self) -> list[SessionStatus]:
        return [SessionStatus("s1", "main", SessionKind.MESSAGES, SessionState.IDLE, NOW, 3, NOW)]

    async def stop_session(self, session) -> None:
        if session != "s1":
            raise SessionUnknown(session)
        self.stopped.append(session)

    async def history(self, folder, *, after=0, limit=100) -> list[Message]:
        self._known(folder)
        if self.broken:
            self.refused.set()
            raise StoreFailed("the database is locked; try again")
        return [message for message in self.messages if message.folder == folder and message.id > after][:limit]

    async def last_event(self) -> int:
        return len(self.published)

    async def events(self, *, after, folder) -> AsyncIterator[Event]:
        position = after
        self.followers += 1
        try:
            while True:
                async with self._changed:
                    await self._changed.wait_for(lambda: len(self.published) > position)  # noqa: B023
                    event = self.published[position]
                position += 1
                if folder in (None, event.folder):
                    yield event
        finally:
            self.followers -= 1

    async def checks(self) -> list[Check]:
        return self.health

    async def says(self, folder, text, *, messages=()) -> Event:
        return await self._publish(folder, EventType.ANSWER, {"text": text, "messages": list(messages)})

    async def gives_up(self, folder, text, *, messages) -> Event:
        return await self._publish(folder, EventType.FAILURE, {"text": text, "messages": list(messages)})

    async def _publish(self, folder, kind, payload) -> Event:
        async with self._changed:
            event = Event(len(self.published) + 1, folder, kind, payload, NOW)
            self.published.append(event)
            self._changed.notify_all()
        return event

    def _known(self, folder) -> None:
        if folder not in ("main", "team"):
            raise GroupUnknown(folder)

    def _status(self, folder) -> GroupStatus:
        return GroupStatus(
            folder, folder.title(), f"http:{folder}", folder == "main", GroupState.QUEUED, None, 1, 2, NOW
        )
