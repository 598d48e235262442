"""Which group's agent runs when: NanoClaw's queue as a state machine without a clock or a task.

Events go in, actions come out, in the order in which they have to be carried out. At most one
session a group, at most `limit` sessions in all, first come first served. A slot is taken the
moment `Start` is returned, so events may arrive in any order while the shell works.

    quiet ──message──▶ waiting ──slot──▶ starting ──live──▶ live ──closing──▶ closing
      ▲                                     │                │                   │
      └───────────── ended ◀────────────────┴────────────────┴───────────────────┘
                       └─ failed: backing off 5, 10, 20, 40, 80 s, then given up until the next message

Not here: prompts, stores, timers. `controller.queue` is the shell.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final

FIRST_RETRY: Final = timedelta(seconds=5)
MOST_RETRIES: Final = 5


class Phase(StrEnum):
    QUIET = "quiet"
    WAITING = "waiting"
    STARTING = "starting"
    LIVE = "live"
    CLOSING = "closing"
    BACKING_OFF = "backing-off"


class Ending(StrEnum):
    """How a session ended, as far as the queue cares."""

    DONE = "done"
    """Everything it was given was answered."""
    MORE = "more"
    """It answered something, and the group has messages left or new ones."""
    FAILED = "failed"
    """Messages it was given are unanswered, and it answered nothing since."""


@dataclass(frozen=True)
class Start:
    """Start a session of the group, now."""

    folder: str


@dataclass(frozen=True)
class Pipe:
    """Hand the group's waiting messages to its live session."""

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


Action = Start | Pipe | Retry | GiveUp


@dataclass
class _Group:
    phase: Phase = Phase.QUIET
    pending: bool = False
    """A message came that the session under way has not been told of."""
    failures: int = 0


class Schedule:
    """The state of all groups. Every method is one event and returns what to do."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._groups: dict[str, _Group] = {}
        self._waiting: OrderedDict[str, None] = OrderedDict()
        self._active = 0

    def message(self, folder: str) -> list[Action]:
        """The group has a message that wants an answer."""
        group = self._group(folder)
        match group.phase:
            case Phase.LIVE:
                return [Pipe(folder)]
            case Phase.STARTING | Phase.CLOSING:
                group.pending = True
                return []
            case Phase.WAITING:
                return []
            case Phase.QUIET | Phase.BACKING_OFF:
                group.phase = Phase.WAITING
                self._waiting[folder] = None
                return self._fill()

    def adopted(self, folder: str) -> None:
        """A session of the group is alive from before; it takes a slot even above the limit.

        Whether it can take follow-ups is not known yet: `live` has to be told for it, too.
        """
        group = self._group(folder)
        self._waiting.pop(folder, None)
        group.phase = Phase.STARTING
        self._active += 1

    def live(self, folder: str) -> list[Action]:
        """The group's session can take follow-ups from now on."""
        group = self._group(folder)
        if group.phase is not Phase.STARTING:
            return []
        group.phase = Phase.LIVE
        if group.pending:
            group.pending = False
            return [Pipe(folder)]
        return []

    def closing(self, folder: str) -> None:
        """The group's session takes no more follow-ups."""
        group = self._group(folder)
        if group.phase in {Phase.STARTING, Phase.LIVE}:
            group.phase = Phase.CLOSING

    def refused(self, folder: str) -> list[Action]:
        """A `Pipe` could not be carried out; the message is for the next session."""
        group = self._group(folder)
        if group.phase in {Phase.STARTING, Phase.LIVE, Phase.CLOSING}:
            group.pending = True
            return []
        return self.message(folder)  # the session ended meanwhile

    def ended(self, folder: str, ending: Ending) -> list[Action]:
        """The group's session is over and its agent is gone."""
        group = self._group(folder)
        self._active -= 1
        more = group.pending or ending is Ending.MORE
        group.pending = False
        actions: list[Action] = []
        if ending is Ending.FAILED:
            group.failures += 1
            if group.failures > MOST_RETRIES:
                group.failures = 0
                group.phase = Phase.QUIET
                actions.append(GiveUp(folder))
            else:
                group.phase = Phase.BACKING_OFF
                actions.append(Retry(folder, FIRST_RETRY * 2 ** (group.failures - 1)))
        else:
            group.failures = 0
            group.phase = Phase.QUIET
            if more:  # as v1 has it, a group's own backlog goes before the groups that wait
                group.phase = Phase.WAITING
                self._waiting[folder] = None
                self._waiting.move_to_end(folder, last=False)
        return actions + self._fill()

    def retry_due(self, folder: str) -> list[Action]:
        """The delay of a `Retry` is over; nothing happens when a message was faster."""
        if self._group(folder).phase is not Phase.BACKING_OFF:
            return []
        return self.message(folder)

    def phase(self, folder: str) -> Phase:
        group = self._groups.get(folder)
        return group.phase if group else Phase.QUIET

    def position(self, folder: str) -> int | None:
        """The group's place among those that wait, from 1; None when it does not wait."""
        for place, waiting in enumerate(self._waiting, start=1):
            if waiting == folder:
                return place
        return None

    @property
    def active(self) -> int:
        """Sessions that hold a slot."""
        return self._active

    @property
    def waiting(self) -> int:
        """Groups that wait for a slot."""
        return len(self._waiting)

    def _group(self, folder: str) -> _Group:
        return self._groups.setdefault(folder, _Group())

    def _fill(self) -> list[Action]:
        actions: list[Action] = []
        while self._waiting and self._active < self._limit:
            folder, _ = self._waiting.popitem(last=False)
            self._group(folder).phase = Phase.STARTING
            self._active += 1
            actions.append(Start(folder))
        return actions
