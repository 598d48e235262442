"""What could not be parked, how long it is left alone, and what was said of it.

Two things are left alone apart from each other: a group whose agent failed, and all groups, when the namespace or its
nodes have no room. Not here: what is done about a failure (`controller.parking`), and how long is long
(`domain.parking.BackOff`).
"""

from __future__ import annotations

from typing import Final

import structlog

from nanoclaw_runtime.domain.errors import FailureKind, NanoclawError, SessionFailed
from nanoclaw_runtime.domain.parking import LONGEST_BACK_OFF, BackOff, Why
from nanoclaw_runtime.telemetry import Metrics

_NO_ROOM: Final = frozenset({FailureKind.QUOTA, FailureKind.UNSCHEDULABLE})

_log = structlog.get_logger(__name__)


class ParkingFailures:
    """The failures of parking. Times are seconds since the epoch."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._room = BackOff()
        self._groups: dict[str, BackOff] = {}
        self._told: dict[str, str] = {}

    @property
    def no_room_until(self) -> float:
        """Until then there is no room for anything to be parked."""
        return self._room.until

    def not_before(self, folder: str) -> float:
        """Until then nothing is parked for the group."""
        return self._groups.get(folder, BackOff()).until

    def no_room(self, now: float) -> None:
        """The namespace or its nodes are full."""
        self._room = self._room.after(now)

    def not_parked(self, folder: str, error: Exception, now: float) -> None:
        """An agent could not be had for the group. Said once until something else happens to the group."""
        diagnosis = error.diagnosis if isinstance(error, SessionFailed) else None
        self._metrics.parking_failed.inc()
        if diagnosis is not None and diagnosis.kind in _NO_ROOM:
            self.no_room(now)
        else:
            self._failed(folder, now)
        cause = diagnosis.kind if diagnosis else type(error).__name__  # texts name pods, which differ
        if self._told.get(folder) != cause:
            self._told[folder] = cause
            ours = isinstance(error, NanoclawError | OSError)
            reason = diagnosis.operator if diagnosis else str(error)
            _log.warning("agent not parked", group=folder, reason=reason, exc_info=None if ours else error)

    def dropped(self, folder: str, why: Why, now: float, *, since: float) -> None:
        """An agent that was parked `since` is dropped. A failure where it died, or did not come to wait."""
        if why in {Why.DEAD, Why.LATE}:
            self._metrics.parking_failed.inc()
            self._failed(folder, now, afresh=now - since > LONGEST_BACK_OFF)
        if why is Why.LATE:  # mostly for want of a node
            self.no_room(now)

    def waits(self, folder: str) -> None:
        """An agent of the group waits for its input: there is room."""
        self._room = self._room.forgiven()
        self._told.pop(folder, None)

    def taken(self, folder: str) -> None:
        """A session got an agent of the group."""
        self._groups.pop(folder, None)
        self._told.pop(folder, None)

    def _failed(self, folder: str, now: float, *, afresh: bool = False) -> None:
        known = BackOff() if afresh else self._groups.get(folder, BackOff())
        self._groups[folder] = known.after(now)
