"""One session from start to end: input, outputs, follow-ups, idle, silence, close; for messages or for a task.

The session commits what its agent prints before anybody sees it, and knows at its end which of
the messages it was given are answered. What becomes of the others is the queue's decision.
Not here: which group goes next (`queue`), where the agent runs (`backends`), how long it may
live (`domain.lifetime`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from nanoclaw_runtime.backends.base import Backend, RunningSession
from nanoclaw_runtime.contract.config import ControllerConfig, GroupSpec, Transport
from nanoclaw_runtime.contract.wire import ContainerInput
from nanoclaw_runtime.controller.plans import Plans
from nanoclaw_runtime.controller.status import SessionState, SessionStatus
from nanoclaw_runtime.domain.errors import Diagnosis, FailureKind, SessionFailed, StoreFailed
from nanoclaw_runtime.domain.lifetime import Limits, Moments, Verdict, ends_turn, verdict
from nanoclaw_runtime.domain.model import AgentOutput, SessionKind, SessionRef, SessionSpec
from nanoclaw_runtime.domain.prompt import Line, prompt, visible
from nanoclaw_runtime.ipc.folders import make_group_folders
from nanoclaw_runtime.ipc.mailbox import Carrier, Mailbox, Nearby
from nanoclaw_runtime.store.records import FIRST_TURN, Message, SessionRecord
from nanoclaw_runtime.store.store import Store
from nanoclaw_runtime.telemetry import Metrics

NO_GRACE: Final = timedelta(0)

STOP_AGAIN: Final = 30.0
"""Seconds until a stop that failed, on a node that does not answer say, is tried again."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Surroundings:
    """What every session of a controller shares."""

    config: ControllerConfig
    backend: Backend
    store: Store
    tree: Path
    credentials: Callable[[str], Mapping[str, str]]
    """Of a group, given by its folder. Read anew at each start, so that rotated keys are used."""
    metrics: Metrics
    plans: Plans
    """What the pods of sessions are made of."""
    prepare: Callable[[str], Awaitable[None]]
    """Done before each start of a group, given by its folder, when its files can be written. May raise OSError."""
    carrier: Carrier = field(default_factory=Nearby)
    """Who takes files to agents, where they do not look into our folders."""


@dataclass(frozen=True)
class Signals:
    """Who is told what a session is doing. All are called on the event loop and return at once."""

    live: Callable[[], None]
    """Follow-ups may come."""
    busy: Callable[[], None]
    """It was given something."""
    idle: Callable[[], None]
    """It has answered everything."""
    closing: Callable[[], None]
    """Follow-ups may not come any more."""


@dataclass(frozen=True)
class Opening:
    """What a session begins with."""

    prompt: str
    messages: tuple[Message, ...] = ()
    """Those in the prompt."""
    task: str | None = None
    resume: bool = True
    """Whether the group's conversation goes on."""


@dataclass(frozen=True)
class Result:
    """What the queue has to know of a session that is over."""

    progressed: bool
    """At least one turn was answered."""
    unanswered: tuple[int, ...]
    """Ids of messages it was given that are waiting again."""
    failure: Diagnosis | None
    stopped: bool
    """An operator ended it: what it left unanswered must not start another by itself."""
    said: str | None
    """The last text it had for the chat."""


async def _nobody(_result: Result) -> None:
    """Nobody has to know."""


class Session:
    """Runs once. `group` is None when the group of an adopted session is not declared any more.

    With `jid` its texts go to that chat of a network, too.
    """

    def __init__(
        self,
        around: Surroundings,
        ref: SessionRef,
        signals: Signals,
        *,
        group: GroupSpec | None,
        jid: str | None = None,
        before_end: Callable[[Result], Awaitable[None]] = _nobody,
    ) -> None:
        """`before_end` is told the result before the end is recorded; a crash in between tells it again."""
        self.ref = ref
        self._before_end = before_end
        self._around = around
        self._signals = signals
        self._group, self._jid = group, jid
        self._mailbox = Mailbox(around.tree, ref.folder, ref.session, carrier=around.carrier)
        self._limits = Limits.of(around.config, ref.kind, group.container_config.timeout if group else None)
        self._moments = Moments(active=_now())
        self._changed = asyncio.Event()
        self._turn = asyncio.Lock()  # an answer must not overtake the record of what it answers
        self._started = datetime.now(UTC)
        self._last_output: datetime | None = None
        self._outputs = 0
        self._starting = True
        self._progressed = False
        self._ended_as: Verdict | None = None
        self._ending_since: float | None = None
        self._error: str | None = None
        self._said: str | None = None
        self._resumed = ref.kind is SessionKind.MESSAGES
        self._out_of_reach = False
        """Its folders are not those we see: what it took of its messages cannot be told."""

    async def run(self, group: GroupSpec, opening: Opening) -> Result:
        """Start an agent with the opening's prompt and stay with it until it is gone."""
        around = self._around
        readying = asyncio.create_task(self._readied(group, opening), name=f"ready {self.ref.session}")
        try:
            plan = await around.plans.of(group, self.ref)
            running = await around.backend.start(SessionSpec(plan, readying))
        except (SessionFailed, OSError) as error:
            await asyncio.wait({readying})
            broken = readying.exception()
            if broken is not None and not isinstance(broken, OSError):  # there may be no session to finish
                raise broken from error
            return await self._finish(_why(self.ref.folder, error))
        finally:
            readying.cancel()  # unless it is done: nobody waits for it any more
        now = datetime.now(UTC)
        for message in opening.messages:
            around.metrics.input_seconds.observe((now - message.created).total_seconds())
        async with self._ended_if_broken(running):
            await around.store.session_started(self.ref.session, at=now)
        self._starting = False
        self._happened(open_turns=1)
        return await self._follow(running, skip=0)

    async def adopt(self, running: RunningSession, record: SessionRecord) -> Result:
        """Stay with an agent that an earlier process started and recorded."""
        self._starting = False
        self._started, self._outputs, self._last_output = record.created, record.outputs, record.last_output
        if running.transport is self._around.config.transport:
            await self._deliver_follow_ups()
        else:
            self._drain()
        self._said = await self._around.store.last_text(self.ref.session)
        turns = {message.turn for message in await self._around.store.unfinished(self.ref.session)}
        if record.task is not None and not record.outputs:
            turns.add(FIRST_TURN)  # a task's prompt is no message
        self._progressed = FIRST_TURN not in turns
        self._happened(open_turns=len(turns), answered=self._progressed)
        if self._progressed and not self._out_of_reach:
            self._may_follow_up()
        return await self._follow(running, skip=record.outputs)

    def _drain(self) -> None:
        """It began under another transport, so nothing can be said to it any more: it may finish what it has."""
        self._mailbox.closing = self._out_of_reach = True
        now, deadline = _now(), self._around.config.switch_deadline
        self._moments = replace(self._moments, closed=now, until=now + deadline)
        self._signals.closing()
        _log.info("session drained", session=self.ref.session, group=self.ref.folder, seconds=deadline)

    async def _deliver_follow_ups(self) -> None:
        """A process that died between recording a follow-up and delivering it left it ready: deliver it now."""
        recorded = {message.id for message in await self._around.store.unfinished(self.ref.session)}
        try:
            await self._mailbox.deliver_recorded(recorded)
        except OSError as error:
            _log.warning("input not delivered", session=self.ref.session, error=str(error))

    async def follow_up(self) -> bool:
        """Hand the agent what waits for its group; False when it has to wait for the next session.

        The agent is asked to end when it cannot be handed over, so that the next one comes soon.
        """
        async with self._turn:
            try:
                messages = await self._around.store.waiting(self.ref.folder)
                if not messages:
                    return True
                if self._mailbox.closing:
                    return False
                if await self._give(messages):
                    return True
            except OSError as error:
                _log.warning("follow-up not written", session=self.ref.session, error=str(error))
            except StoreFailed:
                await self._close()  # the next session looks for it again
                raise
            await self._close()
        return False

    async def _give(self, messages: Sequence[Message]) -> bool:
        ids = [message.id for message in messages]
        record = partial(self._around.store.give, self.ref.session, ids)
        if not await self._mailbox.send(message_prompt(messages), ids, record):
            return False
        self._signals.busy()
        self._happened(open_turns=self._moments.open_turns + 1, answered=True)
        return True

    async def close(self) -> None:
        """Ask the agent to end after the turn in flight; its place is needed."""
        async with self._turn:  # a follow-up that is being written goes first
            await self._close()

    async def stop(self) -> None:
        """Ask the agent to end, on an operator's behalf; what it does not finish in the grace is lost to it."""
        self._moments = replace(self._moments, stopping=True)
        await self._close()

    def broken(self) -> None:
        """It raised: nothing is to be had of it any more, and nothing reaches it."""
        self._mailbox.closing = True
        self._signals.closing()

    def status(self) -> SessionStatus:
        if self._moments.closed is not None:
            state = SessionState.CLOSING
        elif self._starting:
            state = SessionState.STARTING
        else:
            state = SessionState.WORKING if self._moments.open_turns else SessionState.IDLE
        return SessionStatus(
            session=self.ref.session,
            folder=self.ref.folder,
            kind=self.ref.kind,
            state=state,
            started=self._started,
            outputs=self._outputs,
            last_output=self._last_output,
        )

    @property
    def silence(self) -> float:
        """Seconds since it began, said or was given something."""
        return _now() - self._moments.active

    @property
    def overdue(self) -> float:
        """Seconds since it was to be ended for being silent, or for not ending when it was asked to; 0 before that."""
        return 0.0 if self._ending_since is None else _now() - self._ending_since

    async def _readied(self, group: GroupSpec, opening: Opening) -> bytes:
        """The agent's input, once it may have it. Raises OSError, StoreFailed."""
        around, begun = self._around, _now()
        ids = [message.id for message in opening.messages]
        await around.store.begin_session(self.ref, ids, task=opening.task, at=datetime.now(UTC))
        if around.config.transport is Transport.VOLUME:  # a bridge makes them in the pod
            await asyncio.to_thread(make_group_folders, around.tree, self.ref.folder)
        await self._mailbox.prepare()
        await around.prepare(group.folder)
        stdin = await self._stdin(group, opening)
        around.metrics.own_seconds.observe(_now() - begun)
        return stdin

    async def _stdin(self, group: GroupSpec, opening: Opening) -> bytes:
        around = self._around
        resumed = await around.store.agent_session(group.folder) if opening.resume else None
        self._resumed = resumed is not None
        return ContainerInput(
            prompt=opening.prompt,
            session_id=resumed,
            group_folder=group.folder,
            chat_jid=group.jid,
            is_main=group.is_main,
            is_scheduled_task=True if opening.task else None,
            assistant_name=around.config.assistant_name,
            secrets=dict(around.credentials(group.folder)) or None,
        ).encode()

    async def _follow(self, running: RunningSession, skip: int) -> Result:
        failure: Diagnosis | None = None
        async with self._ended_if_broken(running), asyncio.TaskGroup() as tasks:
            watchdog = tasks.create_task(self._watch_over(running), name=f"watch over {self.ref.session}")
            try:
                async with aclosing(running.outputs(skip)) as outputs:
                    async for output in outputs:
                        await self._commit(output)
            except SessionFailed as failed:
                failure = failed.diagnosis
            watchdog.cancel()
        return await self._finish(failure)

    async def _commit(self, item: AgentOutput) -> None:
        output, now = item.output, datetime.now(UTC)
        answered = ends_turn(output)
        async with self._turn:
            text = visible(output.result) if answered else None
            event = await self._around.store.commit_output(
                self.ref.session, item.ordinal, output, text, at=now, jid=self._jid
            )
            self._around.metrics.answers.inc(event is not None)
            self._outputs, self._last_output = item.ordinal + 1, now
            self._error, self._said = output.error, text or self._said
            self._happened(open_turns=max(0, self._moments.open_turns - answered), answered=answered)
        if answered:
            # Not earlier: a text written before the agent's first answer could join its first prompt.
            self._progressed = True
            if not self._out_of_reach:
                self._may_follow_up()

    def _may_follow_up(self) -> None:
        self._signals.live()
        if not self._moments.open_turns:
            self._signals.idle()

    async def _watch_over(self, running: RunningSession) -> None:
        while True:
            self._changed.clear()
            decision, due = verdict(self._moments, self._limits, _now())
            match decision:
                case Verdict.WAIT:
                    with suppress(TimeoutError):
                        async with asyncio.timeout_at(due):
                            await self._changed.wait()
                case Verdict.CLOSE:
                    await self._close()
                case Verdict.END_CLOSED | Verdict.END_SILENT:
                    self._ended_as, self._ending_since = decision, _now()
                    self._signals.closing()
                    await self._end(running)
                    return

    async def _end(self, running: RunningSession) -> None:
        while True:
            try:
                await running.stop(grace=NO_GRACE)
            except SessionFailed as failure:
                _log.error("session cannot be ended", session=self.ref.session, reason=failure.diagnosis.operator)
                await asyncio.sleep(STOP_AGAIN)
            else:
                return

    async def _close(self) -> None:
        if self._moments.closed is None:
            self._moments = replace(self._moments, closed=_now())
        self._changed.set()
        self._signals.closing()
        if self._out_of_reach:
            return
        try:
            await self._mailbox.close()
        except OSError as error:  # the grace ends it all the same
            _log.warning("close not written", session=self.ref.session, error=str(error))

    async def _finish(self, failure: Diagnosis | None) -> Result:
        store, session = self._around.store, self.ref.session
        self._signals.closing()
        async with self._turn:
            self._mailbox.closing = True  # a follow-up that waits for the lock must not reach the next agent
            left, certain = await self._left_over()
            if left:
                await store.take_back(session, sorted(left))
            failure = self._judged(failure)
            if failure is not None and _by_itself(failure) and self._resumed and not self._progressed:
                # An agent that cannot resume its conversation dies like this, every time.
                await store.forget_agent_session(self.ref.folder)
            if failure is None and self._progressed and certain:
                # It ended well, and whatever it took before it saw `_close` it has dealt with.
                await store.finish_turns(session, at=datetime.now(UTC))
            await self._before_end(self._result((), failure))
            unanswered = await store.end_session(session, failure=failure, at=datetime.now(UTC))
        if not self._out_of_reach:
            with suppress(OSError):  # the next session removes it
                await self._mailbox.discard()
        return self._result(sorted({*left, *unanswered}), failure)

    def _result(self, unanswered: Iterable[int], failure: Diagnosis | None) -> Result:
        return Result(self._progressed, tuple(unanswered), failure, self._moments.stopping, self._said)

    async def _left_over(self) -> tuple[set[int], bool]:
        """Messages the agent certainly never took, and whether it certainly took all others.

        Their files stay until they are recorded as taken back: without a file they would count as taken.
        """
        if self._out_of_reach:
            return set(), False
        unfinished = {message.id for message in await self._around.store.unfinished(self.ref.session)}
        try:
            return await self._mailbox.pending() & unfinished, True
        except OSError as error:
            _log.warning("input not read", session=self.ref.session, error=str(error))
            return set(), False

    def _judged(self, failure: Diagnosis | None) -> Diagnosis | None:
        """What the ending means: some failures are how a session that is done ends, some good ends are none."""
        session, folder = self.ref.session, self.ref.folder
        done = self._progressed and not self._moments.open_turns
        if self._ended_as is Verdict.END_SILENT and not done:
            return Diagnosis(
                FailureKind.SILENT,
                f"session {session} of group {folder!r} said nothing for {self._limits.silence:.0f} s and was ended; "
                "see its log, or raise sessionTimeout if its work takes that long",
                "The assistant did not answer in time.",
            )
        if done and (self._ended_as is not None or self._moments.closed is not None):
            return None
        if self._out_of_reach and self._ended_as is not None and not self._moments.stopping:
            return _outlived(self.ref, self._around.config.switch_deadline)
        if failure is None and not self._progressed:
            return Diagnosis(
                FailureKind.EXIT,
                f"session {session} of group {folder!r} ended with exit code 0 before it answered; see its log",
                "The assistant ended without an answer.",
                exit_code=0,
            )
        if failure is not None and self._error:
            return replace(failure, operator=f"{failure.operator} (the agent says: {self._error[:200]})")
        return failure

    @asynccontextmanager
    async def _ended_if_broken(self, running: RunningSession) -> AsyncIterator[None]:
        """When the store or our own code fails, the agent must not go on unheard. A shutdown is no failure."""
        try:
            yield
        except Exception:
            self._mailbox.closing = True  # what waits is for the next agent, which reads the same folder
            with suppress(SessionFailed):
                await running.stop(grace=NO_GRACE)
            raise

    def _happened(self, *, open_turns: int, answered: bool = False) -> None:
        now = _now()
        self._moments = replace(
            self._moments, active=now, open_turns=open_turns, answered=now if answered else self._moments.answered
        )
        self._changed.set()


def _now() -> float:
    return asyncio.get_running_loop().time()


def message_prompt(messages: Sequence[Message]) -> str:
    """NanoClaw's prompt for these messages."""
    return prompt([Line(message.sender_name, message.created, message.content) for message in messages])


def _by_itself(failure: Diagnosis) -> bool:
    """The agent has ended, not somebody it: by a signal its exit code would be 128 and more."""
    return failure.kind is FailureKind.EXIT and (failure.exit_code or 0) < 128


def _outlived(ref: SessionRef, deadline: float) -> Diagnosis:
    return Diagnosis(
        FailureKind.STOPPED,
        f"session {ref.session} of group {ref.folder!r} began under another transport and was ended after "
        f"{deadline:g} s; its messages go to the next one; raise switchDeadline before the transport is changed "
        "if turns take that long",
        "The assistant was interrupted and tries again.",
    )


def _why(folder: str, error: SessionFailed | OSError) -> Diagnosis:
    if isinstance(error, SessionFailed):
        return error.diagnosis
    return Diagnosis(
        FailureKind.VOLUME,
        f"the volumes of group {folder!r} cannot be written ({error}); check that its claims are bound and that "
        "the controller's pod mounts them",
        "The assistant's storage is not available.",
    )
