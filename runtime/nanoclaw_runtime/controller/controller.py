"""The controller: messages in, answers out, and what is going on meanwhile, as the API shows it.

The store is the truth; what is in memory here may be thrown away at any moment. What sessions do, and
who gets one, is `runs` and `queue`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from typing import Final

from nanoclaw_runtime.contract.config import GroupSpec, Pattern
from nanoclaw_runtime.controller.groups import GroupBook
from nanoclaw_runtime.controller.parking import Parking
from nanoclaw_runtime.controller.runs import Networks, Runs, Tasks
from nanoclaw_runtime.controller.session import Surroundings
from nanoclaw_runtime.controller.status import (
    Check,
    GroupState,
    GroupStatus,
    QueuedGroup,
    QueueStatus,
    SessionStatus,
)
from nanoclaw_runtime.controller.view import Accepted
from nanoclaw_runtime.domain.errors import SessionUnknown, StoreFailed
from nanoclaw_runtime.domain.schedule import Phase
from nanoclaw_runtime.store.records import Event, Message, MessageState

_GROUP_STATES: Final = {
    Phase.QUIET: GroupState.QUIET,
    Phase.WAITING: GroupState.QUEUED,
    Phase.BACKING_OFF: GroupState.RETRYING,
    Phase.STARTING: GroupState.ACTIVE,
    Phase.LIVE: GroupState.ACTIVE,
    Phase.CLOSING: GroupState.ACTIVE,
    Phase.TASK: GroupState.ACTIVE,
}


class Controller:
    """Messages and sessions. `run` is its life; cancelling it leaves agents running, to be adopted."""

    def __init__(
        self,
        around: Surroundings,
        groups: GroupBook,
        tasks: Tasks,
        networks: Networks,
        parking: Parking,
        *,
        checks: Sequence[Callable[[], Check]] = (),
    ) -> None:
        self._around = around
        self._groups = groups
        self._parking = parking
        self._runs = Runs(around, groups, tasks, networks, parking)
        self._checks = checks
        self.recovered = asyncio.Event()
        """Set while sessions of earlier processes are found and new ones may begin."""

    async def run(self) -> None:
        """Adopt what runs, take up what waits, then serve until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._runs.begin(tasks)
            await self._runs.adopt()
            self.recovered.set()
            try:
                await self._runs.take_up_waiting()
                await self._parking.run()
            finally:
                self.recovered.clear()  # what is still accepted while the API drains is for the next process

    async def groups_changed(self) -> None:
        """Take up what waits in groups that are new, or can be served only now; end sessions of those that went."""
        if self.recovered.is_set():
            await self._runs.close_unknown()
            await self._runs.take_up_waiting()
            self._parking.changed()

    async def sweep(self, folder: str) -> None:
        """End agents of the group that belong to nobody."""
        await self._runs.sweep(folder)

    def busy(self, folder: str) -> bool:
        """Whether the group has a session, waits for one, or will come back by itself. Only once it runs."""
        return self._runs.busy(folder)

    def task_due(self, folder: str, task: str) -> None:
        """Run a task of the group as soon as there is a place; telling it again changes nothing."""
        if self.recovered.is_set():
            self._runs.queue.task(folder, task)

    # What the API shows

    async def accept(
        self,
        folder: str,
        text: str,
        *,
        sender: str,
        sender_name: str,
        client_id: str | None = None,
        at: datetime | None = None,
    ) -> Accepted:
        """Commit a message, written `at` or now, and see to its answer. Raises GroupUnknown."""
        group = self._groups.by_folder(folder)
        written = at or datetime.now(UTC)
        message, created = await self._around.store.add_message(
            folder, text, sender=sender, sender_name=sender_name, client_id=client_id, at=written
        )
        # A message that was sent again may wait unseen: its first sender was cut off behind the commit.
        if (
            message.state is MessageState.WAITING
            and self._runs.wants_answer(group, [message])
            and self.recovered.is_set()
        ):
            self._runs.queue.message(folder)
        waiting = (await self._around.store.folders_waiting()).get(folder, 0)
        return Accepted(
            message, created, self._status(group, waiting, message.created), self._missing_trigger(group, message)
        )

    async def groups(self) -> list[GroupStatus]:
        waiting = await self._around.store.folders_waiting()
        activity = await self._around.store.last_activity()
        return [
            self._status(group, waiting.get(group.folder, 0), activity.get(group.folder))
            for group in sorted(self._groups.all(), key=lambda group: group.folder)
        ]

    def queue(self) -> QueueStatus:
        """How many sessions there are and may be, and who waits for a place."""
        queue = self._runs.queue if self._runs.begun else None
        waiting = [
            (position, group.folder, queue.estimated_wait(group.folder))
            for group in self._groups.all()
            if queue is not None and (position := queue.position(group.folder)) is not None
        ]
        return QueueStatus(
            limit=self._around.config.max_concurrent_sessions,
            active=queue.active if queue else 0,
            waiting=tuple(QueuedGroup(folder, position, wait) for position, folder, wait in sorted(waiting)),
        )

    def sessions(self) -> list[SessionStatus]:
        return [session.status() for _, session in sorted(self._runs.alive.items())]

    async def stop_session(self, session: str) -> None:
        """Ask a session to end; its agent gets `close_grace` seconds. Raises SessionUnknown."""
        for live in self._runs.alive.values():
            if live.ref.session == session:
                await live.stop()
                return
        raise SessionUnknown(session)

    async def history(self, folder: str, *, after: int = 0, limit: int = 100) -> list[Message]:
        """Raises GroupUnknown."""
        return await self._around.store.history(self._groups.by_folder(folder).folder, after=after, limit=limit)

    async def last_event(self) -> int:
        """The id of the newest event, of whatever group; 0 when there is none yet."""
        return await self._around.store.last_event_id()

    def events(self, *, after: int, folder: str | None) -> AsyncIterator[Event]:
        """Events with an id above `after`, then new ones as they come."""
        return self._around.store.follow(after=after, folder=folder)

    async def checks(self) -> list[Check]:
        """What has to hold for messages to be answered."""
        return [
            await self._store_check(),
            self._groups_check(),
            Check(
                "sessions adopted",
                adopted := self.recovered.is_set(),
                "done" if adopted else "still looking for sessions",
            ),
            *(check() for check in self._checks),
        ]

    # Small things

    def _missing_trigger(self, group: GroupSpec, message: Message) -> str | None:
        return None if self._runs.wants_answer(group, [message]) else f"@{self._around.config.assistant_name}"

    def _status(self, group: GroupSpec, waiting: int, last_activity: datetime | None) -> GroupStatus:
        folder = group.folder
        queue = self._runs.queue if self._runs.begun else None
        session = self._runs.alive.get(folder)
        return GroupStatus(
            folder=folder,
            name=group.name,
            jid=group.jid,
            is_main=group.is_main,
            state=_GROUP_STATES[queue.phase(folder) if queue else Phase.QUIET],
            session=session.ref.session if session else None,
            waiting_messages=waiting,
            queue_position=queue.position(folder) if queue else None,
            estimated_wait=queue.estimated_wait(folder) if queue else None,
            last_activity=last_activity,
            origin=self._groups.origin(folder),
            priority=group.priority,
            warm=self._parking.warmth(folder),
        )

    async def _store_check(self) -> Check:
        try:
            last = await self._around.store.last_event_id()
        except StoreFailed as failure:
            return Check("database", ok=False, detail=str(failure))
        return Check("database", ok=True, detail=f"{last} events")

    def _groups_check(self) -> Check:
        if not self._groups.complete.is_set():
            return Check("groups", ok=False, detail="those of the stack are not known yet")
        known = len(self._groups.all())
        # A controller of one node may well have none.
        enough = bool(known) or self._around.config.pattern is Pattern.NODELOCAL
        return Check("groups", enough, f"{known} known" if known else "none known yet")
