"""The one way into the database: a transaction at a time, and a wake-up for who waits for events.

Transactions run one after the other, each to its end even when its caller is cancelled: the
caller then does not know whether it was committed, but half of it never is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from nanoclaw_runtime.domain.errors import StoreFailed

_Result = TypeVar("_Result")
Work = Callable[[sa.Connection], _Result]
"""What is done within one transaction: statements, and nothing that waits for anybody else."""


class Database:
    """Shared by all books of the store. `on_error` is called for every transaction the database refuses."""

    def __init__(self, engine: AsyncEngine, on_error: Callable[[], None]) -> None:
        self._engine = engine
        self._on_error = on_error
        self._turnstile = asyncio.Lock()
        self._closed = False
        self.added = asyncio.Event()
        """Set, and replaced by a fresh one, whenever a `publish` is over."""

    async def transaction(self, work: Work[_Result]) -> _Result:
        """Do `work` whole or not at all. Raises StoreFailed."""
        return await asyncio.shield(self._begun(work))

    async def publish(self, work: Work[_Result]) -> _Result:
        """The same for work that adds events: whoever follows them is woken, even if the caller is gone by then."""
        transaction = self._begun(work)
        caller = asyncio.shield(transaction)
        transaction.add_done_callback(self._announce)  # behind the shield's own: the caller goes on first
        return await caller

    async def close(self) -> None:
        """Wait for the transactions under way and let go of the database; later ones are refused."""
        async with self._turnstile:
            self._closed = True
            await self._engine.dispose()

    def _begun(self, work: Work[_Result]) -> asyncio.Task[_Result]:
        return asyncio.create_task(self._commit(work), name="store transaction")

    def _announce(self, _transaction: asyncio.Task[_Result]) -> None:
        added, self.added = self.added, asyncio.Event()
        added.set()

    async def _commit(self, work: Work[_Result]) -> _Result:
        async with self._turnstile:
            if self._closed:  # it would be opened again, and its lock kept from whoever has it next
                raise StoreFailed("the database is closed; this process is about to end")
            try:
                async with self._engine.begin() as connection:
                    return await connection.run_sync(work)
            except SQLAlchemyError as error:
                self._on_error()
                raise StoreFailed(_sentence(self._engine.url, error)) from error


def _sentence(url: sa.URL, error: SQLAlchemyError) -> str:
    cause = str(error.__cause__ or type(error).__name__)
    remedy = "check that its volume is mounted, writable and not full"
    if "locked" in cause:
        remedy = "another controller has it open: stop that one first"
    return f"the database {url.render_as_string(hide_password=True)} refused: {cause}; {remedy}"
