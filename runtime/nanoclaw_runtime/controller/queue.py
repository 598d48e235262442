"""Carries out what `domain.schedule` decides: starts sessions, pipes follow-ups, makes room, waits out retries.

All events come in on the event loop's thread and every decision is made at once, so the
schedule needs no lock. Not here: what a session does (`session`), what a message is (`controller`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from datetime import timedelta
from typing import Any, Protocol

import structlog

from nanoclaw_runtime.contract.config import Priority
from nanoclaw_runtime.domain.schedule import (
    Action,
    Close,
    Ending,
    GiveUp,
    Phase,
    Pipe,
    Retry,
    Schedule,
    Start,
    StartTask,
    Wake,
)

_log = structlog.get_logger(__name__)


class Work(Protocol):
    """What the queue has done for it."""

    async def run_session(self, folder: str) -> Ending:
        """Run one session for the group's messages to its end. What it raises ends the controller."""
        ...

    async def run_task(self, folder: str, task: str) -> Ending:
        """Run one session for a task to its end; MORE when messages of the group wait behind it."""
        ...

    async def pipe(self, folder: str) -> bool:
        """Hand waiting messages to the group's live session; False when it takes none."""
        ...

    async def close(self, folder: str) -> None:
        """Ask the group's live session to end."""
        ...

    async def give_up(self, folder: str) -> bool:
        """Tell the chat that its messages are not answered; True when newer ones want to be."""
        ...


def _nobody(_seconds: float) -> None:
    """Nobody has to know."""


class GroupQueue:
    """The schedule with tasks and timers. Lives inside the task group it is given."""

    def __init__(
        self,
        limit: int,
        work: Work,
        tasks: asyncio.TaskGroup,
        *,
        protection: float,
        priority: Callable[[str], Priority],
        waited: Callable[[float], None] = _nobody,
    ) -> None:
        """`waited` is told the seconds a group waited for its place, whenever one gets it."""
        self._schedule = Schedule(limit, protection=protection, priority=priority)
        self._work = work
        self._tasks = tasks
        self._waited = waited

    def message(self, folder: str) -> None:
        """The group has a message that wants an answer."""
        self._carry_out(self._schedule.message(folder, _now()))

    def task(self, folder: str, task: str) -> None:
        """A task of the group is due; telling it again changes nothing."""
        self._carry_out(self._schedule.task(folder, task, _now()))

    def live(self, folder: str) -> None:
        self._carry_out(self._schedule.live(folder))

    def busy(self, folder: str) -> None:
        self._schedule.busy(folder)

    def idle(self, folder: str) -> None:
        self._carry_out(self._schedule.idle(folder, _now()))

    def closing(self, folder: str) -> None:
        self._schedule.closing(folder)

    def adopted(self, folder: str, task: str | None = None) -> None:
        """A session of the group runs already; `ended` has to be told when it is over."""
        self._schedule.adopted(folder, _now(), task=task)

    def ended(self, folder: str, ending: Ending) -> None:
        self._carry_out(self._schedule.ended(folder, ending, _now()))

    def phase(self, folder: str) -> Phase:
        return self._schedule.phase(folder)

    def position(self, folder: str) -> int | None:
        """The group's place among those that wait, from 1."""
        return self._schedule.position(folder)

    def estimated_wait(self, folder: str) -> float | None:
        """Seconds until the group probably gets a place; None when that cannot be told."""
        return self._schedule.estimated_wait(folder, _now())

    @property
    def active(self) -> int:
        return self._schedule.active

    @property
    def waiting(self) -> int:
        return self._schedule.waiting

    @property
    def longest_wait(self) -> float:
        """Seconds for which the group that waits longest has waited; 0 when none waits."""
        return self._schedule.longest_wait(_now())

    def _carry_out(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case Start(folder):
                    self._waited(self._schedule.waited(folder))
                    self._do(self._run(folder), f"session of {folder}")
                case StartTask(folder, task):
                    self._waited(self._schedule.waited(folder))
                    self._do(self._run_task(folder, task), f"task of {folder}")
                case Pipe(folder):
                    self._do(self._pipe(folder), f"follow-up to {folder}")
                case Close(folder):
                    self._do(self._work.close(folder), f"closing of {folder}")
                case Retry(folder, delay):
                    self._do(self._retry(folder, delay), f"retry of {folder}")
                case GiveUp(folder):
                    self._do(self._give_up(folder), f"giving up on {folder}")
                case Wake(at):
                    self._do(self._look(at), "look at idle sessions")

    def _do(self, work: Coroutine[Any, Any, None], name: str) -> None:
        try:
            self._tasks.create_task(work, name=name)
        except RuntimeError:  # the controller broke and ends: whatever still comes in is for the next process
            work.close()

    async def _run(self, folder: str) -> None:
        self.ended(folder, await self._work.run_session(folder))

    async def _run_task(self, folder: str, task: str) -> None:
        self.ended(folder, await self._work.run_task(folder, task))

    async def _pipe(self, folder: str) -> None:
        try:
            taken = await self._work.pipe(folder)
        except Exception:  # noqa: BLE001 - the text waits for the next session
            _log.exception("follow-up broke", group=folder)
            taken = False
        if not taken:
            self._carry_out(self._schedule.refused(folder, _now()))

    async def _retry(self, folder: str, delay: timedelta) -> None:
        at = _now() + delay.total_seconds()
        await asyncio.sleep(delay.total_seconds())
        self._carry_out(self._schedule.retry_due(folder, max(at, _now())))  # a timer may be a moment early

    async def _look(self, at: float) -> None:
        await asyncio.sleep(at - _now())
        self._carry_out(self._schedule.look(max(at, _now())))

    async def _give_up(self, folder: str) -> None:
        try:
            more = await self._work.give_up(folder)
        except Exception:  # noqa: BLE001 - the messages still wait, and nobody else would come back to them
            _log.exception("failure not told", group=folder)
            more = True
        if more:
            self.message(folder)


def _now() -> float:
    return asyncio.get_running_loop().time()
