"""Brings a database to the tables this version knows, in one transaction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError

from nanoclaw_runtime.domain.errors import StoreFailed
from nanoclaw_runtime.store.schema import metadata

MIGRATIONS = Path(__file__).parent / "migrations"


def migrate(connection: sa.Connection) -> None:
    """Run the migrations that are missing; the caller commits. Raises StoreFailed for a newer database."""
    scripts = ScriptDirectory(MIGRATIONS)

    def missing(revision: tuple[str, ...], _context: MigrationContext) -> Any:
        # the call Alembic's documentation gives for running without an env.py
        return scripts._upgrade_revs("head", revision)  # type: ignore[arg-type]  # noqa: SLF001

    context = EnvironmentContext(Config(), scripts, fn=missing)
    with context:
        context.configure(connection=connection, target_metadata=metadata)
        try:
            context.run_migrations()
        except CommandError as error:
            raise StoreFailed(
                f"the database was written by another version of NanoClaw ({error}); run that version's image again"
            ) from error
