"""Groups that are needed for something else than their sessions: an import keeps these away, an export needs a pod.

A session that begins waits for an import that is under way, and no import begins beside it. A parked agent that is lent
is not dropped, and stays for a little while behind that: files come and go in many requests. Nothing of it is
remembered beyond the process.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Final

from nanoclaw_runtime.domain.errors import TransferRefused

LENT: Final = 45.0
"""Seconds for which a parked agent is kept behind its last use: a pod takes longer to start than a client to go on."""


class Reservations:
    """`now` gives seconds of any clock."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._beginning: set[str] = set()
        self._quiet: dict[str, asyncio.Event] = {}
        self._lent: Counter[str] = Counter()
        self._until: dict[str, float] = {}

    @contextlib.asynccontextmanager
    async def beginning(self, folder: str) -> AsyncIterator[None]:
        """A session of the group begins, as soon as no import is under way."""
        self._beginning.add(folder)  # no other begins behind it
        try:
            if (quiet := self._quiet.get(folder)) is not None:
                await quiet.wait()
            yield
        finally:
            self._beginning.discard(folder)

    @contextlib.contextmanager
    def quiet(self, folder: str) -> Iterator[None]:
        """While it is held no session of the group begins. Raises TransferRefused where one does, or it is held."""
        if folder in self._beginning:
            raise TransferRefused(
                f"an agent of group {folder!r} is just being started; `nanoclaw sessions` shows its session: end that, "
                "and repeat this"
            )
        if folder in self._quiet:
            raise TransferRefused(f"files of group {folder!r} are being changed already; repeat this when that is over")
        over = self._quiet[folder] = asyncio.Event()
        try:
            yield
        finally:
            del self._quiet[folder]
            over.set()

    @contextlib.contextmanager
    def lent(self, folder: str) -> Iterator[None]:
        """While it is held, and `LENT` seconds longer, the group's parked agent is needed."""
        self._lent[folder] += 1
        try:
            yield
        finally:
            self._lent[folder] -= 1
            self._until[folder] = self._now() + LENT

    def is_lent(self, folder: str) -> bool:
        """Whether its parked agent is not to be dropped for want of a use."""
        return self._lent[folder] > 0 or self._now() < self._until.get(folder, 0.0)
