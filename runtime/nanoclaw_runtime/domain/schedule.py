"""Which group's agent runs when: NanoClaw's queue as a state machine without a clock or a task.

Events go in, with `now` in seconds where it matters; actions come out, in the order in which they
have to be carried out. At most one session a group, at most `limit` sessions in all. A slot is
taken the moment `Start` or `StartTask` is returned, so events may arrive in any order while the
shell works.

    quiet ──message, task──▶ waiting ──slot──▶ starting ──live──▶ live ──closing──▶ closing
      ▲                         │                 │                │                   │
      │                         └──slot, a task──▶ task            │                   │
      └──────────────────────── ended ◀───────────┴────────────────┴───────────────────┘
                                  └─ failed: backing off 5, 10, 20, 40, 80 s, then given up until the next message

Beyond NanoClaw's own: an idle session is closed when another group waits, the longest idle first
and only after `protection` seconds; a group's own backlog goes before the groups that wait once in
a row and not for ever; and a priority is a head start of so many seconds, so nobody is starved.

Not here: prompts, stores, timers. `controller.queue` is the shell.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Final

from sortedcontainers import SortedList

from nanoclaw_runtime.contract.config import Priority

FIRST_RETRY: Final = timedelta(seconds=5)
MOST_RETRIES: Final = 5

HEAD_START: Final = {Priority.HIGH: 300.0, Priority.NORMAL: 0.0, Priority.LOW: -300.0}
"""Seconds a group counts as waiting longer than it does."""

CLOSING_TAKES: Final = 6.0
"""Seconds from asking an idle agent to end to its being gone; for estimates only."""

_MEMORY: Final = 0.2
# Weight of the newest session in the mean of how long sessions hold their place.


class Phase(StrEnum):
    QUIET = "quiet"
    WAITING = "waiting"
    STARTING = "starting"
    LIVE = "live"
    CLOSING = "closing"
    TASK = "task"
    BACKING_OFF = "backing-off"


_HOLDS_A_SLOT: Final = frozenset({Phase.STARTING, Phase.LIVE, Phase.CLOSING, Phase.TASK})


class Ending(StrEnum):
    """How a session ended, as far as the queue cares."""

    DONE = "done"
    """Everything it was given was answered."""
    MORE = "more"
    """It answered something, and the group has messages left or new ones."""
    FAILED = "failed"
    """Messages it was given are unanswered, and it answered nothing since. A task never ends like this."""


@dataclass(frozen=True)
class Start:
    """Start a session for the group's messages, now."""

    folder: str


@dataclass(frozen=True)
class StartTask:
    """Start a session for one task of the group, now."""

    folder: str
    task: str


@dataclass(frozen=True)
class Pipe:
    """Hand the group's waiting messages to its live session."""

    folder: str


@dataclass(frozen=True)
class Close:
    """Ask the group's idle session to end: its place, or the group itself, is needed for something else."""

    folder: str


@dataclass(frozen=True)
class Retry:
    """Tell `retry_due` after `delay`."""

    folder: str
    delay: timedelta


@dataclass(frozen=True)
class GiveUp:
    """Make the failure visible to the chat. Whatever waits besides is a new `message` afterwards."""

    folder: str


@dataclass(frozen=True)
class Wake:
    """Tell `look` at this moment, in seconds of the same clock: an idle session loses its protection then."""

    at: float


Action = Start | StartTask | Pipe | Close | Retry | GiveUp | Wake

_Place = tuple[int, float, int]
# Of a group in the queue: own backlog or not, waiting since (with the head start), order of arrival.


@dataclass
class _Group:
    phase: Phase = Phase.QUIET
    messages: bool = False
    """Has messages that no session has been told of."""
    tasks: deque[str] = field(default_factory=deque)
    task: str | None = None
    """The one that runs."""
    backing_off: bool = False
    """A retry is due later, whatever else the group does meanwhile."""
    retry_at: float = 0.0
    """When; a timer of an earlier failure may still be about."""
    failures: int = 0
    idle_since: float | None = None
    held_since: float = 0.0
    waits_since: float = 0.0
    place: _Place | None = None
    favoured: bool = False
    """Its session began ahead of the groups that waited, or ends for one of them: its backlog has to wait now."""


class Schedule:
    """The state of all groups. Every method is one event and returns what to do."""

    def __init__(
        self,
        limit: int,
        *,
        protection: float = 0.0,
        priority: Callable[[str], Priority] = lambda _folder: Priority.NORMAL,
    ) -> None:
        self._limit = limit
        self._protection = protection
        self._priority = priority
        self._groups: dict[str, _Group] = {}
        self._queue: SortedList[tuple[_Place, str]] = SortedList()
        self._idle: SortedList[tuple[float, str]] = SortedList()
        self._active = 0
        self._closing = 0
        self._arrivals = 0
        self._wake: float | None = None
        self._mean_hold: float | None = None

    # Events

    def message(self, folder: str, now: float) -> list[Action]:
        """The group has a message that wants an answer."""
        group = self._group(folder)
        group.backing_off = False
        if group.phase is Phase.LIVE:
            self._set_idle(folder, None)
            return [Pipe(folder)]
        group.messages = True
        if group.phase in _HOLDS_A_SLOT or group.phase is Phase.WAITING:
            return []
        return self._wait(folder, now)

    def task(self, folder: str, task: str, now: float) -> list[Action]:
        """A task of the group is due; one that waits or runs already is not taken twice."""
        group = self._group(folder)
        if task == group.task or task in group.tasks:
            return []
        group.tasks.append(task)
        if group.phase is Phase.LIVE and group.idle_since is not None:
            return self._close(folder)
        if group.phase in _HOLDS_A_SLOT or group.phase is Phase.WAITING:
            return []
        return self._wait(folder, now)

    def adopted(self, folder: str, now: float, *, task: str | None = None) -> None:
        """A session of the group is alive from before; it takes a slot even above the limit.

        Whether it can take follow-ups is not known yet: `live` has to be told for it, too.
        """
        self._leave_queue(folder)
        self._take_slot(folder, Phase.STARTING if task is None else Phase.TASK, now)
        self._group(folder).task = task

    def live(self, folder: str) -> list[Action]:
        """The group's session can take follow-ups from now on."""
        group = self._group(folder)
        if group.phase is not Phase.STARTING:
            return []
        group.phase = Phase.LIVE
        if group.messages:
            group.messages = False
            return [Pipe(folder)]
        return []

    def busy(self, folder: str) -> None:
        """The group's session was given something."""
        self._set_idle(folder, None)

    def idle(self, folder: str, now: float) -> list[Action]:
        """The group's session has answered everything it was given."""
        group = self._group(folder)
        if group.phase is not Phase.LIVE:
            return []
        if group.tasks:
            return self._close(folder)
        self._set_idle(folder, now)
        return self._make_room(now)

    def closing(self, folder: str) -> None:
        """The group's session takes no more follow-ups."""
        if self._group(folder).phase in {Phase.STARTING, Phase.LIVE}:
            self._close(folder)

    def refused(self, folder: str, now: float) -> list[Action]:
        """A `Pipe` could not be carried out; the message is for the next session."""
        group = self._group(folder)
        if group.phase in _HOLDS_A_SLOT:
            group.messages = True
            return []
        return self.message(folder, now)  # the session ended meanwhile

    def ended(self, folder: str, ending: Ending, now: float) -> list[Action]:
        """The group's session is over and its agent is gone."""
        group = self._group(folder)
        ran_task = group.phase is Phase.TASK
        self._free_slot(folder, now)
        actions: list[Action] = []
        if not ran_task:
            group.messages = group.messages or ending is Ending.MORE
            actions += self._after_messages(folder, ending, now)
        elif ending is Ending.MORE and not group.backing_off:  # those that back off come by themselves
            group.messages = True
        if group.messages or group.tasks:
            self._enter_queue(folder, now, own_backlog=ending is not Ending.FAILED and not group.favoured)
        group.favoured = group.place is not None and group.place[0] == 0
        return actions + self._fill(now)

    def retry_due(self, folder: str, now: float) -> list[Action]:
        """The delay of a `Retry` is over; nothing happens when a message was faster, even if it failed again since."""
        group = self._group(folder)
        return self.message(folder, now) if group.backing_off and now >= group.retry_at else []

    def look(self, now: float) -> list[Action]:
        """The moment of a `Wake` has come."""
        self._wake = None
        return self._make_room(now)

    # What can be asked

    def phase(self, folder: str) -> Phase:
        group = self._groups.get(folder)
        return group.phase if group else Phase.QUIET

    def position(self, folder: str) -> int | None:
        """The group's place among those that wait, from 1; None when it does not wait."""
        group = self._groups.get(folder)
        if group is None or group.place is None:
            return None
        return int(self._queue.index((group.place, folder))) + 1

    def estimated_wait(self, folder: str, now: float) -> float | None:
        """Seconds until the group probably gets a place; None when it does not wait, or nothing is known to judge by.

        First come the places of sessions that end already, then of idle ones, then sessions end as
        they did on average.
        """
        position = self.position(folder)
        if position is None:
            return None
        if position <= self._closing:
            return CLOSING_TAKES
        position -= self._closing
        if position <= len(self._idle):
            since: float = self._idle[position - 1][0]
            return max(0.0, since + self._protection - now) + CLOSING_TAKES
        if self._mean_hold is None:
            return None
        return self._mean_hold * (position - len(self._idle)) / self._limit

    @property
    def active(self) -> int:
        """Sessions that hold a slot."""
        return self._active

    @property
    def waiting(self) -> int:
        """Groups that wait for a slot."""
        return len(self._queue)

    def longest_wait(self, now: float) -> float:
        """Seconds for which the group that waits longest has waited; 0 when none waits."""
        return max((now - self._groups[folder].waits_since for _, folder in self._queue), default=0.0)

    def waited(self, folder: str) -> float:
        """Seconds for which the group waited for the place it has now."""
        group = self._groups[folder]
        return group.held_since - group.waits_since

    # How it is done

    def _group(self, folder: str) -> _Group:
        return self._groups.setdefault(folder, _Group())

    def _wait(self, folder: str, now: float) -> list[Action]:
        self._enter_queue(folder, now, own_backlog=False)
        return self._fill(now)

    def _enter_queue(self, folder: str, now: float, *, own_backlog: bool) -> None:
        group = self._group(folder)
        self._arrivals += 1
        group.place = (0 if own_backlog else 1, now - HEAD_START[self._priority(folder)], self._arrivals)
        group.phase, group.waits_since = Phase.WAITING, now
        self._queue.add((group.place, folder))

    def _leave_queue(self, folder: str) -> None:
        group = self._group(folder)
        if group.place is not None:
            self._queue.remove((group.place, folder))
            group.place = None

    def _fill(self, now: float) -> list[Action]:
        actions: list[Action] = []
        while self._queue and self._active < self._limit:
            folder = self._queue[0][1]
            self._leave_queue(folder)
            actions.append(self._start(folder, now))
        return actions + self._make_room(now)

    def _start(self, folder: str, now: float) -> Start | StartTask:
        group = self._group(folder)
        if group.tasks:
            self._take_slot(folder, Phase.TASK, now)
            group.task = group.tasks.popleft()
            return StartTask(folder, group.task)
        self._take_slot(folder, Phase.STARTING, now)
        group.messages = group.backing_off = False
        return Start(folder)

    def _make_room(self, now: float) -> list[Action]:
        """Close idle sessions as long as more groups wait than places are about to be free."""
        actions: list[Action] = []
        while self._queue and self._idle and len(self._queue) > self._limit - self._active + self._closing:
            since, folder = self._idle[0]
            if since + self._protection > now:
                return actions + self._wake_at(since + self._protection)
            self._group(folder).favoured = True
            actions += self._close(folder)
        return actions

    def _wake_at(self, moment: float) -> list[Action]:
        if self._wake is not None and self._wake <= moment:
            return []
        self._wake = moment
        return [Wake(moment)]

    def _close(self, folder: str) -> list[Action]:
        self._set_idle(folder, None)
        self._group(folder).phase = Phase.CLOSING
        self._closing += 1
        return [Close(folder)]

    def _set_idle(self, folder: str, since: float | None) -> None:
        group = self._group(folder)
        if group.idle_since is not None:
            self._idle.remove((group.idle_since, folder))
        group.idle_since = since
        if since is not None:
            self._idle.add((since, folder))

    def _take_slot(self, folder: str, phase: Phase, now: float) -> None:
        group = self._group(folder)
        group.phase, group.held_since = phase, now
        self._active += 1

    def _free_slot(self, folder: str, now: float) -> None:
        group = self._group(folder)
        self._active -= 1
        self._closing -= group.phase is Phase.CLOSING
        self._set_idle(folder, None)
        held = now - group.held_since
        self._mean_hold = held if self._mean_hold is None else self._mean_hold + _MEMORY * (held - self._mean_hold)
        group.task = None
        group.phase = Phase.BACKING_OFF if group.backing_off else Phase.QUIET

    def _after_messages(self, folder: str, ending: Ending, now: float) -> list[Action]:
        group = self._group(folder)
        if ending is not Ending.FAILED:
            group.failures = 0
            return []
        group.messages = False
        group.failures += 1
        if group.failures > MOST_RETRIES:
            group.failures = 0
            return [GiveUp(folder)]
        group.backing_off = True
        group.phase = Phase.BACKING_OFF
        delay = FIRST_RETRY * 2 ** (group.failures - 1)
        group.retry_at = now + delay.total_seconds()
        return [Retry(folder, delay)]
