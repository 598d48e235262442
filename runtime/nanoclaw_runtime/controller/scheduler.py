"""Looks for tasks whose time has come and hands them to the queue; what the API may do with tasks.

A task stays due until its run has ended, so nothing is lost when the controller is away: what
became overdue meanwhile runs once, and what was handed over and not run is handed over again.
Not here: who runs when (`domain.schedule`), the run itself, and what agents may ask for.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import string
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from nanoclaw_runtime.contract import names
from nanoclaw_runtime.contract.config import GroupSpec
from nanoclaw_runtime.domain import recurrence
from nanoclaw_runtime.domain.errors import GroupUnknown, StoreFailed
from nanoclaw_runtime.domain.tasks import RunOutcome, TaskContext, TaskKind, TaskState
from nanoclaw_runtime.store.records import Task, TaskRun
from nanoclaw_runtime.store.tasks import Run, TaskBook

_log = structlog.get_logger(__name__)

LONGEST_PAUSE: Final = timedelta(minutes=1)
"""Between two looks: the clock may be set, and a handed over task may be lost."""

_BASE36: Final = string.digits + string.ascii_lowercase


def new_task_id(now: datetime) -> str:
    """`task-<milliseconds>-<6 characters>`, as NanoClaw names them."""
    return f"task-{int(now.timestamp() * 1000)}-{''.join(secrets.choice(_BASE36) for _ in range(6))}"


async def _nobody(_folder: str) -> None: ...


class Scheduler:
    """The tasks of an installation. `run` is its life.

    `group` gives a group or raises GroupUnknown. `enqueue` is told folder and id of a task that is
    due, again and again until `finished` is told of it. `on_change` is called with the group's
    folder after its tasks changed, and raises nothing. `zone` is the installation's IANA time zone.
    """

    def __init__(
        self,
        book: TaskBook,
        *,
        zone: str,
        group: Callable[[str], GroupSpec],
        enqueue: Callable[[str, str], None],
        on_change: Callable[[str], Awaitable[None]] = _nobody,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._book = book
        self._zone = zone
        self._group = group
        self._enqueue = enqueue
        self._on_change = on_change
        self._now = now
        self._changes = asyncio.Event()
        self._missed: dict[str, datetime] = {}

    async def run(self) -> None:
        """Look, and look again when the next task is due or something changed, until cancelled."""
        while True:
            self._changes.clear()
            pause = LONGEST_PAUSE
            try:
                pause = await self.look()
            except StoreFailed as failure:
                _log.error("tasks not looked at", reason=str(failure))
            except Exception:  # noqa: BLE001 - one broken task must not end the others
                _log.exception("tasks not looked at")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause.total_seconds()):
                    await self._changes.wait()

    async def look(self) -> timedelta:
        """Hand over what is due; how long nothing else will be."""
        now = self._now()
        due = await self._book.due(now)
        stuck = [(task, problem) for task in due if (problem := self._hand_over(task))]
        for task, problem in stuck:
            await self._miss(task, problem, now)
        upcoming = await self._book.next_due(after=now)
        return LONGEST_PAUSE if upcoming is None else min(LONGEST_PAUSE, upcoming - now)

    def changed(self) -> None:
        """Tasks were changed by somebody else: look at once."""
        self._changes.set()

    async def finished(
        self,
        task_id: str,
        *,
        started: datetime,
        seconds: float,
        outcome: RunOutcome,
        result: str | None = None,
        error: str | None = None,
        session: str | None = None,
    ) -> None:
        """A run of the task is over, well or not: log it and set the next. Nothing for a task that is gone."""
        run, at = Run(started, seconds, outcome, result, error, session), self._now()
        task = await self._book.finish_run(task_id, run, lambda task: self._following_run(task, at))
        if task is None:
            _log.info("task was cancelled while it ran", task=task_id, session=session)
            return
        _log.info(
            "task has run", task=task_id, group=task.folder, outcome=outcome, state=task.state, next_run=task.next_run
        )
        await self._tell(task)

    # What the API may ask

    async def create(
        self, folder: str, *, prompt: str, kind: TaskKind, value: str, context: TaskContext = TaskContext.GROUP
    ) -> Task:
        """Raises GroupUnknown, and TaskInvalid for a schedule that nobody can follow."""
        group, now = self._group(folder), self._now()
        task = Task(
            id=new_task_id(now),
            folder=folder,
            jid=group.jid,
            prompt=prompt,
            kind=kind,
            value=value,
            context=context,
            state=TaskState.ACTIVE,
            next_run=self._first_run(kind, value),
            last_run=None,
            last_result=None,
            created=now,
        )
        await self._book.add(task)
        return await self._tell(task)

    async def list(self, folder: str | None = None) -> Sequence[Task]:
        """Of one group, declared or not, or of all; oldest first."""
        return await self._book.list(folder)

    async def get(self, task_id: str) -> Task:
        """Raises TaskUnknown, like all that name a task."""
        return await self._book.get(task_id)

    async def runs(self, task_id: str, limit: int) -> Sequence[TaskRun]:
        """The newest first."""
        return await self._book.runs(task_id, limit)

    async def update(
        self,
        task_id: str,
        *,
        prompt: str | None = None,
        kind: TaskKind | None = None,
        value: str | None = None,
        state: TaskState | None = None,
    ) -> Task:
        """Raises TaskInvalid, and changes nothing, for a schedule that nobody can follow or a state that cannot be."""
        task = await self._book.update(
            task_id, prompt=prompt, kind=kind, value=value, state=state, first_run=self._first_run
        )
        return await self._tell(task)

    async def cancel(self, task_id: str) -> None:
        """The task and its log are gone; a run under way goes on."""
        await self._tell(await self._book.cancel(task_id))

    async def run_now(self, task_id: str) -> Task:
        """Make an active task due; one that runs already is not run again. Raises TaskInvalid for others."""
        return await self._tell(await self._book.run_now(task_id, self._now()))

    def _hand_over(self, task: Task) -> str | None:
        """Why it cannot be."""
        try:
            self._group(task.folder)
        except GroupUnknown as unknown:
            return str(unknown)
        self._enqueue(task.folder, task.id)
        return None

    async def _miss(self, task: Task, error: str, now: datetime) -> None:
        """Log a run that could not begin, once a while. The task stays due, or is paused when it can never run."""
        if task.id in self._missed and now - self._missed[task.id] < LONGEST_PAUSE:
            return
        self._missed[task.id] = now
        if invalid := names.folder_problem(task.folder):
            error = f"the folder {task.folder!r} cannot be a group's: {invalid}"
            await self._book.pause(task.id)
        _log.warning("task cannot run", task=task.id, group=task.folder, reason=error)
        await self._book.log_run(task.id, Run(now, 0, RunOutcome.ERROR, error=error))
        await self._on_change(task.folder)

    async def _tell(self, task: Task) -> Task:
        self._changes.set()
        await self._on_change(task.folder)
        return task

    def _first_run(self, kind: TaskKind, value: str) -> datetime:
        return recurrence.first_run(kind, value, now=self._now(), zone=self._zone)

    def _following_run(self, task: Task, at: datetime) -> datetime | None:
        return recurrence.following_run(task.kind, task.value, now=at, zone=self._zone)
