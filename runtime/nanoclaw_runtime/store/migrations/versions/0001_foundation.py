"""Messages, sessions, outputs, events and what is known about a group."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the first tables."""
    op.create_table(
        "sessions",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("folder", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("created", sa.DateTime, nullable=False),
        sa.Column("started", sa.DateTime),
        sa.Column("ended", sa.DateTime),
        sa.Column("last_output", sa.DateTime),
        sa.Column("outputs", sa.Integer, nullable=False),
        sa.Column("failure_kind", sa.String(32)),
        sa.Column("detail", sa.Text),
    )
    op.create_index("ix_sessions_state", "sessions", ["state"])
    op.create_index("ix_sessions_folder_created", "sessions", ["folder", "created"])
    op.create_table(
        "events",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("folder", sa.String(64), nullable=False),
        sa.Column("type", sa.String(32), nullable=False),
        sa.Column("payload", sa.JSON, nullable=False),
        sa.Column("created", sa.DateTime, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_events_folder_id", "events", ["folder", "id"])
    op.create_table(
        "messages",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("folder", sa.String(64), nullable=False),
        sa.Column("client_id", sa.String(128)),
        sa.Column("sender", sa.Text, nullable=False),
        sa.Column("sender_name", sa.Text, nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("created", sa.DateTime, nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("session", sa.String(64), sa.ForeignKey("sessions.id")),
        sa.Column("turn", sa.Integer),
        sa.Column("event", sa.Integer, sa.ForeignKey("events.id"), nullable=False),
        sa.UniqueConstraint("folder", "client_id", name="uq_messages_folder_client_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_messages_state_folder", "messages", ["state", "folder"])
    op.create_index("ix_messages_session", "messages", ["session"])
    op.create_table(
        "outputs",
        sa.Column("session", sa.String(64), sa.ForeignKey("sessions.id"), primary_key=True),
        sa.Column("ordinal", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("text", sa.Text),
        sa.Column("created", sa.DateTime, nullable=False),
    )
    op.create_table(
        "groups_state",
        sa.Column("folder", sa.String(64), primary_key=True),
        sa.Column("agent_session", sa.Text),
    )
