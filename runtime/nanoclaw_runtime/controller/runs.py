"""The runs of a host: what the queue has done, from the first prompt of a session to what is left at its end.

Also after a restart: agents that still run are followed, and those that are gone are accounted for.
Not here: who runs when (`queue`), how one session goes (`session`), what the API shows (`controller`).
"""

from __future__ import annotations

import asyncio
import secrets
import string
import time
from collections.abc import Awaitable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Final, Protocol

import structlog

from nanoclaw_runtime.backends.base import RunningSession
from nanoclaw_runtime.contract.config import GroupSpec, Priority
from nanoclaw_runtime.controller.groups import GroupBook
from nanoclaw_runtime.controller.parking import Parking
from nanoclaw_runtime.controller.queue import GroupQueue
from nanoclaw_runtime.controller.session import (
    NO_GRACE,
    Opening,
    Result,
    Session,
    Signals,
    Surroundings,
    message_prompt,
)
from nanoclaw_runtime.controller.status import SessionState
from nanoclaw_runtime.domain.errors import (
    Diagnosis,
    FailureKind,
    GroupUnknown,
    SessionFailed,
    TaskUnknown,
)
from nanoclaw_runtime.domain.model import SessionKind, SessionRef
from nanoclaw_runtime.domain.prompt import addresses
from nanoclaw_runtime.domain.schedule import Ending, Phase
from nanoclaw_runtime.domain.tasks import RunOutcome, TaskContext, TaskState
from nanoclaw_runtime.store.records import Message, RecordedState, SessionRecord, Task

_log = structlog.get_logger(__name__)

_BASE36: Final = string.digits + string.ascii_lowercase


class Tasks(Protocol):
    """The tasks, as far as running one is concerned."""

    async def get(self, task_id: str) -> Task:
        """Raises TaskUnknown."""
        ...

    async def finished(
        self,
        task_id: str,
        *,
        started: datetime,
        seconds: float,
        outcome: RunOutcome,
        result: str | None,
        error: str | None,
        session: str | None,
    ) -> None:
        """A run is over; the task's next one is worked out."""
        ...


class Networks(Protocol):
    """The chat networks that are connected."""

    def owns(self, jid: str) -> bool:
        """Whether a chat with this address is of one of them."""
        ...

    def typing(self, jid: str, *, on: bool) -> None:
        """Show, or do not show any more, that an answer is being made."""
        ...


class Runs:
    """Every session there is, and the queue that has them made. `begin` it within the task group it lives in."""

    def __init__(
        self, around: Surroundings, groups: GroupBook, tasks: Tasks, networks: Networks, parking: Parking
    ) -> None:
        self._around = around
        self._parking = parking
        self._groups = groups
        self._task_book = tasks
        self._networks = networks
        self.alive: dict[str, Session] = {}
        """Sessions by the folder of their group."""
        self._beginning: dict[str, str] = {}
        """The session each group began last: not parked any more, before it is alive."""
        self._last_failure: dict[str, tuple[Diagnosis, tuple[int, ...]]] = {}
        self._unswept: set[str] = set()
        """Groups for which the cluster did not answer whoever looked for what they left."""
        self._queue: GroupQueue | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._show_metrics()

    def begin(self, tasks: asyncio.TaskGroup) -> None:
        config = self._around.config
        self._tasks = tasks
        self._queue = GroupQueue(
            config.max_concurrent_sessions,
            self,
            tasks,
            protection=config.idle_protection,
            priority=self._priority,
            waited=self._around.metrics.wait_seconds.observe,
        )

    @property
    def begun(self) -> bool:
        return self._queue is not None

    # What the queue has done

    async def run_session(self, folder: str) -> Ending:
        messages = await self._around.store.waiting(folder)
        group = self._served(folder)
        if group is None or not self.wants_answer(group, messages):
            return Ending.DONE
        if (group := await self._ready_for(folder)) is None:
            return Ending.DONE
        session = self._session(SessionRef(folder, self._beginning[folder]), group)
        _log.info("session starts", group=folder, session=session.ref.session, messages=len(messages))
        opening = Opening(message_prompt(messages), tuple(messages))
        return await self._until_over(session, session.run(group, opening))

    async def run_task(self, folder: str, task: str) -> Ending:
        try:
            due = await self._task_book.get(task)
        except TaskUnknown:
            return await self._after_task(folder)
        group = self._served(folder)
        if group is None or not _is_due(due):
            return await self._after_task(folder)
        if (group := await self._ready_for(folder)) is None:
            return Ending.DONE
        session = self._session(SessionRef(folder, self._beginning[folder], SessionKind.TASK), group, task)
        _log.info("task starts", group=folder, session=session.ref.session, task=task)
        opening = Opening(due.prompt, task=task, resume=due.context is TaskContext.GROUP)
        return await self._until_over(session, session.run(group, opening), task=task)

    async def pipe(self, folder: str) -> bool:
        session = self.alive.get(folder)
        return session is not None and await session.follow_up()

    async def close(self, folder: str) -> None:
        if (session := self.alive.get(folder)) is not None:
            await session.close()

    async def close_unknown(self) -> None:
        """Ask sessions of groups that are not served here any more to end, after the turn they are in."""
        for folder in [folder for folder in self.alive if self._known(folder) is None]:
            _log.info("session of a group that went is asked to end", group=folder)
            await self.close(folder)

    async def give_up(self, folder: str) -> bool:
        diagnosis, messages = self._last_failure.pop(folder)
        await self._fail(folder, messages, diagnosis.chat)
        self._around.metrics.messages_given_up.inc(len(messages))
        _log.error("messages given up", group=folder, messages=len(messages), reason=diagnosis.operator)
        return await self._more_waits(folder)

    async def _fail(self, folder: str, messages: Sequence[int], told: str) -> None:
        group = self._known(folder)
        jid = self._network_chat(group) if group else None
        await self._around.store.fail_messages(folder, messages, told, at=datetime.now(UTC), jid=jid)

    def _session(self, ref: SessionRef, group: GroupSpec | None, task: str | None = None) -> Session:
        queue, folder = self.queue, ref.folder
        jid = self._network_chat(group) if group else None

        def typing(*, on: bool) -> None:
            if jid is not None:
                self._networks.typing(jid, on=on)

        def busy() -> None:
            queue.busy(folder)
            typing(on=True)

        def idle() -> None:
            queue.idle(folder)
            typing(on=False)

        def closing() -> None:
            queue.closing(folder)
            typing(on=False)

        async def log_run(result: Result) -> None:
            if task is not None:
                await self._log_run(task, ref, session.status().started, result)

        signals = Signals(live=lambda: queue.live(folder), busy=busy, idle=idle, closing=closing)
        typing(on=ref.kind is SessionKind.MESSAGES)
        session = Session(self._around, ref, signals, group=group, jid=jid, before_end=log_run)
        return session

    async def _ready_for(self, folder: str) -> GroupSpec | None:
        """The group as it is once nothing of it is under way any more; None when it went meanwhile.

        Its session is that of its parked agent, or a new one.
        """
        async with self._parking.reservations.beginning(folder):
            self._beginning[folder] = self._parking.take(folder) or new_session_id()
            await self._parking.settled(folder)
            if folder in self._unswept:
                await self.sweep(folder)
        if (group := self._served(folder)) is None:
            del self._beginning[folder]
            self._running_tasks.create_task(self.sweep(folder), name=f"sweep of {folder}")
        return group

    def busy(self, folder: str) -> bool:
        """Whether the group has a session, waits for one, or will come back by itself."""
        return self.queue.phase(folder) is not Phase.QUIET

    def _network_chat(self, group: GroupSpec) -> str | None:
        return group.jid if self._networks.owns(group.jid) else None

    async def _until_over(self, session: Session, life: Awaitable[Result], *, task: str | None = None) -> Ending:
        ref = session.ref
        self.alive[ref.folder] = session
        try:
            result = await life
            if task is None:
                ending = await self._ending(ref, result)
            else:
                self._count_end(ref, result)
                ending = await self._after_task(ref.folder)
        except Exception:  # noqa: BLE001 - one broken session must not end the others
            _log.exception("session broke", group=ref.folder, session=ref.session)
            session.broken()
            ending = await self._broke(ref)
        finally:
            del self.alive[ref.folder]
            self._beginning.pop(ref.folder, None)
            self._parking.changed()
        if ending is Ending.FAILED or task is not None:
            self._running_tasks.create_task(self.sweep(ref.folder), name=f"sweep of {ref.folder}")
        return Ending.MORE if task is not None and ending is Ending.FAILED else ending

    async def _log_run(self, task: str, ref: SessionRef, begun: datetime, result: Result) -> None:
        failure = result.failure
        await self._task_book.finished(
            task,
            started=begun,
            seconds=(datetime.now(UTC) - begun).total_seconds(),
            outcome=RunOutcome.ERROR if failure else RunOutcome.SUCCESS,
            result=result.said,
            error=failure.operator if failure else None,
            session=ref.session,
        )

    async def _after_task(self, folder: str) -> Ending:
        return Ending.MORE if await self._more_waits(folder) else Ending.DONE

    async def sweep(self, folder: str) -> None:
        """Stop agents of the group that no session stays with, so that they do not block the next one.

        A start or a stop that failed while the cluster did not answer may have left one behind. Where it does not
        answer yet either, that is made good before the group's next start.
        """
        try:
            found = await self._around.backend.running()
        except Exception:  # noqa: BLE001 - the next start, or the next process, sweeps again
            _log.exception("left-over sessions not looked for", group=folder)
            self._unswept.add(folder)
            return
        self._unswept.discard(folder)
        for running in found:
            # Asked when its turn comes: the clearing of others takes its time, and sessions begin meanwhile.
            if running.ref.folder == folder and not self._is_known(running.ref.session):
                await _clean_up(running)

    def _is_known(self, session: str) -> bool:
        """Whether the session begins, lives or is parked: all of them are known here before the cluster knows them."""
        alive = (each.ref.session for each in self.alive.values())
        return session in {*self._beginning.values(), *alive} or self._parking.owns(session)

    async def _broke(self, ref: SessionRef) -> Ending:
        """Put the messages of a session back that failed on our side; when even that fails, a restart has to."""
        diagnosis = Diagnosis(
            FailureKind.API,
            f"session {ref.session} of group {ref.folder!r} broke in the controller; its log has the traceback",
            "The assistant could not be reached.",
        )
        self._around.metrics.sessions_ended.labels(diagnosis.kind).inc()
        store, unanswered = self._around.store, list[int]()
        if await store.session(ref.session) is not None:  # even its beginning may not have been recorded
            unanswered = await store.end_session(ref.session, failure=diagnosis, at=datetime.now(UTC))
        self._last_failure[ref.folder] = (diagnosis, tuple(unanswered))
        return Ending.FAILED

    async def _ending(self, ref: SessionRef, result: Result) -> Ending:
        folder, failure = ref.folder, result.failure
        self._count_end(ref, result)
        if result.stopped and result.unanswered:
            await self._fail(folder, result.unanswered, "The assistant was stopped before it answered.")
        elif failure is not None and result.unanswered and not result.progressed:
            self._last_failure[folder] = (failure, result.unanswered)
            return Ending.FAILED
        self._last_failure.pop(folder, None)
        return Ending.MORE if await self._more_waits(folder) else Ending.DONE

    def _count_end(self, ref: SessionRef, result: Result) -> None:
        failure = result.failure
        self._around.metrics.sessions_ended.labels(failure.kind if failure else "").inc()
        _log.info(
            "session over",
            group=ref.folder,
            session=ref.session,
            failure=failure and failure.kind.value,
            reason=failure and failure.operator,
            unanswered=len(result.unanswered),
        )

    async def _more_waits(self, folder: str) -> bool:
        group = self._served(folder)
        return group is not None and self.wants_answer(group, await self._around.store.waiting(folder))

    # After a restart

    async def adopt(self) -> None:
        """Stay with the agents of earlier processes, and see to what became of those that are gone."""
        store, found = self._around.store, await self._around.backend.running()
        await self._tell_never_fed()
        records = {record.id: record for record in await store.open_sessions()}
        for running in found:
            record = records.pop(running.ref.session, None)
            if record is not None and record.state is RecordedState.RUNNING:
                self._adopt(running, record)
            elif record is None and await self._never_began(running) and self._parking.adopt(running):
                continue
            else:
                # Never had its input, or is over as far as the messages are concerned.
                self._running_tasks.create_task(_clean_up(running), name=f"clean up {running.ref.session}")
                if record is not None:
                    await self._lost(record)
        for record in records.values():
            await self._lost(record)

    async def _tell_never_fed(self) -> None:
        """Which of the pods that were parked had no input, be they on their way out: only the store knows."""
        for session in await self._around.backend.once_parked():
            if await self._around.store.session(session) is None:
                self._around.backend.never_fed(session)

    async def _never_began(self, running: RunningSession) -> bool:
        """It is parked still; what once was stays labelled so when its session is over."""
        return running.parked is not None and await self._around.store.session(running.ref.session) is None

    def _adopt(self, running: RunningSession, record: SessionRecord) -> None:
        queue, ref = self.queue, record.ref  # of one that was parked, only the record knows the kind
        queue.adopted(ref.folder, record.task)
        session = self._session(ref, self._known(ref.folder), record.task)
        _log.info("session adopted", group=ref.folder, session=ref.session, outputs=record.outputs)

        async def stay() -> None:
            life = session.adopt(running, record)
            queue.ended(ref.folder, await self._until_over(session, life, task=record.task))

        self._running_tasks.create_task(stay(), name=f"adopted session of {ref.folder}")

    async def _lost(self, record: SessionRecord) -> None:
        diagnosis = Diagnosis(
            FailureKind.STOPPED,
            f"session {record.id} of group {record.folder!r} was gone when the controller came back; "
            "its messages are tried again",
            "The assistant was interrupted and tries again.",
        )
        self._around.metrics.sessions_ended.labels(diagnosis.kind).inc()
        if record.task is not None and record.outputs:
            # It had answered. Without an answer it is still due, and runs again.
            said = await self._around.store.last_text(record.id)
            result = Result(progressed=True, unanswered=(), failure=None, stopped=False, said=said)
            await self._log_run(record.task, record.ref, record.created, result)
        await self._around.store.end_session(record.id, failure=diagnosis, at=datetime.now(UTC))

    async def take_up_waiting(self) -> None:
        """Tell the queue of every group that has messages which want an answer."""
        for folder in await self._around.store.folders_waiting():
            # A group that backs off comes back by itself; any other is told, because it may not know yet.
            if await self._more_waits(folder) and self.queue.phase(folder) is not Phase.BACKING_OFF:
                self.queue.message(folder)

    # Small things

    def _show_metrics(self) -> None:
        metrics = self._around.metrics
        metrics.groups_waiting.set_function(lambda: self._queue.waiting if self._queue else 0)
        metrics.longest_wait_seconds.set_function(lambda: self._queue.longest_wait if self._queue else 0)
        metrics.session_overdue_seconds.set_function(
            lambda: max((session.overdue for session in self.alive.values()), default=0)
        )
        for state in SessionState:
            metrics.sessions.labels(state).set_function(partial(self._count, state))
            metrics.session_silent_seconds.labels(state).set_function(partial(self._longest_silence, state))
        for kind in ("", *FailureKind):
            metrics.sessions_ended.labels(kind)  # from 0 on, so that the first one is seen as an increase

    def _count(self, state: SessionState) -> int:
        return sum(session.status().state is state for session in self.alive.values())

    def _longest_silence(self, state: SessionState) -> float:
        return max((each.silence for each in self.alive.values() if each.status().state is state), default=0)

    def _known(self, folder: str) -> GroupSpec | None:
        try:
            return self._groups.by_folder(folder)
        except GroupUnknown:
            return None

    def _served(self, folder: str) -> GroupSpec | None:
        """The group, if its agents can be started now."""
        group = self._known(folder)
        return group if group is not None and not self._groups.pending(folder) else None

    def _priority(self, folder: str) -> Priority:
        group = self._known(folder)
        return group.priority if group else Priority.NORMAL

    @property
    def queue(self) -> GroupQueue:
        """Only once it has begun."""
        assert self._queue is not None, "the controller is not running"
        return self._queue

    @property
    def _running_tasks(self) -> asyncio.TaskGroup:
        assert self._tasks is not None, "the controller is not running"
        return self._tasks

    def wants_answer(self, group: GroupSpec, messages: Sequence[Message]) -> bool:
        """Whether these messages, without any more, are to be answered."""
        if group.is_main or not group.requires_trigger:
            return bool(messages)
        return any(addresses(message.content, self._around.config.assistant_name) for message in messages)


async def _clean_up(running: RunningSession) -> None:
    try:
        await running.stop(grace=NO_GRACE)
    except SessionFailed as failure:
        _log.warning("left-over session stays", session=running.ref.session, reason=failure.diagnosis.operator)


def _is_due(task: Task) -> bool:
    """Not so when it was paused, or has run, since it was handed over."""
    return task.state is TaskState.ACTIVE and task.next_run is not None and task.next_run <= datetime.now(UTC)


def new_session_id() -> str:
    """Twelve characters, later ones sort later."""
    milliseconds, digits = time.time_ns() // 1_000_000, ""
    while milliseconds:
        milliseconds, digit = divmod(milliseconds, 36)
        digits = _BASE36[digit] + digits
    return digits + "".join(secrets.choice(_BASE36) for _ in range(4))
