"""What a scheduled task is: the words of NanoClaw's requests and of its database.

When a task runs next is `recurrence`; which session runs it is `schedule`.
"""

from __future__ import annotations

from enum import StrEnum


class TaskKind(StrEnum):
    """How `value` is read; NanoClaw's `schedule_type`."""

    CRON = "cron"
    INTERVAL = "interval"
    """Milliseconds, counted from the end of the last run."""
    ONCE = "once"
    """A moment in ISO format; without an offset it is meant in the installation's time zone."""


class TaskContext(StrEnum):
    GROUP = "group"
    """The run resumes the group's conversation."""
    ISOLATED = "isolated"
    """The run begins a conversation of its own."""


class TaskState(StrEnum):
    ACTIVE = "active"
    PAUSED = "paused"
    COMPLETED = "completed"
    """It ran once and was to run once."""


class RunOutcome(StrEnum):
    SUCCESS = "success"
    ERROR = "error"
