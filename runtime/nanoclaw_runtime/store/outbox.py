"""Texts on their way to chat networks: posted in the transaction that made them, kept until they are taken.

Of each chat only the oldest waiting text is ever due, so a chat's texts keep their order and a
chat that cannot be reached holds up no other. Who delivers them is `controller.courier`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from nanoclaw_runtime.store.database import Database
from nanoclaw_runtime.store.records import EventType, Post, PostState
from nanoclaw_runtime.store.schema import events, outbox


def post(
    connection: sa.Connection,
    jid: str,
    folder: str,
    text: str,
    *,
    origin: str,
    at: datetime,
    sender: str | None = None,
) -> bool:
    """Put a text into the outbox, within a transaction of the caller; False when `origin` was posted before."""
    if connection.scalar(sa.select(outbox.c.id).where(outbox.c.origin == origin)) is not None:
        return False
    connection.execute(
        sa.insert(outbox).values(
            jid=jid,
            folder=folder,
            text=text,
            sender=sender,
            origin=origin,
            state=PostState.WAITING,
            parts=0,
            attempts=0,
            next_attempt=at,
            created=at,
        )
    )
    return True


class Outbox:
    """The outbox as the courier and the operator use it: a transaction a method. Each raises StoreFailed."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def due(self, now: datetime, limit: int) -> list[Post]:
        """The oldest waiting text of each chat, where it is to be tried by now; the oldest of all first."""
        query = _heads().where(outbox.c.next_attempt <= now).order_by(outbox.c.id).limit(limit)
        return await self.database.transaction(lambda connection: _posts(connection, query))

    async def next_due(self, now: datetime) -> datetime | None:
        """When the first chat that has to wait longer than `now` is tried; None when there is none."""
        query = sa.select(sa.func.min(_heads().where(outbox.c.next_attempt > now).subquery().c.next_attempt))
        return await self.database.transaction(lambda connection: connection.scalar(query))

    async def oldest_waiting(self) -> datetime | None:
        """When the oldest text that no network has taken was posted; None when there is none."""
        query = sa.select(sa.func.min(outbox.c.created)).where(outbox.c.state == PostState.WAITING)
        return await self.database.transaction(lambda connection: connection.scalar(query))

    async def part_sent(self, number: int) -> None:
        """The network has taken one more piece of the text, though not the last one."""
        values = {"parts": outbox.c.parts + 1, "attempts": 0, "error": None}
        await self.database.transaction(lambda connection: _change(connection, number, values))

    async def sent(self, number: int, *, at: datetime) -> None:
        """The network has taken the whole text."""
        values = {"state": PostState.SENT, "sent": at, "error": None}
        await self.database.transaction(lambda connection: _change(connection, number, values))

    async def again(self, number: int, next_attempt: datetime, error: str) -> None:
        """The network did not take it this time."""
        values = {"attempts": outbox.c.attempts + 1, "next_attempt": next_attempt, "error": error}
        await self.database.transaction(lambda connection: _change(connection, number, values))

    async def failed(self, number: int, error: str, *, at: datetime) -> None:
        """Nobody tries it again by itself; whoever follows the group's events is told."""

        def work(connection: sa.Connection) -> None:
            values = {"state": PostState.FAILED, "attempts": outbox.c.attempts + 1, "error": error}
            _change(connection, number, values)
            (given_up,) = _posts(connection, sa.select(outbox).where(outbox.c.id == number))
            told = f"A message could not be delivered to {given_up.jid}: {error}"
            payload = {"messages": [], "text": told, "post": number}
            event = {"folder": given_up.folder, "type": EventType.FAILURE, "payload": payload, "created": at}
            connection.execute(sa.insert(events).values(event))

        await self.database.publish(work)

    async def retry(self, number: int, *, at: datetime) -> Post | None:
        """A text that failed, or waits for its next try, is tried at once, as if for the first time.

        The text as it is now; one that was sent stays sent. None when there is no such text.
        """

        def work(connection: sa.Connection) -> Post | None:
            mine = sa.select(outbox).where(outbox.c.id == number)
            found = _posts(connection, mine)
            if not found or found[0].state is PostState.SENT:
                return found[0] if found else None
            values = {"state": PostState.WAITING, "attempts": 0, "next_attempt": at}
            _change(connection, number, values)
            return _posts(connection, mine)[0]

        return await self.database.publish(work)

    async def list(
        self,
        *,
        jid: str | None = None,
        folder: str | None = None,
        state: PostState | None = None,
        after: int = 0,
        limit: int = 100,
    ) -> Sequence[Post]:
        """Texts with an id above `after`, oldest first."""
        query = sa.select(outbox).where(outbox.c.id > after).order_by(outbox.c.id).limit(limit)
        for column, wanted in ((outbox.c.jid, jid), (outbox.c.folder, folder), (outbox.c.state, state)):
            query = query if wanted is None else query.where(column == wanted)
        return await self.database.transaction(lambda connection: _posts(connection, query))


def _heads() -> sa.Select[Any]:
    oldest = sa.select(sa.func.min(outbox.c.id)).where(outbox.c.state == PostState.WAITING).group_by(outbox.c.jid)
    return sa.select(outbox).where(outbox.c.id.in_(oldest))


def _posts(connection: sa.Connection, query: sa.Select[Any]) -> list[Post]:
    return [Post(**row) for row in connection.execute(query).mappings()]


def _change(connection: sa.Connection, number: int, values: dict[str, Any]) -> None:
    connection.execute(sa.update(outbox).where(outbox.c.id == number).values(values))
