"""Scheduled tasks and the log of their runs.

The functions are statements within a transaction of the caller; `TaskBook` has one transaction a
method. When a task runs next is decided by whoever calls (`domain.recurrence`), within the same
transaction where it depends on the task. The log keeps the newest `KEPT` runs of a task.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from nanoclaw_runtime.domain.errors import TaskInvalid, TaskUnknown
from nanoclaw_runtime.domain.tasks import RunOutcome, TaskKind, TaskState
from nanoclaw_runtime.store.database import Database
from nanoclaw_runtime.store.records import Task, TaskRun
from nanoclaw_runtime.store.schema import task_runs, tasks

KEPT: Final = 100
"""Runs of a task in its log; one that runs every minute would fill the disk otherwise."""
SUMMARY: Final = 200
"""Characters of a result that stay with the task itself, as NanoClaw has it."""

FirstRun = Callable[[TaskKind, str], datetime]
"""When a task of this kind and value runs first. Raises TaskInvalid."""
FollowingRun = Callable[[Task], datetime | None]
"""When a task that has just run runs again; None when never."""


@dataclass(frozen=True)
class Run:
    """What a run came to, to be logged."""

    started: datetime
    seconds: float
    outcome: RunOutcome
    result: str | None = None
    """What the agent said last, as the chat got it."""
    error: str | None = None
    session: str | None = None

    @property
    def summary(self) -> str:
        if self.outcome is RunOutcome.ERROR:
            return f"Error: {self.error}"
        return self.result[:SUMMARY] if self.result else "Completed"


def add_task(connection: sa.Connection, task: Task) -> None:
    connection.execute(sa.insert(tasks).values(asdict(task)))


def read_task(connection: sa.Connection, task_id: str) -> Task | None:
    found = _read(connection, tasks.c.id == task_id)
    return found[0] if found else None


def unfinished(connection: sa.Connection, folder: str) -> int:
    """How many tasks of the group may still run."""
    mine = (tasks.c.folder == folder, tasks.c.state != TaskState.COMPLETED)
    return connection.scalar(sa.select(sa.func.count()).select_from(tasks).where(*mine)) or 0


def pause(connection: sa.Connection, task_id: str) -> bool:
    """An active task runs no more until it is resumed; False when there is no such task."""
    return _move(connection, task_id, TaskState.ACTIVE, TaskState.PAUSED)


def resume(connection: sa.Connection, task_id: str) -> bool:
    """A paused task is active again, and runs at once when it is overdue; False when there is no such task."""
    return _move(connection, task_id, TaskState.PAUSED, TaskState.ACTIVE)


def cancel(connection: sa.Connection, task_id: str) -> bool:
    """The task and its log are gone; False when they were before."""
    connection.execute(sa.delete(task_runs).where(task_runs.c.task == task_id))
    return connection.execute(sa.delete(tasks).where(tasks.c.id == task_id)).rowcount > 0


def update(
    connection: sa.Connection,
    task_id: str,
    *,
    prompt: str | None = None,
    kind: TaskKind | None = None,
    value: str | None = None,
    first_run: FirstRun,
) -> bool:
    """Change what is given; a new schedule begins now, also for a task that was over. False without such a task."""
    task = read_task(connection, task_id)
    if task is None:
        return False
    changes: dict[str, Any] = {} if prompt is None else {"prompt": prompt}
    if kind is not None or value is not None:
        kind, value = kind or task.kind, task.value if value is None else value
        changes |= {"kind": kind, "value": value, "next_run": first_run(kind, value)}
        if task.state is TaskState.COMPLETED:
            changes["state"] = TaskState.ACTIVE
    if changes:
        _change(connection, task_id, changes)
    return True


def log_run(connection: sa.Connection, task_id: str, run: Run) -> bool:
    """Add a run to the log and tell of it in the task; when it runs next stays. False without such a task."""
    if read_task(connection, task_id) is None:
        return False
    connection.execute(sa.insert(task_runs).values(task=task_id, **asdict(run)))
    of_task = task_runs.c.task == task_id
    newest = sa.select(task_runs.c.id).where(of_task).order_by(task_runs.c.id.desc()).limit(KEPT)
    connection.execute(sa.delete(task_runs).where(of_task, task_runs.c.id.not_in(newest)))
    _change(connection, task_id, {"last_run": run.started, "last_result": run.summary})
    return True


def finish_run(connection: sa.Connection, task_id: str, run: Run, following: FollowingRun) -> Task | None:
    """Log the run and set when the task runs next; the task as it is now, None when it was cancelled meanwhile.

    A task that got a new schedule during the run keeps it. One that nobody can follow any more is paused.
    The run of a session is logged once.
    """
    if run.session is not None and _logged(connection, task_id, run.session):
        return read_task(connection, task_id)
    if not log_run(connection, task_id, run):
        return None
    task = _known(connection, task_id)
    if task.next_run is None or task.next_run <= run.started:
        _change(connection, task_id, _after_run(task, following))
    return read_task(connection, task_id)


class TaskBook:
    """The tasks of a database. Methods that name a task raise TaskUnknown, all of them StoreFailed."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, task: Task) -> None:
        await self._database.transaction(lambda connection: add_task(connection, task))

    async def get(self, task_id: str) -> Task:
        return await self._database.transaction(lambda connection: _known(connection, task_id))

    async def list(self, folder: str | None = None) -> Sequence[Task]:
        """Of one group or of all, oldest first."""
        where = [] if folder is None else [tasks.c.folder == folder]
        return await self._database.transaction(lambda connection: _read(connection, *where))

    async def due(self, now: datetime) -> Sequence[Task]:
        """Active tasks whose time has come, the one that waits longest first."""
        where = (tasks.c.state == TaskState.ACTIVE, tasks.c.next_run <= now)
        return await self._database.transaction(lambda connection: _read(connection, *where, order=tasks.c.next_run))

    async def next_due(self, after: datetime) -> datetime | None:
        """When the next active task is due that is not due yet."""
        query = sa.select(sa.func.min(tasks.c.next_run)).where(
            tasks.c.state == TaskState.ACTIVE, tasks.c.next_run > after
        )
        return await self._database.transaction(lambda connection: connection.scalar(query))

    async def due_in_groups(self, before: datetime) -> dict[str, datetime]:
        """When the next active task of each group is or was due that has one before this moment."""
        query = (
            sa.select(tasks.c.folder, sa.func.min(tasks.c.next_run))
            .where(tasks.c.state == TaskState.ACTIVE, tasks.c.next_run <= before)
            .group_by(tasks.c.folder)
        )

        def work(connection: sa.Connection) -> dict[str, datetime]:
            return {folder: due for folder, due in connection.execute(query)}  # noqa: C416

        return await self._database.transaction(work)

    async def pause(self, task_id: str) -> Task:
        """Raises TaskInvalid for a task that is over."""
        return await self._changed(task_id, lambda connection: _set_state(connection, task_id, TaskState.PAUSED))

    async def resume(self, task_id: str) -> Task:
        """Raises TaskInvalid for a task that is over."""
        return await self._changed(task_id, lambda connection: _set_state(connection, task_id, TaskState.ACTIVE))

    async def run_now(self, task_id: str, now: datetime) -> Task:
        """The task is due at once, unless it is or runs already. Raises TaskInvalid when it is not active."""

        def work(connection: sa.Connection) -> None:
            task = _known(connection, task_id)
            if task.state is not TaskState.ACTIVE:
                told = f"state: task {task_id} is {task.state}; only an active task can be run, resume it first"
                raise TaskInvalid(told)
            if task.next_run is None or task.next_run > now:
                _change(connection, task_id, {"next_run": now})

        return await self._changed(task_id, work)

    async def update(
        self,
        task_id: str,
        *,
        prompt: str | None = None,
        kind: TaskKind | None = None,
        value: str | None = None,
        state: TaskState | None = None,
        first_run: FirstRun,
    ) -> Task:
        """Raises TaskInvalid, and changes nothing, for a schedule that nobody can follow or a state that cannot be."""

        def work(connection: sa.Connection) -> None:
            update(connection, task_id, prompt=prompt, kind=kind, value=value, first_run=first_run)
            if state is not None:
                _set_state(connection, task_id, state)

        return await self._changed(task_id, work)

    async def cancel(self, task_id: str) -> Task:
        """The task as it was."""

        def work(connection: sa.Connection) -> Task:
            task = _known(connection, task_id)
            cancel(connection, task_id)
            return task

        return await self._database.transaction(work)

    async def log_run(self, task_id: str, run: Run) -> bool:
        return await self._database.transaction(lambda connection: log_run(connection, task_id, run))

    async def finish_run(self, task_id: str, run: Run, following: FollowingRun) -> Task | None:
        return await self._database.transaction(lambda connection: finish_run(connection, task_id, run, following))

    async def runs(self, task_id: str, limit: int = KEPT) -> Sequence[TaskRun]:
        """The newest first."""
        query = sa.select(task_runs).where(task_runs.c.task == task_id).order_by(task_runs.c.id.desc()).limit(limit)

        def work(connection: sa.Connection) -> Sequence[TaskRun]:
            _known(connection, task_id)
            return [TaskRun(**row) for row in connection.execute(query).mappings()]

        return await self._database.transaction(work)

    async def _changed(self, task_id: str, change: Callable[[sa.Connection], None]) -> Task:
        def work(connection: sa.Connection) -> Task:
            change(connection)
            return _known(connection, task_id)

        return await self._database.transaction(work)


def _after_run(task: Task, following: FollowingRun) -> dict[str, Any]:
    try:
        next_run = following(task)
    except TaskInvalid:  # taken over from elsewhere, say; it would run for ever
        return {"state": TaskState.PAUSED}
    if next_run is not None:
        return {"next_run": next_run}
    return {"next_run": None, "state": TaskState.COMPLETED}


def _logged(connection: sa.Connection, task_id: str, session: str) -> bool:
    query = sa.select(task_runs.c.id).where(task_runs.c.task == task_id, task_runs.c.session == session)
    return connection.scalar(query) is not None


def _known(connection: sa.Connection, task_id: str) -> Task:
    task = read_task(connection, task_id)
    if task is None:
        raise TaskUnknown(task_id)
    return task


def _set_state(connection: sa.Connection, task_id: str, state: TaskState) -> None:
    if _known(connection, task_id).state is TaskState.COMPLETED:
        raise TaskInvalid(f"state: task {task_id} has run and is over; give it a new value or add another task")
    _change(connection, task_id, {"state": state})


def _read(
    connection: sa.Connection, *where: sa.ColumnElement[bool], order: sa.ColumnElement[Any] = tasks.c.created
) -> list[Task]:
    query = sa.select(tasks).where(*where).order_by(order, tasks.c.id)
    return [Task(**row) for row in connection.execute(query).mappings()]


def _move(connection: sa.Connection, task_id: str, origin: TaskState, goal: TaskState) -> bool:
    task = read_task(connection, task_id)
    if task is not None and task.state is origin:
        _change(connection, task_id, {"state": goal})
    return task is not None


def _change(connection: sa.Connection, task_id: str, values: dict[str, Any]) -> None:
    connection.execute(sa.update(tasks).where(tasks.c.id == task_id).values(**values))
