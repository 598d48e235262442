"""What the API may ask of the controller. The controller keeps it; the API's tests have a small one of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from nanoclaw_runtime.controller.status import Check, GroupStatus, QueueStatus, SessionStatus
from nanoclaw_runtime.store.records import Event, Message


@dataclass(frozen=True)
class Accepted:
    """A message that is committed."""

    message: Message
    created: bool
    """False when the client's id was known: `message` is then the first one."""
    status: GroupStatus
    trigger: str | None = None
    """What the message lacks to be answered by itself, `@Andy` say: it is context for the next that has it."""


class ControllerView(Protocol):
    """Everything raises GroupUnknown or SessionUnknown for what is not there, StoreFailed without a database."""

    async def accept(
        self, folder: str, text: str, *, sender: str, sender_name: str, client_id: str | None = None
    ) -> Accepted:
        """Commit a message and see to its answer."""
        ...

    async def groups(self) -> list[GroupStatus]: ...

    def queue(self) -> QueueStatus:
        """Who waits for a place, first come first."""
        ...

    def sessions(self) -> list[SessionStatus]:
        """Those that are alive."""
        ...

    async def stop_session(self, session: str) -> None:
        """Ask a session to end; returns when it was asked."""
        ...

    async def history(self, folder: str, *, after: int = 0, limit: int = 100) -> list[Message]: ...

    async def last_event(self) -> int:
        """The id of the newest event, of whatever group; 0 when there is none yet."""
        ...

    def events(self, *, after: int, folder: str | None) -> AsyncIterator[Event]:
        """Events with an id above `after`, then each new one. Endless."""
        ...

    async def checks(self) -> list[Check]:
        """What has to hold for messages to be answered."""
        ...
