"""The tables. A change here needs a new file in `migrations/versions`; a test compares both."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum

import sqlalchemy as sa
from sqlalchemy.engine.interfaces import Dialect

from nanoclaw_runtime.contract.wire import OutputStatus
from nanoclaw_runtime.domain.errors import FailureKind
from nanoclaw_runtime.domain.model import SessionKind
from nanoclaw_runtime.domain.tasks import RunOutcome, TaskContext, TaskKind, TaskState
from nanoclaw_runtime.store.records import EventType, MessageState, PostState, RecordedState


class UtcTime(sa.types.TypeDecorator[datetime]):
    """Aware times in, aware UTC times out; stored without a zone, so every database sorts them alike."""

    impl = sa.DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone; the store takes aware times only")
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        return None if value is None else value.replace(tzinfo=UTC)


def _values(kind: type[StrEnum]) -> list[str]:
    return [member.value for member in kind]


def word(kind: type[StrEnum]) -> sa.Enum:
    """A text column whose values are members of `kind`; unknown words in the database are an error."""
    return sa.Enum(kind, native_enum=False, values_callable=_values, length=32)


FOLDER = sa.String(64)
SESSION = sa.String(64)
TASK = sa.String(64)
JID = sa.String(255)

metadata = sa.MetaData()


sessions = sa.Table(
    "sessions",
    metadata,
    sa.Column("id", SESSION, primary_key=True),
    sa.Column("folder", FOLDER, nullable=False),
    sa.Column("kind", word(SessionKind), nullable=False),
    sa.Column("state", word(RecordedState), nullable=False),
    sa.Column("created", UtcTime, nullable=False),
    sa.Column("started", UtcTime),
    sa.Column("ended", UtcTime),
    sa.Column("last_output", UtcTime),
    sa.Column("outputs", sa.Integer, nullable=False),
    sa.Column("failure_kind", word(FailureKind)),
    sa.Column("detail", sa.Text),
    sa.Column("generation", sa.Integer, nullable=False, server_default="0"),
    sa.Column("task", TASK),
    sa.Index("ix_sessions_state", "state"),
    sa.Index("ix_sessions_folder_created", "folder", "created"),
)

messages = sa.Table(
    "messages",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("folder", FOLDER, nullable=False),
    sa.Column("client_id", sa.String(128)),
    sa.Column("sender", sa.Text, nullable=False),
    sa.Column("sender_name", sa.Text, nullable=False),
    sa.Column("content", sa.Text, nullable=False),
    sa.Column("created", UtcTime, nullable=False),
    sa.Column("state", word(MessageState), nullable=False),
    sa.Column("session", SESSION, sa.ForeignKey("sessions.id")),
    sa.Column("turn", sa.Integer),
    sa.Column("event", sa.Integer, sa.ForeignKey("events.id"), nullable=False),
    sa.UniqueConstraint("folder", "client_id", name="uq_messages_folder_client_id"),
    sa.Index("ix_messages_state_folder", "state", "folder"),
    sa.Index("ix_messages_session", "session"),
    sqlite_autoincrement=True,  # an id is never used twice
)

outputs = sa.Table(
    "outputs",
    metadata,
    sa.Column("session", SESSION, sa.ForeignKey("sessions.id"), primary_key=True),
    sa.Column("ordinal", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("status", word(OutputStatus), nullable=False),
    sa.Column("text", sa.Text),
    sa.Column("created", UtcTime, nullable=False),
)

events = sa.Table(
    "events",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("folder", FOLDER, nullable=False),
    sa.Column("type", word(EventType), nullable=False),
    sa.Column("payload", sa.JSON, nullable=False),
    sa.Column("created", UtcTime, nullable=False),
    sa.Index("ix_events_folder_id", "folder", "id"),
    sqlite_autoincrement=True,  # clients resume by it
)

groups_state = sa.Table(
    "groups_state",
    metadata,
    sa.Column("folder", FOLDER, primary_key=True),
    sa.Column("agent_session", sa.Text),
    sa.Column("generation", sa.Integer, nullable=False, server_default="0"),
)

tasks = sa.Table(
    "tasks",
    metadata,
    sa.Column("id", TASK, primary_key=True),
    sa.Column("folder", FOLDER, nullable=False),
    sa.Column("jid", JID, nullable=False),
    sa.Column("prompt", sa.Text, nullable=False),
    sa.Column("kind", word(TaskKind), nullable=False),
    sa.Column("value", sa.Text, nullable=False),
    sa.Column("context", word(TaskContext), nullable=False),
    sa.Column("state", word(TaskState), nullable=False),
    sa.Column("next_run", UtcTime),
    sa.Column("last_run", UtcTime),
    sa.Column("last_result", sa.Text),
    sa.Column("created", UtcTime, nullable=False),
    sa.Index("ix_tasks_state_next_run", "state", "next_run"),
    sa.Index("ix_tasks_folder", "folder"),
)

task_runs = sa.Table(
    "task_runs",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("task", TASK, sa.ForeignKey("tasks.id"), nullable=False),
    sa.Column("started", UtcTime, nullable=False),
    sa.Column("seconds", sa.Float, nullable=False),
    sa.Column("outcome", word(RunOutcome), nullable=False),
    sa.Column("result", sa.Text),
    sa.Column("error", sa.Text),
    sa.Column("session", SESSION),
    sa.Index("ix_task_runs_task", "task", "id"),
    sqlite_autoincrement=True,
)

outbox = sa.Table(
    "outbox",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("jid", JID, nullable=False),
    sa.Column("folder", FOLDER, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("sender", sa.String(200)),
    sa.Column("origin", sa.String(300), nullable=False, unique=True),
    sa.Column("state", word(PostState), nullable=False),
    sa.Column("parts", sa.Integer, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("next_attempt", UtcTime, nullable=False),
    sa.Column("created", UtcTime, nullable=False),
    sa.Column("sent", UtcTime),
    sa.Column("error", sa.Text),
    sa.Index("ix_outbox_state_jid", "state", "jid", "id"),
    sqlite_autoincrement=True,
)

chats = sa.Table(
    "chats",
    metadata,
    sa.Column("jid", JID, primary_key=True),
    sa.Column("name", sa.Text),
    sa.Column("channel", sa.String(32)),
    sa.Column("is_group", sa.Boolean, nullable=False),
    sa.Column("last_activity", UtcTime, nullable=False),
)

registrations = sa.Table(
    "registrations",
    metadata,
    sa.Column("folder", FOLDER, primary_key=True),
    sa.Column("jid", JID, nullable=False, unique=True),
    sa.Column("spec", sa.JSON, nullable=False),
    sa.Column("added", UtcTime, nullable=False),
    sa.Column("added_by", FOLDER, nullable=False),
)

requests = sa.Table(
    "requests",
    metadata,
    sa.Column("key", sa.String(128), primary_key=True),  # of a file an agent left: carried out, maybe not yet removed
    sa.Column("done", UtcTime, nullable=False),
    sa.Index("ix_requests_done", "done"),
)
