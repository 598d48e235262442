"""What the controller tells about itself; the API serves these and the command line prints them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from nanoclaw_runtime.contract.config import Priority
from nanoclaw_runtime.domain.model import SessionKind


class Origin(StrEnum):
    """Where a group comes from, which is also where it is changed."""

    DECLARED = "declared"
    """The stack has it."""
    REGISTERED = "registered"
    """It was added while the controller ran."""


class SessionState(StrEnum):
    STARTING = "starting"
    WORKING = "working"
    IDLE = "idle"
    CLOSING = "closing"


class GroupState(StrEnum):
    QUIET = "quiet"
    QUEUED = "queued"
    """Has messages and waits for a free place."""
    RETRYING = "retrying"
    ACTIVE = "active"


class Warmth(StrEnum):
    """Whether a group's next session finds an agent that was started before its message."""

    WAITING = "waiting"
    """One has compiled and waits for its input."""
    STARTING = "starting"
    NONE = "none"


@dataclass(frozen=True)
class SessionStatus:
    """A session that is alive."""

    session: str
    folder: str
    kind: SessionKind
    state: SessionState
    started: datetime
    outputs: int
    last_output: datetime | None


@dataclass(frozen=True)
class GroupStatus:
    folder: str
    name: str
    jid: str
    is_main: bool
    state: GroupState
    session: str | None
    waiting_messages: int
    queue_position: int | None
    """1 is next; None when the group does not wait."""
    last_activity: datetime | None
    estimated_wait: float | None = None
    """Seconds until it probably gets a place; None when it does not wait or that cannot be told."""
    origin: Origin = Origin.DECLARED
    priority: Priority = Priority.NORMAL
    warm: Warmth = Warmth.NONE


@dataclass(frozen=True)
class QueuedGroup:
    """A group that waits for a place."""

    folder: str
    position: int
    estimated_wait: float | None


@dataclass(frozen=True)
class QueueStatus:
    limit: int
    active: int
    """Sessions that hold a place; above the limit only after it was lowered."""
    waiting: tuple[QueuedGroup, ...]


@dataclass(frozen=True)
class Check:
    """One line of the controller's own health report."""

    name: str
    ok: bool
    detail: str
