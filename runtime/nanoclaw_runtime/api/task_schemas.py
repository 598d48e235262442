"""The JSON of scheduled tasks. The command line reads its answers with the same models."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import Field

from nanoclaw_runtime.api.schemas import Answer, Body, Text
from nanoclaw_runtime.domain.recurrence import LENGTH
from nanoclaw_runtime.domain.tasks import RunOutcome, TaskContext, TaskKind, TaskState
from nanoclaw_runtime.store.records import Task, TaskRun

Kind = Annotated[TaskKind, Field(strict=False)]
Context = Annotated[TaskContext, Field(strict=False)]
Value = Annotated[Text, Field(max_length=LENGTH)]


class NewTask(Body):
    """A prompt to be run by itself."""

    prompt: Text
    kind: Kind
    value: Value
    """A cron expression, milliseconds from run to run, or a moment in ISO format, as `kind` says."""
    context: Context = TaskContext.GROUP
    """Whether its runs resume the group's conversation or begin one of their own."""


class TaskChange(Body):
    """What is to be different; the rest stays."""

    state: Literal["active", "paused"] | None = None
    prompt: Text | None = None
    kind: Kind | None = None
    value: Value | None = None
    """With `kind` a new schedule, which begins at once."""


class TaskView(Answer):
    id: str
    folder: str
    jid: str
    prompt: str
    kind: TaskKind
    value: str
    context: TaskContext
    state: TaskState
    next_run: datetime | None
    last_run: datetime | None
    last_result: str | None
    created: datetime

    @classmethod
    def of(cls, task: Task) -> Self:
        return cls.model_validate(task)


class TaskList(Answer):
    tasks: list[TaskView]


class TaskRunView(Answer):
    id: int
    started: datetime
    seconds: float
    outcome: RunOutcome
    result: str | None
    error: str | None
    session: str | None

    @classmethod
    def of(cls, run: TaskRun) -> Self:
        return cls.model_validate(run)


class TaskRunList(Answer):
    runs: list[TaskRunView]
    """The newest first."""
