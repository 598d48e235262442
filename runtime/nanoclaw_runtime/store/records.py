"""What the store hands out: frozen rows. It keeps no reference to them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from nanoclaw_runtime.domain.errors import FailureKind
from nanoclaw_runtime.domain.model import SessionKind, SessionRef
from nanoclaw_runtime.domain.tasks import RunOutcome, TaskContext, TaskKind, TaskState


class MessageState(StrEnum):
    WAITING = "waiting"
    GIVEN = "given"
    """Belongs to a turn of an open session that has not answered it yet."""
    DONE = "done"
    FAILED = "failed"
    """Given up after the last retry; the chat was told."""


class RecordedState(StrEnum):
    STARTING = "starting"
    RUNNING = "running"
    ENDED = "ended"
    FAILED = "failed"


OPEN_STATES = (RecordedState.STARTING, RecordedState.RUNNING)

FIRST_TURN = 0
"""The turn of the messages a session began with; follow-ups count on from it."""


class EventType(StrEnum):
    """What clients see. Every payload names the messages it is about by their ids."""

    MESSAGE = "message"
    """A message was accepted: message, sender, senderName, text."""
    ANSWER = "answer"
    """An agent said something: session, ordinal, text, messages (those it finishes, maybe none)."""
    DONE = "done"
    """A turn is over without a text for the chat: session (null for a turn on another host), messages."""
    SESSION = "session"
    """A session is running, ended or failed: session, kind, state; a failed one also failure, text."""
    FAILURE = "failure"
    """Messages were given up: messages, text. Or none of them, and a text did not reach its chat: also post."""
    TELL = "tell"
    """An agent said something by itself: from (its group, maybe another), sender (a name it chose, or null), text."""
    IMPORTED = "imported"
    """History, tasks or a conversation came in from another host: import (the same for all groups of one import)."""


@dataclass(frozen=True)
class Message:
    id: int
    folder: str
    client_id: str | None
    """The sender's own id; posting it again gives this message instead of a second one."""
    sender: str
    sender_name: str
    content: str
    created: datetime
    state: MessageState
    session: str | None
    turn: int | None
    event: int
    """Id of the `message` event: whoever resumes the events behind it misses nothing about this message."""


@dataclass(frozen=True)
class SessionRecord:
    """A session as it was recorded, alive or not."""

    id: str
    folder: str
    kind: SessionKind
    state: RecordedState
    created: datetime
    started: datetime | None
    """When its agent had the whole input."""
    ended: datetime | None
    last_output: datetime | None
    outputs: int
    failure_kind: FailureKind | None
    detail: str | None
    """The operator's sentence about the failure."""
    generation: int
    """Counts the sessions of a group from 1: of two sessions the larger one is the one that counts."""
    task: str | None
    """The task it runs, for a session of that kind."""

    @property
    def ref(self) -> SessionRef:
        return SessionRef(self.folder, self.id, self.kind)


@dataclass(frozen=True)
class Event:
    id: int
    folder: str
    type: EventType
    payload: dict[str, Any]
    created: datetime


class PostState(StrEnum):
    WAITING = "waiting"
    SENT = "sent"
    FAILED = "failed"
    """Refused for good by the chat network, or not taken within the last try."""


@dataclass(frozen=True)
class Task:
    """A prompt that is run by itself."""

    id: str
    folder: str
    jid: str
    """The chat its answers go to."""
    prompt: str
    kind: TaskKind
    value: str
    context: TaskContext
    state: TaskState
    next_run: datetime | None
    """None when it never runs again by itself."""
    last_run: datetime | None
    last_result: str | None
    created: datetime


@dataclass(frozen=True)
class TaskRun:
    """One line of a task's log."""

    id: int
    task: str
    started: datetime
    seconds: float
    outcome: RunOutcome
    result: str | None
    error: str | None
    session: str | None


@dataclass(frozen=True)
class Post:
    """A text on its way to a chat network; it stays until the network has taken it."""

    id: int
    jid: str
    folder: str
    """The group it comes from."""
    text: str
    sender: str | None
    """A name other than the assistant's, where an agent asked for one."""
    origin: str
    """What it was made from, once for ever: `output:<session>:<ordinal>`, say."""
    state: PostState
    parts: int
    """How many pieces of the text the network has taken; a long one goes in several."""
    attempts: int
    """Tries that failed since a piece was last taken."""
    next_attempt: datetime
    created: datetime
    sent: datetime | None
    error: str | None


@dataclass(frozen=True)
class Chat:
    """A chat some network told us about, registered or not."""

    jid: str
    name: str | None
    channel: str | None
    is_group: bool
    last_activity: datetime


@dataclass(frozen=True)
class Registration:
    """A group that was added while the controller ran, beside those of the stack."""

    folder: str
    jid: str
    spec: dict[str, Any]
    """The group as `contract.config.GroupSpec` writes it."""
    added: datetime
    added_by: str
    """Folder of the agent that asked, or `api`."""
