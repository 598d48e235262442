"""One budget of time, passed down the call chain instead of a new timeout at every step."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator
from dataclasses import dataclass

from nanoclaw_runtime.kube.errors import DeadlineExceeded, Target


@dataclass(frozen=True)
class Deadline:
    """A moment of the running loop's clock."""

    at: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        return cls(asyncio.get_running_loop().time() + seconds)

    @classmethod
    def never(cls) -> Deadline:
        return cls(math.inf)

    def remaining(self) -> float:
        """Seconds left, never below zero."""
        return max(0.0, self.at - asyncio.get_running_loop().time())

    def within(self, seconds: float) -> Deadline:
        """This deadline or `seconds` from now, whichever comes first."""
        return min(self, Deadline.after(seconds), key=lambda deadline: deadline.at)

    @property
    def passed(self) -> bool:
        return self.remaining() == 0

    @contextlib.asynccontextmanager
    async def enforce(self, target: Target) -> AsyncIterator[None]:
        """Cancel the body when the time is up and raise DeadlineExceeded for `target` instead."""
        try:
            async with asyncio.timeout_at(None if math.isinf(self.at) else self.at):
                yield
        except TimeoutError as error:
            raise DeadlineExceeded(target, "not done in time") from error
