"""What the controller tells about itself; the API serves these and the command line prints them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from nanoclaw_runtime.domain.model import SessionKind


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


@dataclass(frozen=True)
class Check:
    """One line of the controller's own health report."""

    name: str
    ok: bool
    detail: str
