"""Parks agents: has their pods made before there is a message, and taken away when nobody needs them.

What is parked here belongs to no session until `take` gives it to one. Each group has at most one agent, and
one thing done to it at a time: who takes or begins something waits with `settled` for what is under way.
A process that ends leaves parked agents alone; the next one is told of them with `adopt`. Not here: for
whom, how many and when (`domain.parking`), what follows when it fails (`parking_failures`), and what a parked pod
is (`backends`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

import structlog

from nanoclaw_runtime.backends.base import Backend, RunningSession
from nanoclaw_runtime.contract.config import ControllerConfig, GroupSpec, Transport, Warm
from nanoclaw_runtime.controller.parked_agent import ParkedAgent
from nanoclaw_runtime.controller.parking_failures import ParkingFailures
from nanoclaw_runtime.controller.reservations import Reservations
from nanoclaw_runtime.controller.status import Warmth
from nanoclaw_runtime.domain.errors import NanoclawError
from nanoclaw_runtime.domain.model import SessionPlan
from nanoclaw_runtime.domain.parking import (
    Action,
    Budget,
    Candidate,
    Drop,
    Park,
    State,
    Why,
    decide,
    least_valuable,
)
from nanoclaw_runtime.ipc.folders import make_group_folders
from nanoclaw_runtime.ipc.mailbox import Mailbox
from nanoclaw_runtime.telemetry import Metrics

AT_ONCE: Final = 2
"""Agents that are parked, and that are dropped, at the same time: sessions that start go before."""
PERIOD: Final = 5.0
"""Seconds between two looks when nothing is told."""
SETTLE: Final = 0.1
"""Seconds behind something that is told, so that what comes together is looked at once."""
STOP_AGAIN: Final = 30.0
"""Seconds until an agent is dropped again that did not go."""

GONE_WITHIN: Final = 10.0
"""Seconds for which a session waits for an agent that is being dropped: one on a lost node does not go."""

NO_GRACE: Final = timedelta(0)

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Means:
    """What parking is given."""

    config: ControllerConfig
    backend: Backend
    tree: Path
    metrics: Metrics
    groups: Callable[[], Iterable[GroupSpec]]
    """Those whose agents can be started now."""
    busy: Callable[[str], bool]
    """Whether the group has a session, waits for one, or backs off."""
    sweep: Callable[[str], Awaitable[None]]
    """End agents of the group that belong to nobody: a parking that failed may have left one, which bars the next."""
    new_session: Callable[[], str]
    """The id of a session that does not exist yet."""
    plan: Callable[[GroupSpec, str], Awaitable[SessionPlan]]
    """Of an agent to be parked for the group, under this id of a session. May raise OSError."""
    fingerprint: Callable[[SessionPlan], str]
    """Of everything a pod of this plan is made of."""
    used: Callable[[], Awaitable[Mapping[str, datetime]]]
    """When each group's last message came."""
    due: Callable[[datetime], Awaitable[Mapping[str, datetime]]]
    """When the next task of each group is due, as far as that is before the moment."""


class Parking:
    """The parked agents of an installation. `run` is its life.

    `now` gives seconds since the epoch: tasks and messages have the time of day.
    """

    def __init__(self, means: Means, *, now: Callable[[], float] = time.time) -> None:
        self._means = means
        self._now = now
        self._agents: dict[str, ParkedAgent] = {}
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._changes = asyncio.Event()
        self._failures = ParkingFailures(means.metrics)
        self._parks = True
        self.reservations = Reservations(now)
        self._show_metrics()

    # What sessions and groups tell, and ask

    def take(self, folder: str) -> str | None:
        """The session of the group's parked agent, which is not parking's any more; None when there is none.

        Called when a session begins, which then awaits `settled` before it touches anything of the group.
        """
        agent = self._looked_at(folder)
        if agent is None or agent.state in {State.DEAD, State.LEAVING}:
            if self._on:
                self._means.metrics.parking_misses.inc()
            if agent is not None and agent.state is State.DEAD:
                self._begin_drop(agent, Why.DEAD)
            return None
        agent.taken = True
        del self._agents[folder]
        self._failures.taken(folder)
        self._means.metrics.parking_hits.inc()
        return agent.session

    async def settled(self, folder: str) -> None:
        """Return when nothing that was begun for the group is under way, or after the time a start may take.

        An agent that is dropped is not waited for that long: whoever starts the next one sees whether it may still act.
        """
        if (task := self._under_way.get(folder)) is not None:
            agent = self._agents.get(folder)
            leaves = agent is not None and agent.stop_at is not None
            await asyncio.wait({task}, timeout=GONE_WITHIN if leaves else self._means.config.start_timeout)

    def wanted(self, folder: str) -> ParkedAgent | None:
        """The group's parked agent, whatever the budget says: one is begun where there is none and none is going.

        None when none can be begun now. What is wanted is not dropped while it is lent.
        """
        agent = self._looked_at(folder)
        if agent is None and self._tasks is not None:
            self._begin_park(folder, asked=True)
        elif agent is not None and agent.state is State.DEAD:
            self._begin_drop(agent, Why.DEAD)
        return self._agents.get(folder)

    def discard(self, folder: str) -> None:
        """Drop the group's parked agent, which may do what nobody knows of any more."""
        if (agent := self._agents.get(folder)) is not None:
            self._begin_drop(agent, Why.STALE)

    def owns(self, session: str) -> bool:
        """Whether an agent is parked, or being parked, under this session: nobody else may clean it up."""
        return any(agent.session == session for agent in self._agents.values())

    def adopt(self, running: RunningSession) -> bool:
        """Take up an agent that an earlier process parked; False when its group has one: the caller ends it."""
        folder, session, now = running.ref.folder, running.ref.session, self._now()
        if folder in self._agents:
            return False
        self._agents[folder] = ParkedAgent(folder, session, now, running, running.parked, changed=now, adopted=True)
        _log.info("parked agent adopted", group=folder, session=session)
        self.changed()
        return True

    def changed(self) -> None:
        """Something happened: a message came, a session is over, groups were changed."""
        self._changes.set()

    def warmth(self, folder: str) -> Warmth:
        """Whether an agent is parked for the group."""
        agent = self._looked_at(folder)
        return Warmth.NONE if agent is None else _WARMTH.get(agent.state, Warmth.NONE)

    async def make_room(self, folder: str) -> bool:
        """Drop the least valuable parked agent of another group, and return when it is gone; False when none is.

        Nothing is parked for a while then: whatever needs the room has it.
        """
        now = self._now()
        self._failures.no_room(now)
        groups = [
            group
            for group in await self._candidates(now)
            if group.folder not in self._under_way and not self.reservations.is_lent(group.folder)
        ]
        drop = least_valuable(groups, self._budget(), now, besides=folder)
        task = self._carry_out(drop) if drop else None
        if drop is None or task is None:
            return False
        await asyncio.wait({task})
        return not self.owns(drop.session)

    # Its life

    async def run(self) -> None:
        """Park and drop until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            try:
                while True:
                    self._changes.clear()
                    await self._look()
                    with suppress(TimeoutError):
                        async with asyncio.timeout(PERIOD):
                            await self._changes.wait()
                    await asyncio.sleep(SETTLE)
            finally:
                self._tasks = None  # nothing is begun while what is under way comes to its end

    async def _look(self) -> None:
        if not self._on and not self._agents:
            return
        try:
            now = self._now()
            for action in decide(await self._candidates(now), self._budget(), now):
                if self._busy_with(action) < AT_ONCE:  # the rest is decided anew when something is done
                    self._carry_out(action)
            self._stop_again(now)
        except Exception:  # noqa: BLE001 - sessions start without parking, and the next look may go well
            _log.exception("parked agents not looked at")

    def _carry_out(self, action: Action) -> asyncio.Task[None] | None:
        agent = self._agents.get(action.folder)
        match action:
            case Park(folder):
                return self._begin_park(folder) if agent is None else None
            case Drop(folder, _, why) if why not in {Why.DEAD, Why.LATE} and self.reservations.is_lent(folder):
                return None
            case Drop(_, session, why):
                return self._begin_drop(agent, why) if agent is not None and agent.session == session else None

    async def _candidates(self, now: float) -> list[Candidate]:
        """The groups as they are now; what is awaited comes first, so that the picture is of one moment."""
        means = self._means
        used = await means.used()
        due = await means.due(datetime.fromtimestamp(now + means.config.parking.ahead, UTC))
        for agent in list(self._agents.values()):
            group = self._group(agent.folder)
            if group is not None and agent.running is not None:
                await agent.judge(group, partial(self._expected, group, agent.session), now)
        groups = {group.folder: group for group in means.groups()}
        gone = [_gone(folder) for folder in self._agents if folder not in groups]
        return [
            self._candidate(group, _seconds(used.get(group.folder)), _seconds(due.get(group.folder)))
            for group in (*groups.values(), *gone)
        ]

    def _candidate(self, group: GroupSpec, used: float | None, due: float | None) -> Candidate:
        agent = self._looked_at(group.folder)
        return Candidate(
            group.folder,
            warm=group.warm,
            priority=group.priority,
            used=used,
            due=due,
            busy=self._means.busy(group.folder),
            parked=agent.shown() if agent is not None else None,
            not_before=self._failures.not_before(group.folder),
        )

    async def _expected(self, group: GroupSpec, session: str) -> str | None:
        """The fingerprint of what an agent of the group would be made of now, or None when that cannot be told."""
        try:
            return self._means.fingerprint(await self._means.plan(group, session))
        except (NanoclawError, OSError) as error:
            _log.info("parked agent not judged", group=group.folder, reason=str(error))
            return None

    def _looked_at(self, folder: str) -> ParkedAgent | None:
        agent = self._agents.get(folder)
        if agent is not None and agent.look(self._means.backend, self._now()) and agent.state is State.WAITING:
            self._failures.waits(folder)
            _log.info("agent parked", group=folder, session=agent.session)
        return agent

    # Parking

    def _begin_park(self, folder: str, *, asked: bool = False) -> asyncio.Task[None] | None:
        group = self._group(folder)
        if group is None or folder in self._under_way or (self._means.busy(folder) and not asked):
            return None
        now = self._now()
        agent = self._agents[folder] = ParkedAgent(folder, self._means.new_session(), now, changed=now)
        return self._begin(folder, self._park(agent, group))

    async def _park(self, agent: ParkedAgent, group: GroupSpec) -> None:
        failed = False
        try:
            agent.running = await self._prepared(agent, group)
        except Exception as error:  # noqa: BLE001 - told in full where it is not one of ours
            self._failures.not_parked(agent.folder, error, self._now())
            failed = not agent.taken
            agent.failed = str(error)
        if agent.running is None:
            self._forget(agent)
        if failed:
            await self._means.sweep(agent.folder)

    async def _prepared(self, agent: ParkedAgent, group: GroupSpec) -> RunningSession | None:
        """The agent, asked for; None where none is parked, or a session has taken its place meanwhile."""
        means, folder = self._means, agent.folder
        plan = await means.plan(group, agent.session)
        agent.fingerprint = means.fingerprint(plan)
        if plan.config.transport is Transport.VOLUME and not agent.taken:  # a bridge makes them in the pod
            await asyncio.to_thread(make_group_folders, means.tree, folder)
            await Mailbox(means.tree, folder, agent.session).prepare()
        if agent.taken:
            return None  # the session starts it
        running = await means.backend.prepare(plan)
        if running is None:
            self._parks = False
            _log.info("agents are not parked here", pattern=plan.config.pattern)
        return running

    # Dropping

    def _begin_drop(self, agent: ParkedAgent, why: Why) -> asyncio.Task[None] | None:
        if self._tasks is None or agent.running is None or agent.folder in self._under_way:
            return None
        now = self._now()
        self._failures.dropped(agent.folder, why, now, since=agent.since)
        agent.stop_at = now + STOP_AGAIN
        agent.look(self._means.backend, now)
        self._means.metrics.parking_dropped.labels(why).inc()
        _log.info("parked agent dropped", group=agent.folder, session=agent.session, why=why)
        return self._begin(agent.folder, self._drop(agent, agent.running))

    async def _drop(self, agent: ParkedAgent, running: RunningSession) -> None:
        try:
            await running.stop(grace=NO_GRACE)
        except Exception as error:  # noqa: BLE001 - told in full where it is not one of ours; tried again
            ours = isinstance(error, NanoclawError)
            _log.warning("parked agent stays", group=agent.folder, reason=str(error), exc_info=None if ours else error)
            agent.stop_at = self._now() + STOP_AGAIN
        else:
            self._forget(agent)

    def _stop_again(self, now: float) -> None:
        for agent in self._agents.values():
            if agent.stop_at is not None and agent.stop_at <= now and agent.folder not in self._under_way:
                assert agent.running is not None, "only what runs is stopped"
                self._begin(agent.folder, self._drop(agent, agent.running))

    # Small things

    def _begin(self, folder: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        assert self._tasks is not None, "parking is not running"
        task = self._under_way[folder] = self._tasks.create_task(work, name=f"parking of {folder}")
        task.add_done_callback(partial(self._ended, folder))
        return task

    def _ended(self, folder: str, _task: asyncio.Task[None]) -> None:
        del self._under_way[folder]
        self.changed()

    def _busy_with(self, action: Action) -> int:
        """How many of its kind are under way: drops on a node that is lost must not keep others from being parked."""
        leaving = sum(folder in self._agents and self._agents[folder].stop_at is not None for folder in self._under_way)
        return leaving if isinstance(action, Drop) else len(self._under_way) - leaving

    def _forget(self, agent: ParkedAgent) -> None:
        if self._agents.get(agent.folder) is agent:
            del self._agents[agent.folder]

    def _group(self, folder: str) -> GroupSpec | None:
        return next((group for group in self._means.groups() if group.folder == folder), None)

    def _budget(self) -> Budget:
        budget = Budget.of(self._means.config, closed_until=self._failures.no_room_until)
        return budget if self._parks else replace(budget, pods=0)

    @property
    def _on(self) -> bool:
        return self._parks and self._means.config.parked_pods > 0

    def _show_metrics(self) -> None:
        metrics = self._means.metrics
        for state in _WARMTH:
            metrics.parked_agents.labels(state).set_function(partial(self._count, state))
        for why in Why:
            metrics.parking_dropped.labels(why)  # from 0 on, so that the first one is seen as an increase

    def _count(self, state: State) -> int:
        return sum(agent.state is state for agent in self._agents.values())


_WARMTH: Final = {State.WAITING: Warmth.WAITING, State.STARTING: Warmth.STARTING}


def _gone(folder: str) -> GroupSpec:
    """A group that is not known any more and has an agent all the same."""
    return GroupSpec(folder=folder, name=folder, warm=Warm.NEVER)


def _seconds(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()
