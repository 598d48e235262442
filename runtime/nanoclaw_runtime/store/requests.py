"""Requests of agents, carried out once: what they bring about and that it was done are one transaction.

A file is removed only behind the commit. Whoever finds it again after a crash finds its key here,
too. The functions are statements within that transaction. Not here: who may ask for what.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa

from nanoclaw_runtime.domain.errors import TaskInvalid, TaskUnknown
from nanoclaw_runtime.domain.requests import Change, ChangeTask, SendMessage, UpdateTask
from nanoclaw_runtime.store import intake, outbox, tasks
from nanoclaw_runtime.store.database import Database, Work
from nanoclaw_runtime.store.records import EventType, Task
from nanoclaw_runtime.store.schema import requests

REMEMBERED: Final = timedelta(days=7)
"""How long a key is kept; a file is removed a moment after it was carried out."""

MOST_TASKS: Final = 500
"""Of a group, that have not run their last; an agent could leave a hundred a second."""

_CHANGES: Final = {Change.PAUSE: tasks.pause, Change.RESUME: tasks.resume, Change.CANCEL: tasks.cancel}


class RequestBook:
    """Which requests were carried out. Every method raises StoreFailed."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def carry_out(self, key: str, work: Work[None], *, at: datetime) -> bool:
        """Do `work` and remember it under `key`; False, and nothing is done, when it was done before.

        What `work` raises leaves nothing behind.
        """

        def once(connection: sa.Connection) -> bool:
            if connection.scalar(sa.select(requests.c.key).where(requests.c.key == key)) is not None:
                return False
            work(connection)
            connection.execute(sa.insert(requests).values(key=key, done=at))
            return True

        return await self._database.publish(once)

    async def task_folder(self, task: str) -> str | None:
        """The group a task belongs to; None when there is no such task."""
        found = await self._database.transaction(lambda connection: tasks.read_task(connection, task))
        return found.folder if found else None

    async def forget(self, now: datetime) -> None:
        """Drop keys that nobody will ask for any more."""
        old = sa.delete(requests).where(requests.c.done < now - REMEMBERED)
        await self._database.transaction(lambda connection: connection.execute(old))


def send(
    connection: sa.Connection, source: str, message: SendMessage, *, key: str, network: bool, at: datetime
) -> None:
    """Show the text in the stream of its group, if it has one, and post it where a network has the chat."""
    if message.folder is not None:
        payload = {"from": source, "sender": message.sender, "text": message.text}
        intake.add_event(connection, message.folder, EventType.TELL, payload, at=at)
    if network:
        origin = f"request:{key}"
        outbox.post(connection, message.jid, source, message.text, origin=origin, at=at, sender=message.sender)


def schedule(connection: sa.Connection, task: Task) -> None:
    """Raises TaskInvalid when the group has as many as agents may leave."""
    if tasks.unfinished(connection, task.folder) >= MOST_TASKS:
        raise TaskInvalid(f"folder: group {task.folder!r} has {MOST_TASKS} tasks already; cancel some first")
    tasks.add_task(connection, task)


def change(connection: sa.Connection, request: ChangeTask) -> None:
    """Raises TaskUnknown when somebody was faster."""
    if not _CHANGES[request.change](connection, request.task):
        raise TaskUnknown(request.task)


def update(connection: sa.Connection, request: UpdateTask, first_run: tasks.FirstRun) -> None:
    """Raises TaskUnknown when somebody was faster, TaskInvalid for a schedule that nobody can follow."""
    known = tasks.update(
        connection, request.task, prompt=request.prompt, kind=request.kind, value=request.value, first_run=first_run
    )
    if not known:
        raise TaskUnknown(request.task)
