"""What groups used on each day, on disk, so that a day's budget outlives the process.

One row a day, group and model. Sums of a day are in memory, too: whether a group may call never
waits for a disk. A row is written when a call is over; a crash before that loses that call's count.
Other days than the last `KEPT` are dropped at the start.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Final, Self

import structlog

from nanoclaw_runtime.contract.gateway import UsedView
from nanoclaw_runtime.domain.errors import StoreFailed
from nanoclaw_runtime.gateway.usage import Usage

KEPT: Final = timedelta(days=400)

_PRAGMAS: Final = (
    "locking_mode = EXCLUSIVE",  # before WAL is touched: then no -shm file is made, which a network volume may not have
    "journal_mode = WAL",
    "synchronous = NORMAL",  # a power cut may take the last counts, never the file
)
_TABLE: Final = """
CREATE TABLE IF NOT EXISTS usage (
    day TEXT NOT NULL, folder TEXT NOT NULL, model TEXT NOT NULL,
    calls INTEGER NOT NULL, input INTEGER NOT NULL, output INTEGER NOT NULL,
    cache_write INTEGER NOT NULL, cache_read INTEGER NOT NULL, dollars REAL NOT NULL,
    PRIMARY KEY (day, folder, model)
) WITHOUT ROWID
"""
_ADD: Final = """
INSERT INTO usage VALUES (?, ?, ?, 1, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET
    calls = calls + 1, input = input + excluded.input, output = output + excluded.output,
    cache_write = cache_write + excluded.cache_write, cache_read = cache_read + excluded.cache_read,
    dollars = dollars + excluded.dollars
"""
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Entry:
    """One call that is over."""

    day: date
    folder: str
    model: str
    """Empty when the answer named none: a refusal, a count of tokens, a list of models."""
    usage: Usage
    dollars: float


class Ledger:
    """The only writer of its file. `close` returns when everything is on disk."""

    def __init__(self, connection: sqlite3.Connection, today: date, on_error: Callable[[], object]) -> None:
        self._connection, self._on_error = connection, on_error
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="usage")
        self._spent: defaultdict[tuple[str, str], float] = defaultdict(float)
        # By day, and of days to come, too: a clock that is set back must not begin a day anew.
        rows = connection.execute(
            "SELECT day, folder, SUM(dollars) FROM usage WHERE day >= ? GROUP BY 1, 2", [str(today - timedelta(days=1))]
        )
        self._spent.update({(day, folder): dollars for day, folder, dollars in rows})

    @classmethod
    def open(cls, file: Path, today: date, *, on_error: Callable[[], object]) -> Self:
        """`on_error` is called for each write that fails. Raises StoreFailed when the file cannot be used."""
        try:
            connection = sqlite3.connect(file, timeout=10, isolation_level=None, check_same_thread=False)
            for pragma in _PRAGMAS:
                connection.execute(f"PRAGMA {pragma}")
            connection.execute(_TABLE)
            connection.execute("DELETE FROM usage WHERE day < ?", [str(today - KEPT)])
            return cls(connection, today, on_error)
        except sqlite3.Error as error:
            raise StoreFailed(
                f"the usage of groups cannot be kept in {file} ({error}); check the gateway's claim"
            ) from error

    def spent(self, folder: str, today: date) -> float:
        """US dollars of the group's calls that are over."""
        return self._spent.get((str(today), folder), 0.0)

    def add(self, entry: Entry) -> None:
        """Counted at once, written soon. One that cannot be written is told in the log, and counts until we end."""
        self._spent[str(entry.day), entry.folder] += entry.dollars
        self._writer.submit(self._write, entry).add_done_callback(self._written)

    async def since(self, day: date) -> list[UsedView]:
        """Everything of that day and later, the newest first."""
        return await asyncio.wrap_future(self._writer.submit(self._read, day))

    def close(self) -> None:
        self._writer.shutdown(wait=True)
        self._connection.close()

    def _write(self, entry: Entry) -> None:
        usage = entry.usage
        row = (
            str(entry.day),
            entry.folder,
            entry.model,
            usage.input,
            usage.output,
            usage.cache_write,
            usage.cache_read,
        )
        self._connection.execute(_ADD, [*row, entry.dollars])

    def _read(self, day: date) -> list[UsedView]:
        columns = ("day", "group", "model", "calls", "input", "output", "cache_write", "cache_read", "dollars")
        rows = self._connection.execute(
            "SELECT * FROM usage WHERE day >= ? ORDER BY day DESC, folder, model", [str(day)]
        )
        return [UsedView.model_validate(dict(zip(columns, row, strict=True))) for row in rows]

    def _written(self, done: Future[None]) -> None:
        error = done.exception()
        if error is not None:
            self._on_error()
            _log.error("usage not written", error=str(error))
