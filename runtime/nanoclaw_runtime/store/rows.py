"""From database rows to records."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from nanoclaw_runtime.store.records import Event, Message, SessionRecord
from nanoclaw_runtime.store.schema import events, messages, sessions


def read_messages(connection: sa.Connection, *where: sa.ColumnElement[bool], limit: int | None = None) -> list[Message]:
    """Oldest first."""
    query = sa.select(messages).where(*where).order_by(messages.c.id).limit(limit)
    return [Message(**_fields(row)) for row in connection.execute(query)]


def read_sessions(connection: sa.Connection, query: sa.Select[Any]) -> list[SessionRecord]:
    return [SessionRecord(**_fields(row)) for row in connection.execute(query)]


def read_session(connection: sa.Connection, session: str) -> SessionRecord | None:
    found = read_sessions(connection, sa.select(sessions).where(sessions.c.id == session))
    return found[0] if found else None


def read_events(connection: sa.Connection, *where: sa.ColumnElement[bool], limit: int) -> list[Event]:
    """Oldest first."""
    query = sa.select(events).where(*where).order_by(events.c.id).limit(limit)
    return [Event(**_fields(row)) for row in connection.execute(query)]


def _fields(row: sa.Row[Any]) -> dict[str, Any]:
    return dict(row._mapping)  # noqa: SLF001
