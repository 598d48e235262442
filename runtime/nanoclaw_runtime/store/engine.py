"""The connection to the database: one for SQLite, which one process owns completely.

Everything that only SQLite understands is in this module. WAL with an exclusive lock needs no
shared memory file, so the database may lie on a network volume; the lock also keeps a second
controller out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from nanoclaw_runtime.domain.errors import StoreFailed

LOCK_TIMEOUT: Final = "10"
# Seconds a new controller waits for its predecessor's lock, unless the URL says `?timeout=`.

PRAGMAS: Final = (
    "locking_mode = EXCLUSIVE",  # before WAL is touched: then no -shm file is made
    "journal_mode = WAL",
    "synchronous = FULL",  # an acknowledged message survives a power cut
    "foreign_keys = ON",
)


def create_engine(url: sa.URL) -> AsyncEngine:
    """An engine that has not connected yet; its errors do not quote what is in the rows.

    Raises ArgumentError or ImportError for an URL nobody serves, StoreFailed for a missing folder.
    """
    if url.get_backend_name() != "sqlite":
        return create_async_engine(url, hide_parameters=True)
    folder = Path(url.database or "").parent
    if not folder.is_dir():
        raise StoreFailed(f"there is no folder {folder} for the database; mount the store volume there")
    if "timeout" not in url.query:
        url = url.update_query_dict({"timeout": LOCK_TIMEOUT})
    engine = create_async_engine(url, pool_size=1, max_overflow=0, hide_parameters=True)
    sa.event.listen(engine.sync_engine, "connect", _prepare)
    sa.event.listen(engine.sync_engine, "begin", _begin)
    return engine


def _prepare(connection: Any, _entry: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # the driver would begin transactions late, and none for DDL
    cursor = connection.cursor()
    for pragma in PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
