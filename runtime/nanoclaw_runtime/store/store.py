"""The store as the controller uses it: one method a decision, one transaction a method.

What a method returns was on the disk before (`store.database`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from typing import Final, Self

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError

from nanoclaw_runtime.contract.wire import ContainerOutput
from nanoclaw_runtime.domain.errors import Diagnosis, StoreFailed
from nanoclaw_runtime.domain.model import SessionRef
from nanoclaw_runtime.store import intake, ledger, rows
from nanoclaw_runtime.store.database import Database
from nanoclaw_runtime.store.engine import create_engine
from nanoclaw_runtime.store.migrate import migrate
from nanoclaw_runtime.store.records import Event, Message, MessageState, SessionRecord
from nanoclaw_runtime.store.schema import events, messages

PAGE: Final = 100
# Events a follower holds in memory at once, however slow its reader is.


class Store:
    """Open it with `Store.open`; close it when nobody uses it any more."""

    def __init__(self, database: Database) -> None:
        self.database = database
        """Where the other books of the store keep theirs: tasks, outbox, registrations."""

    @classmethod
    async def open(cls, url: str, *, on_error: Callable[[], None] = lambda: None) -> Self:
        """Connect and bring the tables up to date. The folder of a SQLite file must exist.

        `on_error` is called for every transaction the database itself refuses.
        Raises StoreFailed when the database is not reachable, in use by another controller, or
        written by a newer version.
        """
        try:
            database = Database(create_engine(sa.make_url(url)), on_error)
        except (ArgumentError, ImportError) as error:
            raise StoreFailed(
                "the database URL is not one this image can open; write it like sqlite+aiosqlite:////path/to/file"
            ) from error
        try:
            await database.transaction(migrate)
        except BaseException:
            await database.close()
            raise
        return cls(database)

    async def close(self) -> None:
        """Wait for the transaction under way and let go of the database."""
        await self.database.close()

    async def add_message(
        self, folder: str, text: str, *, sender: str, sender_name: str, client_id: str | None = None, at: datetime
    ) -> tuple[Message, bool]:
        """The message as it is stored, and whether it is new: a client id of the group is stored once."""

        def work(connection: sa.Connection) -> tuple[Message, bool]:
            return intake.add_message(
                connection, folder, text, sender=sender, sender_name=sender_name, client_id=client_id, at=at
            )

        return await self.database.publish(work)

    async def waiting(self, folder: str) -> list[Message]:
        """The group's messages that no session has, oldest first."""
        waits = (messages.c.state == MessageState.WAITING, messages.c.folder == folder)
        return await self.database.transaction(lambda connection: rows.read_messages(connection, *waits))

    async def handed_over(self, message: int) -> None:
        """Another host has it, and knows its id: it waits here no more."""
        await self.database.transaction(lambda connection: intake.handed_over(connection, message))

    async def folders_waiting(self) -> dict[str, int]:
        """How many messages wait in each group that has some, in the order of the oldest."""
        return await self.database.transaction(intake.folders_waiting)

    async def last_activity(self) -> dict[str, datetime]:
        """When something last happened in each group that ever had an event."""
        return await self.database.transaction(intake.last_activity)

    async def newest(self, *, after: int = 0) -> dict[str, tuple[int, datetime]]:
        """Of each group with messages whose number is above `after`: the highest number, and the latest time."""
        return await self.database.transaction(lambda connection: intake.newest(connection, after))

    async def begin_session(
        self, ref: SessionRef, messages: Sequence[int], *, task: str | None = None, at: datetime
    ) -> int:
        """Record a session before its objects are made; the messages become its turn 0. Returns its generation.

        Raises StoreFailed, and changes nothing, when a message does not wait in that group.
        """
        return await self.database.transaction(lambda connection: ledger.begin(connection, ref, messages, task, at=at))

    async def session_started(self, session: str, *, at: datetime) -> None:
        """The agent has its whole input. Telling it again changes nothing."""
        await self.database.publish(lambda connection: ledger.started(connection, session, at=at))

    async def give(self, session: str, messages: Sequence[int]) -> int:
        """Messages become the session's next turn; the number of the turn."""
        return await self.database.transaction(lambda connection: ledger.give(connection, session, messages))

    async def take_back(self, session: str, messages: Sequence[int]) -> None:
        """Messages that never reached the agent wait again, in their old place."""
        await self.database.transaction(lambda connection: intake.take_back(connection, messages, session))

    async def commit_output(
        self,
        session: str,
        ordinal: int,
        output: ContainerOutput,
        text: str | None,
        *,
        at: datetime,
        jid: str | None = None,
    ) -> Event | None:
        """Record an output once; the answer to publish, if there is one.

        A successful output ends the oldest unfinished turn and, with an id, is what the group's
        next session resumes. None and no change when the output is known or the session is over
        (its messages wait again then, and will be answered anew). `text` is what the chat gets;
        with `jid`, the chat of a network, it is also put into the outbox.
        """
        return await self.database.publish(
            lambda connection: ledger.commit_output(connection, session, ordinal, output, text=text, jid=jid, at=at)
        )

    async def end_session(self, session: str, *, failure: Diagnosis | None, at: datetime) -> list[int]:
        """The session is over; the ids of its unfinished messages, which wait again. Once only."""
        return await self.database.publish(lambda connection: ledger.end(connection, session, failure, at=at))

    async def unfinished(self, session: str) -> list[Message]:
        """Messages the session was given and has not answered, oldest first."""
        given = (messages.c.session == session, messages.c.state == MessageState.GIVEN)
        return await self.database.transaction(lambda connection: rows.read_messages(connection, *given))

    async def finish_turns(self, session: str, *, at: datetime) -> None:
        """Every turn of the session is over, answered by name or not; for an agent that ended well."""
        await self.database.publish(lambda connection: ledger.finish_turns(connection, session, at=at))

    async def fail_messages(
        self, folder: str, messages: Sequence[int], chat: str, *, at: datetime, jid: str | None = None
    ) -> Event:
        """Give up waiting messages and tell the chat so; a chat of a network, `jid`, through the outbox."""
        return await self.database.publish(
            lambda connection: intake.fail(connection, folder, messages, chat, jid, at=at)
        )

    async def last_text(self, session: str) -> str | None:
        """The last text the session had for the chat."""
        return await self.database.transaction(lambda connection: ledger.last_text(connection, session))

    async def open_sessions(self) -> list[SessionRecord]:
        """Sessions that are starting or running, oldest first."""
        return await self.database.transaction(ledger.open_sessions)

    async def session(self, session: str) -> SessionRecord | None:
        return await self.database.transaction(lambda connection: rows.read_session(connection, session))

    async def sessions(self, *, folder: str | None = None, limit: int = 50) -> list[SessionRecord]:
        """The newest first, of one group or of all."""
        return await self.database.transaction(lambda connection: ledger.recent_sessions(connection, folder, limit))

    async def agent_session(self, folder: str) -> str | None:
        """The agent's own id of the conversation to resume."""
        return await self.database.transaction(lambda connection: ledger.agent_session(connection, folder))

    async def forget_agent_session(self, folder: str) -> None:
        """The next session of the group begins a new conversation."""
        await self.database.transaction(lambda connection: ledger.forget_agent_session(connection, folder))

    async def history(self, folder: str, *, after: int = 0, limit: int = 100) -> list[Message]:
        """Messages of the group with an id above `after`, oldest first."""
        later = (messages.c.folder == folder, messages.c.id > after)
        return await self.database.transaction(lambda connection: rows.read_messages(connection, *later, limit=limit))

    async def events(self, *, after: int, folder: str | None, limit: int = 500) -> list[Event]:
        """Events with an id above `after`, of one group or of all, oldest first."""
        later = [events.c.id > after, *([] if folder is None else [events.c.folder == folder])]
        return await self.database.transaction(lambda connection: rows.read_events(connection, *later, limit=limit))

    async def last_event_id(self) -> int:
        """0 when there is none yet."""
        query = sa.select(sa.func.max(events.c.id))
        return await self.database.transaction(lambda connection: connection.scalar(query)) or 0

    async def follow(self, *, after: int, folder: str | None) -> AsyncIterator[Event]:
        """Every event behind `after`, then each new one; never ends by itself.

        Each follower reads the table at its own pace, so a slow one holds `PAGE` events, not a queue.
        """
        position = after
        while True:
            added = self.database.added  # taken before the look, so that an event in between wakes us
            page = await self.events(after=position, folder=folder, limit=PAGE)
            for event in page:
                position = event.id
                yield event
            if not page:
                await added.wait()
