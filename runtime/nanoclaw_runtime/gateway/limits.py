"""Whether a group may call now. A function of what is counted so far: a call under way is not in it yet.

So a group can pass a limit by what its calls under way use, and these are bounded, too. Minutes
slide and are kept in memory; the day is the ledger's.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from nanoclaw_runtime.contract.gateway import Limits

UNDER_WAY: Final = 64
"""Calls of a group at once: many times what an agent with helpers of its own makes, and little for us."""
MINUTE: Final = 60.0


@dataclass(frozen=True)
class Exceeded:
    """Why a call is refused, and when to ask again."""

    limit: str
    text: str
    seconds: int
    """Until it may work."""
    worth_waiting: bool = True
    """Whether the agent should try again by itself."""


@dataclass
class _Window:
    """The last minute of a group."""

    under_way: int = 0
    begun: deque[float] = field(default_factory=deque)
    tokens: deque[tuple[float, int]] = field(default_factory=deque)
    sum: int = 0

    def pass_over(self, now: float) -> None:
        """Also over what is to come: a clock that was set back must not keep a group waiting for it."""
        while self.begun and not now - MINUTE < self.begun[0] <= now:
            self.begun.popleft()
        while self.tokens and not now - MINUTE < self.tokens[0][0] <= now:
            self.sum -= self.tokens.popleft()[1]


class Minutes:
    """What every group did in the last minute; `now` is in seconds."""

    def __init__(self) -> None:
        self._windows: defaultdict[str, _Window] = defaultdict(_Window)

    def exceeded(self, folder: str, limits: Limits, now: float) -> Exceeded | None:
        window = self._windows[folder]
        window.pass_over(now)
        if window.under_way >= UNDER_WAY:
            return Exceeded("concurrent", f"the group has {UNDER_WAY} calls under way; wait for one of them", 1)
        most = limits.requests_per_minute
        if most is not None and len(window.begun) >= most:
            until = window.begun[len(window.begun) - most]
            return Exceeded("requests", f"the group may make {most} calls a minute", _seconds(until + MINUTE - now))
        most = limits.tokens_per_minute
        if most is not None and window.sum >= most:
            until = _below(window, most)
            return Exceeded("tokens", f"the group may use {most} tokens a minute", _seconds(until + MINUTE - now))
        return None

    def begin(self, folder: str, now: float) -> None:
        window = self._windows[folder]
        window.under_way += 1
        window.begun.append(now)

    def end(self, folder: str, tokens: int, now: float) -> None:
        window = self._windows[folder]
        window.under_way -= 1
        if tokens:
            window.tokens.append((now, tokens))
            window.sum += tokens
        window.pass_over(now)


def spent_too_much(spent: float, limits: Limits, now: datetime) -> Exceeded | None:
    """Whether the group's day is over. Waiting for midnight is nothing an agent should do."""
    most = limits.cost_per_day
    if most is None or spent < most:
        return None
    midnight = datetime.combine(now.date() + timedelta(days=1), datetime.min.time(), UTC)
    text = f"the group has used up its {most:g} dollars of today; the day ends at midnight UTC, or raise costPerDay"
    return Exceeded("cost", text, _seconds((midnight - now).total_seconds()), worth_waiting=False)


def _below(window: _Window, most: int) -> float:
    """When the tokens were used whose end brings the window below `most`."""
    left = window.sum
    for moment, tokens in window.tokens:
        left -= tokens
        if left < most:
            return moment
    return window.tokens[-1][0]


def _seconds(delay: float) -> int:
    return max(1, math.ceil(delay))
