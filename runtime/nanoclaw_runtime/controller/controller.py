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
from typing import Final

import structlog

from nanoclaw_runtime.backends.base import RunningSession
from nanoclaw_runtime.contract.config import Groups, GroupSpec
from nanoclaw_runtime.controller.queue import GroupQueue
from nanoclaw_runtime.controller.session import NO_GRACE, Result, Session, Surroundings
from nanoclaw_runtime.controller.status import Check, GroupState, GroupStatus, SessionState, SessionStatus
from nanoclaw_runtime.controller.view import Accepted
from nanoclaw_runtime.domain.errors import (
    Diagnosis,
    FailureKind,
    GroupUnknown,
    SessionFailed,
    SessionUnknown,
    StoreFailed,
)
from nanoclaw_runtime.domain.model import SessionRef
from nanoclaw_runtime.domain.prompt import addresses
from nanoclaw_runtime.domain.schedule import Ending, Phase
from nanoclaw_runtime.store.records import Event, Message, MessageState, RecordedState, SessionRecord

_log = structlog.get_logger(__name__)

_BASE36: Final = string.digits + string.ascii_lowercase

_GROUP_STATES: Final = {
    Phase.QUIET: GroupState.QUIET,
    Phase.WAITING: GroupState.QUEUED,
    Phase.BACKING_OFF: GroupState.RETRYING,
    Phase.STARTING: GroupState.ACTIVE,
    Phase.LIVE: GroupState.ACTIVE,
    Phase.CLOSING: GroupState.ACTIVE,
}


class Controller:
    """Everything but HTTP. `run` is its life; cancelling it leaves agents running, to be adopted."""

    def __init__(self, around: Surroundings, *, checks: Sequence[Callable[[], Check]] = ()) -> None:
        self._around = around
        self._checks = checks
        self._groups: dict[str, GroupSpec] = {}
        self._sessions: dict[str, Session] = {}
        self._last_failure: dict[str, tuple[Diagnosis, tuple[int, ...]]] = {}
        self._show_metrics()
        self._queue: GroupQueue | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._recovered = False

    async def run(self) -> None:
        """Adopt what runs, take up what waits, then serve until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            self._queue = GroupQueue(self._around.config.max_concurrent_sessions, self, tasks)
            await self._adopt_running(tasks)
            self._recovered = True
            try:
                await self._take_up_waiting()
                await asyncio.Event().wait()
            finally:
                self._recovered = False  # what is still accepted while the API drains is for the next process

    async def declare(self, groups: Groups) -> None:
        """These are the groups from now on. Sessions of a group that is gone end as usual."""
        before, self._groups = self._groups, {group.folder: group for group in groups.groups}
        _log.info("groups declared", groups=sorted(self._groups), new=sorted(self._groups.keys() - before.keys()))
        if self._recovered:
            await self._take_up_waiting()

    # What the API shows

    async def accept(
        self, folder: str, text: str, *, sender: str, sender_name: str, client_id: str | None = None
    ) -> Accepted:
        """Commit a message and see to its answer. Raises GroupUnknown."""
        group = self._group(folder)
        message, created = await self._around.store.add_message(
            folder, text, sender=sender, sender_name=sender_name, client_id=client_id, at=datetime.now(UTC)
        )
        # A message that was sent again may wait unseen: its first sender was cut off behind the commit.
        if message.state is MessageState.WAITING and self._wants_answer(group, [message]) and self._recovered:
            self._running_queue.message(folder)
        waiting = (await self._around.store.folders_waiting()).get(folder, 0)
        return Accepted(
            message, created, self._status(group, waiting, message.created), self._missing_trigger(group, message)
        )

    async def groups(self) -> list[GroupStatus]:
        waiting = await self._around.store.folders_waiting()
        activity = await self._around.store.last_activity()
        return [
            self._status(group, waiting.get(folder, 0), activity.get(folder))
            for folder, group in sorted(self._groups.items())
        ]

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
        return await self._around.store.history(self._group(folder).folder, after=after, limit=limit)

    def events(self, *, after: int | None, folder: str | None) -> AsyncIterator[Event]:
        """Events with an id above `after`, then new ones as they come; only new ones when it is None."""
        return self._around.store.follow(after=after, folder=folder)

    async def checks(self) -> list[Check]:
        """What has to hold for messages to be answered."""
        return [
            await self._store_check(),
            Check("groups", bool(self._groups), f"{len(self._groups)} declared" if self._groups else "none known yet"),
            Check("sessions adopted", self._recovered, "done" if self._recovered else "still looking for sessions"),
            *(check() for check in self._checks),
        ]

    # What the queue has done

    async def run_session(self, folder: str) -> Ending:
        group = self._groups.get(folder)
        messages = await self._around.store.waiting(folder)
        if group is None or not self._wants_answer(group, messages):
            return Ending.DONE
        session = self._session(SessionRef(folder, _new_session_id()))
        _log.info("session starts", group=folder, session=session.ref.session, messages=len(messages))
        return await self._until_over(session, session.run(group, messages))

    async def pipe(self, folder: str) -> bool:
        session = self._sessions.get(folder)
        return session is not None and await session.follow_up()

    async def give_up(self, folder: str) -> bool:
        diagnosis, messages = self._last_failure.pop(folder)
        await self._around.store.fail_messages(folder, messages, diagnosis.chat, at=datetime.now(UTC))
        _log.error("messages given up", group=folder, messages=len(messages), reason=diagnosis.operator)
        return await self._more_waits(folder)

    def _session(self, ref: SessionRef) -> Session:
        queue, folder = self._running_queue, ref.folder
        return Session(self._around, ref, live=lambda: queue.live(folder), closing=lambda: queue.closing(folder))

    async def _until_over(self, session: Session, life: Awaitable[Result]) -> Ending:
        ref = session.ref
        self._sessions[ref.folder] = session
        try:
            result = await life
            ending = await self._ending(ref, result)
        except Exception:  # noqa: BLE001 - one broken session must not end the others
            _log.exception("session broke", group=ref.folder, session=ref.session)
            ending = await self._broke(ref)
        finally:
            del self._sessions[ref.folder]
        if ending is Ending.FAILED:
            self._running_tasks.create_task(self._sweep(ref.folder), name=f"sweep of {ref.folder}")
        return ending

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
        unanswered = await self._around.store.end_session(ref.session, failure=diagnosis, at=datetime.now(UTC))
        self._last_failure[ref.folder] = (diagnosis, tuple(unanswered))
        return Ending.FAILED

    async def _ending(self, ref: SessionRef, result: Result) -> Ending:
        folder, failure = ref.folder, result.failure
        self._around.metrics.sessions_ended.labels(failure.kind if failure else "").inc()
        _log.info(
            "session over",
            group=folder,
            session=ref.session,
            failure=failure and failure.kind.value,
            reason=failure and failure.operator,
            unanswered=len(result.unanswered),
        )
        if result.stopped and result.unanswered:
            told = "The assistant was stopped before it answered."
            await self._around.store.fail_messages(folder, result.unanswered, told, at=datetime.now(UTC))
        elif failure is not None and result.unanswered and not result.progressed:
            self._last_failure[folder] = (failure, result.unanswered)
            return Ending.FAILED
        self._last_failure.pop(folder, None)
        return Ending.MORE if await self._more_waits(folder) else Ending.DONE

    async def _more_waits(self, folder: str) -> bool:
        group = self._groups.get(folder)
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
        queue.adopted(ref.folder)
        session = self._session(ref)
        _log.info("session adopted", group=ref.folder, session=ref.session, outputs=record.outputs)

        async def stay() -> None:
            queue.ended(ref.folder, await self._until_over(session, session.adopt(running, record)))

        tasks.create_task(stay(), name=f"adopted session of {ref.folder}")

    async def _lost(self, record: SessionRecord) -> None:
        diagnosis = Diagnosis(
            FailureKind.STOPPED,
            f"session {record.id} of group {record.folder!r} was gone when the controller came back; "
            "its messages are tried again",
            "The assistant was interrupted and tries again.",
        )
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

    def _group(self, folder: str) -> GroupSpec:
        try:
            return self._groups[folder]
        except KeyError:
            raise GroupUnknown(folder) from None

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
            last_activity=last_activity,
        )

    async def _store_check(self) -> Check:
        try:
            last = await self._around.store.last_event_id()
        except StoreFailed as failure:
            return Check("database", ok=False, detail=str(failure))
        return Check("database", ok=True, detail=f"{last} events")


async def _clean_up(running: RunningSession) -> None:
    try:
        await running.stop(grace=NO_GRACE)
    except SessionFailed as failure:
        _log.warning("left-over session stays", session=running.ref.session, reason=failure.diagnosis.operator)


def _new_session_id() -> str:
    """Twelve characters, later ones sort later."""
    milliseconds, digits = time.time_ns() // 1_000_000, ""
    while milliseconds:
        milliseconds, digit = divmod(milliseconds, 36)
        digits = _BASE36[digit] + digits
    return digits + "".join(secrets.choice(_BASE36) for _ in range(4))
