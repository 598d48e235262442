"""Records that come in from another host and go out to one: whole portions, each in one transaction.

What has a known name is there already and stays, so a portion that is sent twice changes nothing.
What is planned from them is `domain.migration`; the files are `ipc.archive`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final, TypeVar

import sqlalchemy as sa

from nanoclaw_runtime.domain.errors import GroupBusy, TransferRefused
from nanoclaw_runtime.domain.transfer import (
    PastAnswer,
    PastChat,
    PastMessage,
    PastRun,
    PastTask,
    Portion,
    StoredMessage,
    Taken,
    TaskBundle,
)
from nanoclaw_runtime.domain.v1_records import number_of
from nanoclaw_runtime.store import intake
from nanoclaw_runtime.store.database import Database
from nanoclaw_runtime.store.intake import NAMED_AT_ONCE
from nanoclaw_runtime.store.records import OPEN_STATES, EventType, MessageState
from nanoclaw_runtime.store.schema import chats, events, groups_state, messages, sessions, task_runs, tasks

_UNSEEN: Final = (MessageState.WAITING, MessageState.GIVEN)
_SAID: Final = (EventType.ANSWER, EventType.TELL)

_Value = TypeVar("_Value")


class TransferBook:
    """The store as an import and an export use it. Everything raises StoreFailed."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def take_in(self, portion: Portion, folder: str, *, at: datetime) -> Taken:
        """Keep what is new of a group's records; one event tells of an import that brought something.

        Raises GroupBusy while a session of the group is recorded as open, and TransferRefused
        for a task that belongs to another group; nothing was kept then.
        """
        return await self._database.publish(lambda connection: _take_in(connection, portion, folder, at))

    async def take_chats(self, found: Sequence[PastChat]) -> int:
        """Keep chats that are new or were active later than we know; how many."""
        return await self._database.transaction(lambda connection: sum(_take_chat(connection, one) for one in found))

    async def conversations(self) -> dict[str, str]:
        """The agent's conversation of every group that has one."""
        query = sa.select(groups_state.c.folder, groups_state.c.agent_session)
        query = query.where(groups_state.c.agent_session.is_not(None))
        rows = await self._database.transaction(lambda connection: connection.execute(query).all())
        return {folder: conversation for folder, conversation in rows}  # noqa: C416

    async def messages(self, folder: str, *, after: int, limit: int) -> list[StoredMessage]:
        """With a number above `after`, in the order they were accepted."""
        query = sa.select(messages).where(messages.c.folder == folder, messages.c.id > after)
        rows = await self._database.transaction(
            lambda connection: connection.execute(query.order_by(messages.c.id).limit(limit)).all()
        )
        return [
            StoredMessage(
                number=row.id,
                key=row.client_id,
                sender=row.sender,
                sender_name=row.sender_name,
                text=row.content,
                created=row.created,
                waiting=row.state in _UNSEEN,
            )
            for row in rows
        ]

    async def answers(self, folder: str, *, after: int, limit: int) -> list[PastAnswer]:
        """What the group's agent said, behind the event `after`."""
        query = sa.select(events).where(events.c.folder == folder, events.c.type.in_(_SAID), events.c.id > after)
        rows = await self._database.transaction(
            lambda connection: connection.execute(query.order_by(events.c.id).limit(limit)).all()
        )
        return [PastAnswer(number=row.id, text=row.payload["text"], created=row.created) for row in rows]

    async def tasks(self) -> TaskBundle:
        """Every task, and its log in the order it was written."""
        return await self._database.transaction(_task_bundle)

    async def chats(self) -> list[PastChat]:
        query = sa.select(chats).order_by(chats.c.jid)
        rows = await self._database.transaction(lambda connection: connection.execute(query).all())
        return [PastChat(**row._mapping) for row in rows]  # noqa: SLF001


def _take_in(connection: sa.Connection, portion: Portion, folder: str, at: datetime) -> Taken:
    _refuse_while_busy(connection, folder)
    here = _numbers(connection, folder, portion.messages)
    news = list({message.key: message for message in portion.messages if message.key not in here}.values())
    had = [here[one.key] for one in portion.messages if one.key in here and not one.waiting]
    settled = _settle(connection, folder, had, at)
    conversation = _wanted_conversation(connection, folder, portion)
    coming = [task for task in portion.tasks if _is_news(connection, folder, task, replace=portion.replace)]
    if news or coming or conversation:
        event = _event(connection, folder, portion.import_id, at)
        _keep_messages(connection, folder, news, event)
    for task in coming:
        _keep_task(connection, task)
    if conversation:
        _keep_conversation(connection, folder, conversation)
    runs = sum(_keep_run(connection, folder, run) for run in portion.runs)
    return Taken(
        messages=len(news), settled=settled, tasks=len(coming), runs=runs, conversation=conversation is not None
    )


def _refuse_while_busy(connection: sa.Connection, folder: str) -> None:
    open_one = sa.select(sessions.c.id).where(sessions.c.folder == folder, sessions.c.state.in_(OPEN_STATES))
    if (session := connection.scalar(open_one)) is not None:
        raise GroupBusy(folder, session)


def _event(connection: sa.Connection, folder: str, import_id: str, at: datetime) -> int:
    """The event of this import; its first portion makes it."""
    query = sa.select(events.c.id, events.c.payload).where(
        events.c.folder == folder, events.c.type == EventType.IMPORTED
    )
    last = connection.execute(query.order_by(events.c.id.desc()).limit(1)).first()
    if last is not None and last.payload["import"] == import_id:
        return int(last.id)
    return intake.add_event(connection, folder, EventType.IMPORTED, {"import": import_id}, at=at).id


# Messages


def _numbers(connection: sa.Connection, folder: str, found: Sequence[PastMessage]) -> dict[str, int]:
    """The numbers of those messages that are here, by their keys."""
    query = sa.select(messages.c.client_id, messages.c.id).where(messages.c.folder == folder)
    named = {
        key: number
        for some in _portions([message.key for message in found])
        for key, number in connection.execute(query.where(messages.c.client_id.in_(some)))
    }
    rest = [message for message in found if message.key not in named]
    unnamed = {message.key: _unnamed(connection, folder, message) for message in rest}
    return named | {key: number for key, number in unnamed.items() if number is not None}


def _unnamed(connection: sa.Connection, folder: str, message: PastMessage) -> int | None:
    """The number of a message of ours that never had a name but that."""
    if (number := number_of(message.key)) is None:
        return None
    query = sa.select(messages.c.content).where(
        messages.c.id == number, messages.c.folder == folder, messages.c.client_id.is_(None)
    )
    return number if connection.scalar(query) == message.text else None


def _settle(connection: sa.Connection, folder: str, numbers: list[int], at: datetime) -> int:
    """What the agent there has had waits no longer; how many did. Whoever waits for an answer is told."""
    settled = [number for some in _portions(numbers) for number in intake.settle(connection, some)]
    if settled:
        payload = {"session": None, "messages": settled}
        intake.add_event(connection, folder, EventType.DONE, payload, at=at)
    return len(settled)


def _keep_messages(connection: sa.Connection, folder: str, found: Sequence[PastMessage], event: int) -> None:
    rows = [
        {
            "folder": folder,
            "client_id": message.key,
            "sender": message.sender,
            "sender_name": message.sender_name,
            "content": message.text,
            "created": message.created,
            "state": MessageState.WAITING if message.waiting else MessageState.DONE,
            "event": event,
        }
        for message in found
    ]
    if rows:
        connection.execute(sa.insert(messages), rows)


# Tasks


def _is_news(connection: sa.Connection, folder: str, task: PastTask, *, replace: bool) -> bool:
    if task.folder != folder:
        raise TransferRefused(f"task {task.id!r} says it is of group {task.folder!r}, not of {folder!r}; send it there")
    owner = connection.scalar(sa.select(tasks.c.folder).where(tasks.c.id == task.id))
    if owner not in {None, folder}:
        raise TransferRefused(f"there is a task {task.id!r} of group {owner!r} already; cancel that one first")
    return owner is None or replace


def _keep_task(connection: sa.Connection, task: PastTask) -> None:
    values = task.model_dump()
    changed = connection.execute(sa.update(tasks).where(tasks.c.id == task.id).values(values))
    if not changed.rowcount:
        connection.execute(sa.insert(tasks).values(values))


def _keep_run(connection: sa.Connection, folder: str, run: PastRun) -> bool:
    """False for one that is known, or whose task is not of the group or was cancelled."""
    theirs = sa.select(tasks.c.id).where(tasks.c.id == run.task, tasks.c.folder == folder)
    known = sa.select(task_runs.c.id).where(task_runs.c.task == run.task, task_runs.c.started == run.started)
    if connection.scalar(theirs) is None or connection.scalar(known) is not None:
        return False
    connection.execute(sa.insert(task_runs).values(run.model_dump()))
    return True


def _task_bundle(connection: sa.Connection) -> TaskBundle:
    runs = connection.execute(sa.select(task_runs).order_by(task_runs.c.id))
    return TaskBundle(
        tasks=tuple(
            PastTask(**row._mapping)  # noqa: SLF001
            for row in connection.execute(sa.select(tasks).order_by(tasks.c.created, tasks.c.id))
        ),
        runs=tuple(PastRun(**{name: getattr(row, name) for name in PastRun.model_fields}) for row in runs),
    )


# What else is kept


def _wanted_conversation(connection: sa.Connection, folder: str, portion: Portion) -> str | None:
    if portion.conversation is None:
        return None
    query = sa.select(groups_state.c.agent_session).where(groups_state.c.folder == folder)
    ours = connection.scalar(query)
    return portion.conversation if ours is None or (portion.replace and ours != portion.conversation) else None


def _keep_conversation(connection: sa.Connection, folder: str, conversation: str) -> None:
    where = groups_state.c.folder == folder
    changed = connection.execute(sa.update(groups_state).where(where).values(agent_session=conversation))
    if not changed.rowcount:
        connection.execute(sa.insert(groups_state).values(folder=folder, agent_session=conversation))


def _take_chat(connection: sa.Connection, chat: PastChat) -> bool:
    known = connection.scalar(sa.select(chats.c.last_activity).where(chats.c.jid == chat.jid))
    if known is not None and known >= chat.last_activity:
        return False
    values: dict[str, Any] = chat.model_dump()
    statement = sa.insert(chats) if known is None else sa.update(chats).where(chats.c.jid == chat.jid)
    connection.execute(statement.values(values))
    return True


def _portions(values: list[_Value]) -> Iterable[list[_Value]]:
    return (values[start : start + NAMED_AT_ONCE] for start in range(0, len(values), NAMED_AT_ONCE))
