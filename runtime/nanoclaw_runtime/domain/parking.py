"""Which groups' agents are parked: started before their message, within a budget.

Stable on purpose. Ranks change only by what happens and by the clock passing a limit once, and an agent
that is parked yields to a group of its own kind only when it has rested for `SETTLE`: without a change
outside, the actions come to an end. Pods are counted until they are gone, so the budget holds while
they go. Not here: parking and dropping itself (`controller.parking`), and how a parked pod looks
(`manifests`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Final, NamedTuple, Self

from nanoclaw_runtime.contract import bridge, quantities
from nanoclaw_runtime.contract.config import ControllerConfig, Priority, Warm
from nanoclaw_runtime.domain.schedule import HEAD_START

SETTLE: Final = 300.0
"""Seconds after its group's last message, and after it began to wait, for which an agent does not yield to a group
that is only more recent: one of them started anew costs more than the other gains."""

LONGEST_WAIT: Final = 6 * 3600.0
"""Seconds after which an agent that waits is replaced: Kubernetes counts that time, too, before it ends its Job."""

FIRST_BACK_OFF: Final = 30.0
LONGEST_BACK_OFF: Final = 600.0
"""Seconds; a node may come, a quota may be raised, and neither is told to us."""


class State(StrEnum):
    """What a parked agent does."""

    STARTING = "starting"
    WAITING = "waiting"
    """It has compiled and waits for its input."""
    DEAD = "dead"
    """It will not wait any more."""
    LEAVING = "leaving"
    """It is being dropped, and still there."""


class Why(StrEnum):
    """Why a parked agent is dropped; also the label of the metric."""

    UNUSED = "unused"
    """Its group was not used lately, has no task soon, is not to be warm, or is gone."""
    YIELDS = "yields"
    """Another group is worth more."""
    STALE = "stale"
    """It would be made differently now."""
    OLD = "old"
    """It has waited for too long."""
    DEAD = "dead"
    LATE = "late"
    """It did not begin to wait in the time a session has for its start."""
    BUDGET = "budget"
    """There are more than there may be."""
    ROOM = "room"
    """A session needs the room."""


@dataclass(frozen=True)
class Parked:
    """An agent that is parked for a group."""

    session: str
    state: State
    since: float
    """When it came into this state."""
    fingerprint: str | None = None
    """Of what it is made of; None where that is not known yet."""
    expected: str | None = None
    """Of what it would be made of now; None where that is not known."""

    @property
    def stale(self) -> bool:
        return None not in {self.fingerprint, self.expected} and self.fingerprint != self.expected


@dataclass(frozen=True)
class Candidate:
    """A group, as far as parking goes. Times are seconds of one clock."""

    folder: str
    warm: Warm = Warm.AUTO
    priority: Priority = Priority.NORMAL
    used: float | None = None
    """When its last message came."""
    due: float | None = None
    """When its next task is due."""
    busy: bool = False
    """It has a session, or is about to get one."""
    parked: Parked | None = None
    not_before: float = 0.0
    """Until then nothing is parked for it, because that failed."""


@dataclass(frozen=True)
class Budget:
    """How many agents may be parked, for whom, and whether now."""

    pods: int
    memory: float | None = None
    """Bytes that all of them together may request."""
    each: float = 1.0
    """Bytes that one requests."""
    recent: float = 3600.0
    """Seconds after its last message for which a group is worth one."""
    ahead: float = 300.0
    """Seconds before a task from which its group is worth one."""
    patience: float = 120.0
    """Seconds until an agent has to wait for its input."""
    closed_until: float = 0.0
    """Until then the namespace or its nodes have no room for any."""

    @classmethod
    def of(cls, config: ControllerConfig, *, closed_until: float = 0.0) -> Self:
        """As the stack has it."""
        parking = config.parking
        beside = [bridge.RESOURCES] if config.bridged else []
        return cls(
            pods=config.parked_pods,
            memory=None if parking.memory is None else float(quantities.parse(parking.memory)),
            each=float(sum(quantities.parse(each.memory_request) for each in (config.agent.resources, *beside))),
            recent=parking.recent,
            ahead=parking.ahead,
            patience=config.start_timeout,
            closed_until=closed_until,
        )

    @property
    def places(self) -> int:
        """Agents that may be parked at the same time."""
        return self.pods if self.memory is None else min(self.pods, int(self.memory // self.each))


@dataclass(frozen=True)
class BackOff:
    """How long something that failed is left alone; each failure behind the last one's time doubles it."""

    tries: int = 0
    until: float = 0.0

    def after(self, now: float) -> BackOff:
        """As it is when it failed again; failures that come together count once."""
        if self.tries and now < self.until:
            return self
        wait = min(LONGEST_BACK_OFF, FIRST_BACK_OFF * 2 ** min(self.tries, 10))
        return BackOff(self.tries + 1, now + wait)

    def forgiven(self) -> BackOff:
        """As it is when it went well."""
        return BackOff(0, self.until)


@dataclass(frozen=True)
class Park:
    folder: str


@dataclass(frozen=True)
class Drop:
    folder: str
    session: str
    why: Why


Action = Park | Drop


class Worth(IntEnum):
    """Why a group is worth a parked agent, the best first."""

    MESSAGE = 0
    """It waits for a place, and will use the agent it has."""
    ALWAYS = 1
    TASK = 2
    RECENT = 3


class Rank(NamedTuple):
    """The place of a group among all; lower is worth more, and no two have the same."""

    worth: Worth
    moment: float
    folder: str


def rank(group: Candidate, budget: Budget, now: float) -> Rank | None:
    """What parking an agent for the group is worth; None when nothing."""
    head, used = HEAD_START[group.priority], group.used
    if group.busy and group.parked is not None:
        return Rank(Worth.MESSAGE, 0.0, group.folder)
    if group.warm is Warm.NEVER:
        return None
    if group.warm is Warm.ALWAYS:
        return Rank(Worth.ALWAYS, -head - (used or 0.0), group.folder)
    if group.due is not None and group.due - now <= budget.ahead:
        return Rank(Worth.TASK, group.due - head, group.folder)
    if used is not None and now - used <= budget.recent:
        return Rank(Worth.RECENT, -used - head, group.folder)
    return None


def decide(groups: Sequence[Candidate], budget: Budget, now: float) -> list[Action]:
    """What to do now. Asked again when some of it is done, or something has changed."""
    parked = [group for group in groups if group.parked is not None]
    drops = [Drop(group.folder, held.session, why) for group, held, why in _useless(parked, budget, now)]
    kept = _kept(parked, {drop.session for drop in drops}, budget, now)
    drops += [_drop(group, Why.BUDGET) for _, group in reversed(kept[budget.places :])]
    kept = kept[: budget.places]
    wanting = _wanting(groups, budget, now)
    free, soon = (max(0, budget.places - len(taken)) for taken in (parked, kept))
    drops += _yielding(kept, [place for place, _ in wanting[soon:]], now)
    return [*drops, *(Park(group.folder) for _, group in wanting[:free])]


def least_valuable(groups: Sequence[Candidate], budget: Budget, now: float, *, besides: str) -> Drop | None:
    """The parked agent that is given up first when something needs its room; never that of `besides`."""
    held = [
        (group.parked.stale, rank(group, budget, now), group)
        for group in groups
        if group.folder != besides
        and group.parked is not None
        and group.parked.state in {State.STARTING, State.WAITING}
    ]
    if not held:
        return None
    return _drop(max(held, key=lambda each: (each[0], each[1] is None, each[1] or (), each[2].folder))[2], Why.ROOM)


def _useless(parked: Sequence[Candidate], budget: Budget, now: float) -> list[tuple[Candidate, Parked, Why]]:
    """What is dropped whoever else there is."""
    return [
        (group, group.parked, why)
        for group in parked
        if group.parked is not None and (why := _flaw(group, group.parked, budget, now))
    ]


def _flaw(group: Candidate, held: Parked, budget: Budget, now: float) -> Why | None:
    if held.state in {State.LEAVING, State.DEAD}:
        return Why.DEAD if held.state is State.DEAD else None
    if group.busy:
        return None  # its session takes it, and replaces it where it has to
    if held.state is State.STARTING and now - held.since > budget.patience:
        return Why.LATE
    if held.stale:
        return Why.STALE
    old = held.state is State.WAITING and now - held.since > LONGEST_WAIT
    return Why.OLD if old else None if rank(group, budget, now) else Why.UNUSED


def _kept(parked: Sequence[Candidate], dropped: set[str], budget: Budget, now: float) -> list[tuple[Rank, Candidate]]:
    """Those that may stay, the best first."""
    return sorted(
        (place, group)
        for group in parked
        if group.parked is not None
        and group.parked.state is not State.LEAVING
        and group.parked.session not in dropped
        and (place := rank(group, budget, now)) is not None
    )


def _wanting(groups: Sequence[Candidate], budget: Budget, now: float) -> list[tuple[Rank, Candidate]]:
    """Groups that are worth an agent and have none, the best first."""
    if now < budget.closed_until:
        return []
    return sorted(
        (place, group)
        for group in groups
        if group.parked is None
        and not group.busy
        and group.not_before <= now
        and (place := rank(group, budget, now)) is not None
    )


def _yielding(kept: Sequence[tuple[Rank, Candidate]], wanting: Sequence[Rank], now: float) -> list[Drop]:
    """Who goes for a group that is worth more, the least valuable first: one for each."""
    drops: list[Drop] = []
    left = list(reversed(kept))
    for better in wanting:
        for place, group in left:
            if better.worth < place.worth or (better < place and better.worth is place.worth and _rested(group, now)):
                drops.append(_drop(group, Why.YIELDS))
                left.remove((place, group))
                break
    return drops


def _rested(group: Candidate, now: float) -> bool:
    since = group.parked.since if group.parked is not None else now
    return now - max(since, group.used if group.used is not None else since) >= SETTLE


def _drop(group: Candidate, why: Why) -> Drop:
    assert group.parked is not None, "only what is parked is dropped"
    return Drop(group.folder, group.parked.session, why)
