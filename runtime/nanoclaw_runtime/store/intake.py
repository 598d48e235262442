"""Messages coming in, being handed to sessions, and coming back: the statements, within a transaction of the caller."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from nanoclaw_runtime.domain.errors import StoreFailed
from nanoclaw_runtime.store import outbox
from nanoclaw_runtime.store.records import Event, EventType, Message, MessageState
from nanoclaw_runtime.store.rows import read_messages
from nanoclaw_runtime.store.schema import events, messages

NAMED_AT_ONCE: Final = 500
# Messages one statement names; databases limit its parameters, and a group may collect for months.


def add_event(
    connection: sa.Connection, folder: str, kind: EventType, payload: dict[str, Any], *, at: datetime
) -> Event:
    values = {"folder": folder, "type": kind, "payload": payload, "created": at}
    added = connection.execute(sa.insert(events).values(values))
    return Event(id=_new_id(added), **values)  # type: ignore[arg-type]


def add_message(
    connection: sa.Connection,
    folder: str,
    text: str,
    *,
    sender: str,
    sender_name: str,
    client_id: str | None,
    at: datetime,
) -> tuple[Message, bool]:
    if client_id is not None:
        known = read_messages(connection, messages.c.folder == folder, messages.c.client_id == client_id)
        if known:
            return known[0], False
    event = add_event(connection, folder, EventType.MESSAGE, {}, at=at)
    values = {
        "folder": folder,
        "client_id": client_id,
        "sender": sender,
        "sender_name": sender_name,
        "content": text,
        "created": at,
        "state": MessageState.WAITING,
        "event": event.id,
    }
    number = _new_id(connection.execute(sa.insert(messages).values(values)))
    payload = {"message": number, "sender": sender, "senderName": sender_name, "text": text}
    connection.execute(sa.update(events).where(events.c.id == event.id).values(payload=payload))
    return Message(id=number, session=None, turn=None, **values), True  # type: ignore[arg-type]


def handed_over(connection: sa.Connection, message: int) -> None:
    waits = (messages.c.id == message, messages.c.state == MessageState.WAITING)
    # Its id goes with it: it may come back, with its group.
    connection.execute(sa.update(messages).where(*waits).values(state=MessageState.DONE, client_id=None))


def folders_waiting(connection: sa.Connection) -> dict[str, int]:
    query = (
        sa.select(messages.c.folder, sa.func.count())
        .where(messages.c.state == MessageState.WAITING)
        .group_by(messages.c.folder)
        .order_by(sa.func.min(messages.c.id))
    )
    return {folder: count for folder, count in connection.execute(query)}  # noqa: C416


def last_activity(connection: sa.Connection) -> dict[str, datetime]:
    newest = sa.select(sa.func.max(events.c.id)).group_by(events.c.folder)
    query = sa.select(events.c.folder, events.c.created).where(events.c.id.in_(newest))
    return {folder: created for folder, created in connection.execute(query)}  # noqa: C416


def newest(connection: sa.Connection, after: int) -> dict[str, tuple[int, datetime]]:
    later = sa.select(messages.c.folder, sa.func.max(messages.c.id), sa.func.max(messages.c.created))
    query = later.where(messages.c.id > after).group_by(messages.c.folder)
    return {folder: (number, created) for folder, number, created in connection.execute(query)}


def hand_over(connection: sa.Connection, numbers: Sequence[int], folder: str, session: str, turn: int) -> None:
    """Waiting messages of the folder become a turn of the session; refuses the whole if one is not waiting."""
    _change(
        connection,
        numbers,
        (messages.c.state == MessageState.WAITING, messages.c.folder == folder),
        {"state": MessageState.GIVEN, "session": session, "turn": turn},
        f"do not all wait in group {folder!r}, so session {session} cannot have them",
    )


def next_turn(connection: sa.Connection, session: str) -> int:
    last = connection.scalar(sa.select(sa.func.max(messages.c.turn)).where(messages.c.session == session))
    return (last or 0) + 1


def take_back(connection: sa.Connection, numbers: Sequence[int], session: str) -> None:
    _change(
        connection,
        numbers,
        (messages.c.state == MessageState.GIVEN, messages.c.session == session),
        {"state": MessageState.WAITING, "session": None, "turn": None},
        f"are not all given to session {session}, so they cannot be taken back from it",
    )


def finish_oldest_turn(connection: sa.Connection, session: str) -> list[int]:
    """The ids of the messages that are done now; none when every turn was finished before."""
    unfinished = (messages.c.session == session) & (messages.c.state == MessageState.GIVEN)
    turn = connection.scalar(sa.select(sa.func.min(messages.c.turn)).where(unfinished))
    if turn is None:
        return []
    return _move(connection, unfinished & (messages.c.turn == turn), {"state": MessageState.DONE})


def reclaim(connection: sa.Connection, session: str) -> list[int]:
    """Whatever the session has not finished waits again."""
    unfinished = (messages.c.session == session) & (messages.c.state == MessageState.GIVEN)
    return _move(connection, unfinished, {"state": MessageState.WAITING, "session": None, "turn": None})


def settle(connection: sa.Connection, numbers: Sequence[int]) -> list[int]:
    """Those of the messages that wait are done without a session; which they were."""
    waiting = messages.c.id.in_(numbers) & (messages.c.state == MessageState.WAITING)
    return _move(connection, waiting, {"state": MessageState.DONE})


def fail(
    connection: sa.Connection, folder: str, numbers: Sequence[int], chat: str, jid: str | None, *, at: datetime
) -> Event:
    _change(
        connection,
        numbers,
        (messages.c.state == MessageState.WAITING, messages.c.folder == folder),
        {"state": MessageState.FAILED},
        f"do not all wait in group {folder!r}, so they cannot be given up",
    )
    event = add_event(connection, folder, EventType.FAILURE, {"messages": list(numbers), "text": chat}, at=at)
    if jid is not None:
        outbox.post(connection, jid, folder, chat, origin=f"event:{event.id}", at=at)
    return event


def _move(connection: sa.Connection, where: sa.ColumnElement[bool], values: dict[str, Any]) -> list[int]:
    numbers = list(connection.scalars(sa.select(messages.c.id).where(where).order_by(messages.c.id)))
    connection.execute(sa.update(messages).where(where).values(values))
    return numbers


def _change(
    connection: sa.Connection,
    numbers: Sequence[int],
    where: tuple[sa.ColumnElement[bool], ...],
    values: dict[str, Any],
    contradiction: str,
) -> None:
    wanted, changed = sorted(set(numbers)), 0
    for start in range(0, len(wanted), NAMED_AT_ONCE):
        some = messages.c.id.in_(wanted[start : start + NAMED_AT_ONCE])
        changed += connection.execute(sa.update(messages).where(some, *where).values(values)).rowcount
    if changed != len(wanted):
        raise StoreFailed(f"the messages {list(numbers)} {contradiction}; nothing was changed")


def _new_id(result: sa.CursorResult[Any]) -> int:
    key = result.inserted_primary_key
    assert key is not None  # both tables number their rows
    return int(key[0])
