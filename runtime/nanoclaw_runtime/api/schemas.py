"""The JSON of the API, camelCase. The command line reads its answers with the same models."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from nanoclaw_runtime.contract.config import Priority
from nanoclaw_runtime.controller.status import (
    Check,
    GroupState,
    GroupStatus,
    Origin,
    SessionState,
    SessionStatus,
    Warmth,
)
from nanoclaw_runtime.controller.view import Accepted
from nanoclaw_runtime.domain.model import SessionKind
from nanoclaw_runtime.store.records import Event, EventType, Message, MessageState

TOKEN_HEADER: Final = "X-Nanoclaw-Token"  # noqa: S105
"""For callers behind the API server's service proxy, which keeps `Authorization` for itself."""


def _sayable(text: str) -> str:
    if not text.strip():
        raise ValueError("is blank")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("has half of a surrogate pair, which is no character") from None
    return text


Text = Annotated[str, AfterValidator(_sayable), Field(json_schema_extra={"pattern": r"\S"})]


class Body(BaseModel):
    """Sent by clients: a field we do not know is a mistake, not a wish for later."""

    model_config = ConfigDict(alias_generator=to_camel, frozen=True, extra="forbid", strict=True)


class Answer(BaseModel):
    """Sent to clients; they ignore fields that newer controllers add."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, from_attributes=True)


class NewMessage(Body):
    """A message for a group's agent."""

    text: Text
    sender: Annotated[Text, Field(max_length=255)] = "api"
    """Who wrote it, as an address."""
    sender_name: Annotated[Text, Field(max_length=200)] | None = None
    """Who wrote it, as the agent is told; `sender` when it is left out."""
    id: Annotated[Text, Field(max_length=128)] | None = None
    """The client's own id. Posting the same id again stores nothing and answers with the first message."""


class GroupView(Answer):
    folder: str
    name: str
    jid: str
    is_main: bool
    state: GroupState
    session: str | None
    waiting_messages: int
    queue_position: int | None
    last_activity: datetime | None
    estimated_wait: float | None = None
    """Seconds until it probably gets a place, while it waits for one."""
    origin: Origin = Origin.DECLARED
    priority: Priority = Priority.NORMAL
    warm: Warmth = Warmth.NONE
    """Whether its next session finds an agent that was started before its message."""
    node: str | None = None
    """In lists, the node that has it, where each node has a controller of its own."""

    @classmethod
    def of(cls, status: GroupStatus) -> Self:
        return cls.model_validate(status)


class MissingPart(Answer):
    """A node whose controller did not answer: what it has is not in the list."""

    node: str
    reason: str


class GroupList(Answer):
    groups: list[GroupView]
    missing: list[MissingPart] = []
    """Nodes whose groups are not in it."""


class SessionView(Answer):
    session: str
    folder: str
    kind: SessionKind
    state: SessionState
    started: datetime
    outputs: int
    last_output: datetime | None

    @classmethod
    def of(cls, status: SessionStatus) -> Self:
        return cls.model_validate(status)


class SessionList(Answer):
    sessions: list[SessionView]


class MessageView(Answer):
    id: int
    folder: str
    client_id: str | None
    sender: str
    sender_name: str
    text: str
    created: datetime
    state: MessageState
    session: str | None
    event: int
    """Follow the events behind this id to see everything about the message."""

    @classmethod
    def of(cls, message: Message) -> Self:
        return cls(
            id=message.id,
            folder=message.folder,
            client_id=message.client_id,
            sender=message.sender,
            sender_name=message.sender_name,
            text=message.content,
            created=message.created,
            state=message.state,
            session=message.session,
            event=message.event,
        )


class MessageList(Answer):
    messages: list[MessageView]


class AcceptedView(Answer):
    """The answer to a message that is committed."""

    id: int
    state: MessageState
    event: int
    created: bool
    """False when the client's id was known."""
    group: GroupView
    trigger: str | None = None
    """When set, the message does not begin with it and is only context for the next one that does."""

    @classmethod
    def of(cls, accepted: Accepted) -> Self:
        message = accepted.message
        return cls(
            id=message.id,
            state=message.state,
            event=message.event,
            created=accepted.created,
            group=GroupView.of(accepted.status),
            trigger=accepted.trigger,
        )


class EventView(Answer):
    """The data of one event of the stream; `payload` depends on the type (`store.records.EventType`)."""

    id: int
    group: str
    type: EventType
    created: datetime
    payload: dict[str, Any]

    @classmethod
    def of(cls, event: Event) -> Self:
        return cls(id=event.id, group=event.folder, type=event.type, created=event.created, payload=event.payload)


class CheckView(Answer):
    name: str
    ok: bool
    detail: str


class Readiness(Answer):
    ready: bool
    checks: list[CheckView]

    @classmethod
    def of(cls, checks: list[Check]) -> Self:
        return cls(
            ready=all(check.ok for check in checks), checks=[CheckView.model_validate(check) for check in checks]
        )


class FieldProblem(Answer):
    field: str
    problem: str
    remedy: str


class Problem(Answer):
    """An RFC 9457 problem document: every answer of status 400 or above."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[FieldProblem] | None = None
    """The fields of the request that are wrong."""
