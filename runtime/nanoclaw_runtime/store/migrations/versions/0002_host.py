"""Tasks and their runs, the outbox, chats, groups added at run time, agents' requests, generations."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the tables of a whole host."""
    op.add_column("sessions", sa.Column("generation", sa.Integer, nullable=False, server_default="0"))
    op.add_column("sessions", sa.Column("task", sa.String(64)))
    op.add_column("groups_state", sa.Column("generation", sa.Integer, nullable=False, server_default="0"))
    op.create_table(
        "tasks",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("folder", sa.String(64), nullable=False),
        sa.Column("jid", sa.String(255), nullable=False),
        sa.Column("prompt", sa.Text, nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("context", sa.String(32), nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("next_run", sa.DateTime),
        sa.Column("last_run", sa.DateTime),
        sa.Column("last_result", sa.Text),
        sa.Column("created", sa.DateTime, nullable=False),
    )
    op.create_index("ix_tasks_state_next_run", "tasks", ["state", "next_run"])
    op.create_index("ix_tasks_folder", "tasks", ["folder"])
    op.create_table(
        "task_runs",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("task", sa.String(64), sa.ForeignKey("tasks.id"), nullable=False),
        sa.Column("started", sa.DateTime, nullable=False),
        sa.Column("seconds", sa.Float, nullable=False),
        sa.Column("outcome", sa.String(32), nullable=False),
        sa.Column("result", sa.Text),
        sa.Column("error", sa.Text),
        sa.Column("session", sa.String(64)),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_task_runs_task", "task_runs", ["task", "id"])
    op.create_table(
        "outbox",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("jid", sa.String(255), nullable=False),
        sa.Column("folder", sa.String(64), nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("sender", sa.String(200)),
        sa.Column("origin", sa.String(300), nullable=False, unique=True),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("parts", sa.Integer, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("next_attempt", sa.DateTime, nullable=False),
        sa.Column("created", sa.DateTime, nullable=False),
        sa.Column("sent", sa.DateTime),
        sa.Column("error", sa.Text),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_outbox_state_jid", "outbox", ["state", "jid", "id"])
    op.create_table(
        "chats",
        sa.Column("jid", sa.String(255), primary_key=True),
        sa.Column("name", sa.Text),
        sa.Column("channel", sa.String(32)),
        sa.Column("is_group", sa.Boolean, nullable=False),
        sa.Column("last_activity", sa.DateTime, nullable=False),
    )
    op.create_table(
        "registrations",
        sa.Column("folder", sa.String(64), primary_key=True),
        sa.Column("jid", sa.String(255), nullable=False, unique=True),
        sa.Column("spec", sa.JSON, nullable=False),
        sa.Column("added", sa.DateTime, nullable=False),
        sa.Column("added_by", sa.String(64), nullable=False),
    )
    op.create_table(
        "requests",
        sa.Column("key", sa.String(128), primary_key=True),
        sa.Column("done", sa.DateTime, nullable=False),
    )
    op.create_index("ix_requests_done", "requests", ["done"])
