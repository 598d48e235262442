"""How long a session lives: idle, closing, silent, and what an output means for its turn.

The rules are NanoClaw's: the idle time runs from the last answer, the silence limit from the
last sign of life of either side. Both are asked again whenever something happened.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from nanoclaw_runtime.contract.config import ControllerConfig
from nanoclaw_runtime.contract.wire import ContainerOutput, OutputStatus
from nanoclaw_runtime.domain.model import SessionKind

TASK_CLOSE: Final = 10.0
"""Seconds from a task's last answer to its agent being asked to end."""


class Verdict(StrEnum):
    WAIT = "wait"
    CLOSE = "close"
    """Ask the agent to end: it has been idle for long enough."""
    END_CLOSED = "end-closed"
    """End it: it was asked to and did not."""
    END_SILENT = "end-silent"
    """End it: nothing was heard of it for longer than the silence limit."""


@dataclass(frozen=True)
class Moments:
    """What happened when, in seconds of one clock."""

    active: float
    """Something was last said, by either side."""
    answered: float | None = None
    """The agent last answered, or was given something after its first answer. None before that: an
    agent that has not answered may not yet be looking for a `_close`."""
    closed: float | None = None
    """It was asked to end."""
    open_turns: int = 0
    """Turns it was given and has not answered."""
    until: float | None = None
    """It cannot be told anything any more: it ends when its turns are answered, or then."""
    stopping: bool = False
    """An operator wants it gone: turns in flight get no more than the grace."""


@dataclass(frozen=True)
class Limits:
    """Seconds."""

    idle: float
    silence: float
    grace: float

    @classmethod
    def of(cls, config: ControllerConfig, kind: SessionKind, timeout: float | None = None) -> Limits:
        """The limits of a session; `timeout` is the group's own silence limit, never below idle time and half a minute.

        A task's session has nothing to wait for once it has answered: no follow-up comes.
        """
        silence = config.silence_limit if timeout is None else max(timeout, config.idle_timeout + 30)
        idle = TASK_CLOSE if kind is SessionKind.TASK else config.idle_timeout
        return cls(idle=idle, silence=silence, grace=config.close_grace)


def verdict(moments: Moments, limits: Limits, now: float) -> tuple[Verdict, float]:
    """What to do now; with WAIT, the moment at which to ask again if nothing happens before."""
    silent_at = moments.active + limits.silence
    if now >= silent_at:
        return Verdict.END_SILENT, now
    if moments.until is not None and not moments.stopping:
        over = not moments.open_turns or now >= moments.until
        return (Verdict.END_CLOSED, now) if over else (Verdict.WAIT, min(moments.until, silent_at))
    if moments.closed is not None:
        if moments.open_turns and not moments.stopping:
            return Verdict.WAIT, silent_at  # the turn in flight completes, as long as it takes
        since = moments.closed if moments.stopping else max(moments.closed, moments.active)
        end_at = since + limits.grace
        return (Verdict.END_CLOSED, now) if now >= end_at else (Verdict.WAIT, min(end_at, silent_at))
    if moments.answered is None:
        return Verdict.WAIT, silent_at
    idle_at = moments.answered + limits.idle
    return (Verdict.CLOSE, now) if now >= idle_at else (Verdict.WAIT, min(idle_at, silent_at))


def ends_turn(output: ContainerOutput) -> bool:
    """Whether this output means that the agent has dealt with what it was given.

    An agent that could not resume its conversation, or cannot write its home, also prints
    `success`, but with neither a result nor a session id: nobody has read the messages then.
    """
    return output.status is OutputStatus.SUCCESS and (output.result is not None or output.new_session_id is not None)
