"""The controller: messages in, sessions run, answers out, and everything found again after a restart.

It joins the store, the queue and the sessions, and is what the API shows. The store is the
truth; what is in memory here may be thrown away at any moment.
"""

from __future__ import annotations

import asyncio
import secrets
import string
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Final, Protocol

import structlog

from nanoclaw_runtime.backends.base import RunningSession
from nanoclaw_runtime.contract.config import GroupSpec, Priority
from nanoclaw_runtime.controller.groups import GroupBook
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
from nanoclaw_runtime.controller.status import (
    Check,
    GroupState,
    GroupStatus,
    QueuedGroup,
    QueueStatus,
    SessionState,
    SessionStatus,
)
from nanoclaw_runtime.controller.view import Accepted
from nanoclaw_runtime.domain.errors import (
    Diagnosis,
    FailureKind,
    GroupUnknown,
    SessionFailed,
    SessionUnknown,
    StoreFailed,
    TaskUnknown,
)
from nanoclaw_runtime.domain.model import SessionKind, SessionRef
from nanoclaw_runtime.domain.prompt import addresses
from nanoclaw_runtime.domain.schedule import Ending, Phase
from nanoclaw_runtime.domain.tasks import RunOutcome, TaskContext, TaskState
from nanoclaw_runtime.store.records import Event, Message, MessageState, RecordedState, SessionRecord, Task

_log = structlog.get_logger(__name__)

_BASE36: Final = string.digits + string.ascii_lowercase

_GROUP_STATES: Final = {
    Phase.QUIET: GroupState.QUIET,
    Phase.WAITING: GroupState.QUEUED,
    Phase.BACKING_OFF: GroupState.RETRYING,
    Phase.STARTING: GroupState.ACTIVE,
    Phase.LIVE: GroupState.ACTIVE,
    Phase.CLOSING: GroupState.ACTIVE,
    Phase.TASK: GroupState.ACTIVE,
}


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


class Controller:
    """Messages and sessions. `run` is its life; cancelling it leaves agents running, to be adopted."""

    def __init__(
        self,
        around: Surroundings,
        groups: GroupBook,
        tasks: Tasks,
        networks: Networks,
        *,
        checks: Sequence[Callable[[], Check]] = (),
    ) -> None:
        self._around = around
        self._groups = groups
        self._task_book = tasks
        self._networks = networks
        self._checks = checks
        self._sessions: dict[str, Session] = {}
        self._last_failure: dict[str, tuple[Diagnosis, tuple[int, ...]]] = {}
        self._show_metrics()
        self._queue: GroupQueue | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self.recovered = asyncio.Event()
        """Set while sessions of earlier processes are found and new ones may begin."""

    async def run(self) -> None:
        """Adopt what runs, take up what waits, then serve until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            config = self._around.config
            self._queue = GroupQueue(
                config.max_concurrent_sessions,
                self,
                tasks,
                protection=config.idle_protection,
                priority=self._priority,
            )
            await self._adopt_running(tasks)
            self.recovered.set()
            try:
                await self._take_up_waiting()
                await asyncio.Event().wait()
            finally:
                self.recovered.clear()  # what is still accepted while the API drains is for the next process

    async def groups_changed(self) -> None:
        """Take up what waits in groups that are new, or can be served only now."""
        if self.recovered.is_set():
            await self._take_up_waiting()

    def task_due(self, folder: str, task: str) -> None:
        """Run a task of the group as soon as there is a place; telling it again changes nothing."""
        if self.recovered.is_set():
            self._running_queue.task(folder, task)

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
        if message.state is MessageState.WAITING and self._wants_answer(group, [message]) and self.recovered.is_set():
            self._running_queue.message(folder)
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
        queue = self._queue
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
        return [session.status() for _, session in sorted(self._sessions.items())]

    async def stop_session(self, session: str) -> None:
        """Ask a session to end; its agent gets `close_grace` seconds. Raises SessionUnknown."""
        for live in self._sessions.values():
            if live.ref.session == session:
                await live.stop()
                return
        raise SessionUnknown(session)

    async def history(self, folder: str, *, after: int = 0, limit: int = 100) -> list[Message]:
        """Raises GroupUnknown."""
        return await self._around.store.history(self._groups.by_folder(folder).folder, after=after, limit=limit)

    def events(self, *, after: int | None, folder: str | None) -> AsyncIterator[Event]:
        """Events with an id above `after`, then new ones as they come; only new ones when it is None."""
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

    # What the queue has done

    async def run_session(self, folder: str) -> Ending:
        messages = await self._around.store.waiting(folder)
        group = self._served(folder)
        if group is None or not self._wants_answer(group, messages):
            return Ending.DONE
        session = self._session(SessionRef(folder, _new_session_id()), group)
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
        session = self._session(SessionRef(folder, _new_session_id(), SessionKind.TASK), group, task)
        _log.info("task starts", group=folder, session=session.ref.session, task=task)
        opening = Opening(due.prompt, task=task, resume=due.context is TaskContext.GROUP)
        return await self._until_over(session, session.run(group, opening), task=task)

    async def pipe(self, folder: str) -> bool:
        session = self._sessions.get(folder)
        return session is not None and await session.follow_up()

    async def close(self, folder: str) -> None:
        if (session := self._sessions.get(folder)) is not None:
            await session.close()

    async def give_up(self, folder: str) -> bool:
        diagnosis, messages = self._last_failure.pop(folder)
        await self._fail(folder, messages, diagnosis.chat)
        _log.error("messages given up", group=folder, messages=len(messages), reason=diagnosis.operator)
        return await self._more_waits(folder)

    async def _fail(self, folder: str, messages: Sequence[int], told: str) -> None:
        group = self._known(folder)
        jid = self._network_chat(group) if group else None
        await self._around.store.fail_messages(folder, messages, told, at=datetime.now(UTC), jid=jid)

    def _session(self, ref: SessionRef, group: GroupSpec | None, task: str | None = None) -> Session:
        queue, folder = self._running_queue, ref.folder
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

    def _network_chat(self, group: GroupSpec) -> str | None:
        return group.jid if self._networks.owns(group.jid) else None

    async def _until_over(self, session: Session, life: Awaitable[Result], *, task: str | None = None) -> Ending:
        ref = session.ref
        self._sessions[ref.folder] = session
        try:
            result = await life
            if task is None:
                ending = await self._ending(ref, result)
            else:
                self._count_end(ref, result)
                ending = await self._after_task(ref.folder)
        except Exception:  # noqa: BLE001 - one broken session must not end the others
            _log.exception("session broke", group=ref.folder, session=ref.session)
            ending = await self._broke(ref)
        finally:
            del self._sessions[ref.folder]
        if ending is Ending.FAILED or task is not None:
            self._running_tasks.create_task(self._sweep(ref.folder), name=f"sweep of {ref.folder}")
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

    async def _sweep(self, folder: str) -> None:
        """Stop agents of the group that no session stays with, so that they do not block the next one.

        A start or a stop that failed while the cluster did not answer may have left one behind.
        """
        try:
            found = await self._around.backend.running()
        except Exception:  # noqa: BLE001 - the next failure, or the next process, sweeps again
            _log.exception("left-over sessions not looked for", group=folder)
            return
        # Compared after the look: a session is known here before it is known to the cluster.
        known = {session.ref for session in self._sessions.values()}
        for running in found:
            if running.ref.folder == folder and running.ref not in known:
                await _clean_up(running)

    async def _broke(self, ref: SessionRef) -> Ending:
        """Put the messages of a session back that failed on our side; when even that fails, a restart has to."""
        diagnosis = Diagnosis(
            FailureKind.API,
            f"session {ref.session} of group {ref.folder!r} broke in the controller; its log has the traceback",
            "The assistant could not be reached.",
        )
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
        return group is not None and self._wants_answer(group, await self._around.store.waiting(folder))

    # After a restart

    async def _adopt_running(self, tasks: asyncio.TaskGroup) -> None:
        store, found = self._around.store, await self._around.backend.running()
        records = {record.id: record for record in await store.open_sessions()}
        for running in found:
            record = records.pop(running.ref.session, None)
            if record is not None and record.state is RecordedState.RUNNING:
                await self._adopt(running, record, tasks)
            else:
                # Never had its input, or is over as far as the messages are concerned.
                tasks.create_task(_clean_up(running), name=f"clean up {running.ref.session}")
                if record is not None:
                    await self._lost(record)
        for record in records.values():
            await self._lost(record)

    async def _adopt(self, running: RunningSession, record: SessionRecord, tasks: asyncio.TaskGroup) -> None:
        queue, ref = self._running_queue, running.ref
        queue.adopted(ref.folder, record.task)
        session = self._session(ref, self._known(ref.folder), record.task)
        _log.info("session adopted", group=ref.folder, session=ref.session, outputs=record.outputs)

        async def stay() -> None:
            life = session.adopt(running, record)
            queue.ended(ref.folder, await self._until_over(session, life, task=record.task))

        tasks.create_task(stay(), name=f"adopted session of {ref.folder}")

    async def _lost(self, record: SessionRecord) -> None:
        diagnosis = Diagnosis(
            FailureKind.STOPPED,
            f"session {record.id} of group {record.folder!r} was gone when the controller came back; "
            "its messages are tried again",
            "The assistant was interrupted and tries again.",
        )
        if record.task is not None and record.outputs:
            # It had answered. Without an answer it is still due, and runs again.
            said = await self._around.store.last_text(record.id)
            result = Result(progressed=True, unanswered=(), failure=None, stopped=False, said=said)
            await self._log_run(record.task, record.ref, record.created, result)
        await self._around.store.end_session(record.id, failure=diagnosis, at=datetime.now(UTC))

    async def _take_up_waiting(self) -> None:
        for folder in await self._around.store.folders_waiting():
            # A group that backs off comes back by itself; any other is told, because it may not know yet.
            if await self._more_waits(folder) and self._running_queue.phase(folder) is not Phase.BACKING_OFF:
                self._running_queue.message(folder)

    # Small things

    def _show_metrics(self) -> None:
        metrics = self._around.metrics
        metrics.groups_waiting.set_function(lambda: self._queue.waiting if self._queue else 0)
        for state in SessionState:
            metrics.sessions.labels(state).set_function(partial(self._count, state))

    def _count(self, state: SessionState) -> int:
        return sum(session.status().state is state for session in self._sessions.values())

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
    def _running_queue(self) -> GroupQueue:
        assert self._queue is not None, "the controller is not running"
        return self._queue

    @property
    def _running_tasks(self) -> asyncio.TaskGroup:
        assert self._tasks is not None, "the controller is not running"
        return self._tasks

    def _missing_trigger(self, group: GroupSpec, message: Message) -> str | None:
        return None if self._wants_answer(group, [message]) else f"@{self._around.config.assistant_name}"

    def _wants_answer(self, group: GroupSpec, messages: Sequence[Message]) -> bool:
        if group.is_main or not group.requires_trigger:
            return bool(messages)
        return any(addresses(message.content, self._around.config.assistant_name) for message in messages)

    def _status(self, group: GroupSpec, waiting: int, last_activity: datetime | None) -> GroupStatus:
        folder = group.folder
        phase = self._queue.phase(folder) if self._queue else Phase.QUIET
        session = self._sessions.get(folder)
        return GroupStatus(
            folder=folder,
            name=group.name,
            jid=group.jid,
            is_main=group.is_main,
            state=_GROUP_STATES[phase],
            session=session.ref.session if session else None,
            waiting_messages=waiting,
            queue_position=self._queue.position(folder) if self._queue else None,
            estimated_wait=self._queue.estimated_wait(folder) if self._queue else None,
            last_activity=last_activity,
            origin=self._groups.origin(folder),
            priority=group.priority,
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
        return Check("groups", bool(known), f"{known} known" if known else "none known yet")


async def _clean_up(running: RunningSession) -> None:
    try:
        await running.stop(grace=NO_GRACE)
    except SessionFailed as failure:
        _log.warning("left-over session stays", session=running.ref.session, reason=failure.diagnosis.operator)


def _is_due(task: Task) -> bool:
    """Not so when it was paused, or has run, since it was handed over."""
    return task.state is TaskState.ACTIVE and task.next_run is not None and task.next_run <= datetime.now(UTC)


def _new_session_id() -> str:
    """Twelve characters, later ones sort later."""
    milliseconds, digits = time.time_ns() // 1_000_000, ""
    while milliseconds:
        milliseconds, digit = divmod(milliseconds, 36)
        digits = _BASE36[digit] + digits
    return digits + "".join(secrets.choice(_BASE36) for _ in range(4))
