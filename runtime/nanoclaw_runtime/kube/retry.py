"""How often a call is tried again, and after which pause.

The client of client-go limits itself, Python's does not: pauses are jittered so that many
callers do not come back together, and one budget for all of a client's calls keeps a struggling
API server from being asked three times as often as a healthy one.
"""

from __future__ import annotations

import asyncio
from secrets import SystemRandom
from typing import Final

from nanoclaw_runtime.kube.errors import KubeError, Throttled, Unavailable

ATTEMPTS: Final = 6
"""Of one call, the first included: about six seconds when every one of them fails at once."""

FIRST_PAUSE: Final = 0.2
LONGEST_PAUSE: Final = 8.0

BUDGET: Final = 40.0
"""Retries in stock for all calls of a client together."""
REFILL: Final = 2.0
"""Retries that come back each second."""

_random = SystemRandom()


def jitter(seconds: float) -> float:
    """Between half and all of `seconds`."""
    return seconds * _random.uniform(0.5, 1.0)


def pause(attempt: int, error: Exception | None = None) -> float:
    """Seconds before the next try, after `attempt` (from 0) failed; what the server asks for comes first."""
    backoff = jitter(min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(attempt, 10)))
    if isinstance(error, Throttled) and error.retry_after is not None:
        return error.retry_after + backoff
    return backoff


def worth_it(error: KubeError) -> bool:
    """Whether the same call may well succeed a moment later."""
    return isinstance(error, Throttled | Unavailable)


class RetryBudget:
    """A bucket of retries shared by everything one client does."""

    def __init__(self) -> None:
        self._left = BUDGET
        self._counted = asyncio.get_running_loop().time()

    def take(self) -> bool:
        """Use up one retry; False when there is none and the caller has to give up."""
        now = asyncio.get_running_loop().time()
        self._left = min(BUDGET, self._left + (now - self._counted) * REFILL)
        self._counted = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
