"""One parked agent: whether it waits for its input, and whether it would still be made as it is.

Not here: when it is parked and dropped (`controller.parking`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from nanoclaw_runtime.backends.base import Backend, RunningSession
from nanoclaw_runtime.contract.config import GroupSpec
from nanoclaw_runtime.domain.parking import Parked, State

UNSEEN: Final = 30.0
"""Seconds within which a pod that was asked for need not be seen."""
JUDGED_AGAIN: Final = 30.0
"""Seconds until it is worked out anew what an agent would be made of."""


@dataclass(eq=False)
class ParkedAgent:
    """An agent that is parked, or about to be. Times are seconds since the epoch."""

    folder: str
    session: str
    since: float
    running: RunningSession | None = None
    """None until its pod is asked for."""
    fingerprint: str | None = None
    state: State = State.STARTING
    changed: float = 0.0
    """When its state did."""
    adopted: bool = False
    """An earlier process parked it: it is as old as its pod, once that is seen."""
    taken: bool = False
    """A session has it: it is not parking's any more."""
    stop_at: float | None = None
    """Once it is to be gone: when it is told so again."""
    failed: str | None = None
    """Why it could not be parked."""
    _seen: bool = False
    _expected: str | None = None
    _judged: tuple[float, GroupSpec] | None = None

    @property
    def over(self) -> bool:
        """Nothing is to be had of it any more."""
        return self.failed is not None or self.stop_at is not None or self.state is State.DEAD

    def look(self, backend: Backend, now: float) -> bool:
        """Bring the state up to date; whether it has changed."""
        seen, state = self._seen, self._state(backend, now)
        if self.adopted and self._seen and not seen:
            self.since = self.changed = self._created(now)
        elif state is not self.state:
            self.changed = now
        was, self.state = self.state, state
        return state is not was

    def _created(self, now: float) -> float:
        created = self.running.created if self.running is not None else None
        return now if created is None else min(now, created.timestamp())

    def _state(self, backend: Backend, now: float) -> State:
        if self.stop_at is not None:
            return State.LEAVING
        if self.running is None:
            return State.STARTING
        waits = backend.waits(self.session)
        if waits is not None:
            self._seen = True
            return State.WAITING if waits else State.STARTING
        return State.DEAD if self._seen or now - self.since > UNSEEN else State.STARTING

    async def judge(self, group: GroupSpec, expected: Callable[[], Awaitable[str | None]], now: float) -> None:
        """Learn what it would be made of now, where that may have changed."""
        if self._judged is None or self._judged[1] != group or now - self._judged[0] >= JUDGED_AGAIN:
            self._judged = (now, group)
            self._expected = await expected()

    def shown(self) -> Parked:
        """As parking is decided on."""
        return Parked(self.session, self.state, self.changed, self.fingerprint, self._expected)
