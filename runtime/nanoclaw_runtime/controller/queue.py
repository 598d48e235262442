"""Carries out what `domain.schedule` decides: starts sessions, pipes follow-ups, waits out retries.

All events come in on the event loop's thread and every decision is made at once, so the
schedule needs no lock. Not here: what a session does (`session`), what a message is (`controller`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Protocol

import structlog

from nanoclaw_runtime.domain.schedule import Action, Ending, GiveUp, Phase, Pipe, Retry, Schedule, Start

_log = structlog.get_logger(__name__)


class Work(Protocol):
    """What the queue has done for it."""

    async def run_session(self, folder: str) -> Ending:
        """Run one session of the group to its end. What it raises ends the controller."""
        ...

    async def pipe(self, folder: str) -> bool:
        """Hand waiting messages to the group's live session; False when it takes none."""
        ...

    async def give_up(self, folder: str) -> bool:
        """Tell the chat that its messages are not answered; True when newer ones want to be."""
        ...


class GroupQueue:
    """The schedule with tasks and timers. Lives inside the task group it is given."""

    def __init__(self, limit: int, work: Work, tasks: asyncio.TaskGroup) -> None:
        self._schedule = Schedule(limit)
        self._work = work
        self._tasks = tasks

    def message(self, folder: str) -> None:
        """The group has a message that wants an answer."""
        self._carry_out(self._schedule.message(folder))

    def live(self, folder: str) -> None:
        self._carry_out(self._schedule.live(folder))

    def closing(self, folder: str) -> None:
        self._schedule.closing(folder)

    def adopted(self, folder: str) -> None:
        """A session of the group runs already; `ended` has to be told when it is over."""
        self._schedule.adopted(folder)

    def ended(self, folder: str, ending: Ending) -> None:
        self._carry_out(self._schedule.ended(folder, ending))

    def phase(self, folder: str) -> Phase:
        return self._schedule.phase(folder)

    def position(self, folder: str) -> int | None:
        """The group's place among those that wait, from 1."""
        return self._schedule.position(folder)

    @property
    def waiting(self) -> int:
        return self._schedule.waiting

    def _carry_out(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case Start(folder):
                    self._tasks.create_task(self._run(folder), name=f"session of {folder}")
                case Pipe(folder):
                    self._tasks.create_task(self._pipe(folder), name=f"follow-up to {folder}")
                case Retry(folder, delay):
                    self._tasks.create_task(self._retry(folder, delay), name=f"retry of {folder}")
                case GiveUp(folder):
                    self._tasks.create_task(self._give_up(folder), name=f"giving up on {folder}")

    async def _run(self, folder: str) -> None:
        self.ended(folder, await self._work.run_session(folder))

    async def _pipe(self, folder: str) -> None:
        try:
            taken = await self._work.pipe(folder)
        except Exception:  # noqa: BLE001 - the text waits for the next session
            _log.exception("follow-up broke", group=folder)
            taken = False
        if not taken:
            self._carry_out(self._schedule.refused(folder))

    async def _retry(self, folder: str, delay: timedelta) -> None:
        await asyncio.sleep(delay.total_seconds())
        self._carry_out(self._schedule.retry_due(folder))

    async def _give_up(self, folder: str) -> None:
        try:
            more = await self._work.give_up(folder)
        except Exception:  # noqa: BLE001 - the messages still wait, and nobody else would come back to them
            _log.exception("failure not told", group=folder)
            more = True
        if more:
            self.message(folder)
