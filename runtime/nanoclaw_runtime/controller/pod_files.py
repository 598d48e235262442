"""The files of groups that only pods of agents mount: reached through one of them, which is had where there is none.

A live session's pod is asked, or the group's parked agent's; without either one is parked for this, whatever the budget
for parked agents, and kept for a little while. It is a parked agent like any other: the group's next session may take
it, and it goes by the usual rules. Not here: how a pod is asked (`bridge`), whether something may change (`transfer`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from typing import Final, Protocol

from nanoclaw_runtime.controller.parked_agent import ParkedAgent
from nanoclaw_runtime.controller.parking import Parking
from nanoclaw_runtime.controller.status import SessionState, SessionStatus
from nanoclaw_runtime.domain.errors import Diagnosis, FailureKind, FilesAway, TransferRefused
from nanoclaw_runtime.domain.transfer import Area, FileList, FilesTaken

WAIT: Final = 8.0
"""Seconds of one request until its sender is told to come again: clients wait thirty for an answer."""
LOOK: Final = 0.1
"""Seconds between two looks for the pod."""

_HOPELESS: Final = frozenset({FailureKind.IMAGE, FailureKind.REFUSED, FailureKind.QUOTA})


class Errand(Protocol):
    """One thing done by a group's pod. Everything raises TransferRefused, and OSError when the pod is lost."""

    async def listing(self, area: Area) -> FileList: ...

    def pieces(self, area: Area) -> AsyncGenerator[bytes]:
        """The area as a tar stream."""
        ...

    async def take(self, area: Area, chunks: AsyncIterator[bytes]) -> FilesTaken:
        """Put the files of a tar stream in place, all or none."""
        ...

    async def remove(self, area: Area, paths: list[str]) -> int:
        """How many of the files were there."""
        ...


class Reach(Protocol):
    """The way to pods."""

    def reaches(self, folder: str) -> bool:
        """Whether a pod of the group can be asked."""
        ...

    def errand(self, folder: str) -> contextlib.AbstractAsyncContextManager[Errand]:
        """Send that pod for something. Raises OSError when there is none, or it does not come."""
        ...


Why = Callable[[str, str], Awaitable[Diagnosis | None]]
"""Why the pod of a group and a session is not ready, as far as that can be told."""


async def nothing_known(_folder: str, _session: str) -> Diagnosis | None:
    """Nobody can tell."""
    return None


class PodFiles:
    """The files of groups, through their pods. Everything raises FilesAway, TransferRefused and GroupUnknown."""

    def __init__(
        self,
        reach: Reach,
        parking: Parking,
        sessions: Callable[[], Sequence[SessionStatus]],
        why: Why,
    ) -> None:
        self._reach, self._parking, self._sessions, self._why = reach, parking, sessions, why

    async def listing(self, folder: str, area: Area) -> FileList:
        async with self._errand(folder) as errand:
            return await errand.listing(area)

    async def give(self, folder: str, area: Area) -> AsyncGenerator[bytes]:
        """The area as a tar stream; refusals come before its first piece."""
        stream = self._given(folder, area)
        first = await anext(stream, b"")
        return _behind(first, stream)

    async def take(self, folder: str, area: Area, chunks: AsyncIterator[bytes]) -> FilesTaken:
        """Put the files of a tar stream in place, all or none. Only while no session of the group can begin."""
        async with self._errand(folder, changing=True) as errand:
            return await errand.take(area, chunks)

    async def remove(self, folder: str, area: Area, paths: Sequence[str]) -> int:
        """How many of the files were there. Only while no session of the group can begin."""
        async with self._errand(folder, changing=True) as errand:
            return await errand.remove(area, list(paths))

    async def _given(self, folder: str, area: Area) -> AsyncGenerator[bytes]:
        async with self._errand(folder) as errand, contextlib.aclosing(errand.pieces(area)) as pieces:
            async for piece in pieces:
                yield piece

    @contextlib.asynccontextmanager
    async def _errand(self, folder: str, *, changing: bool = False) -> AsyncIterator[Errand]:
        with self._parking.reservations.lent(folder):
            await self._reached(folder)
            try:
                async with self._reach.errand(folder) as errand:
                    yield errand
            except (OSError, asyncio.CancelledError) as error:
                if changing:
                    self._parking.discard(folder)  # it may still be at work, and no session begins in it then
                if isinstance(error, OSError):
                    raise FilesAway(folder, f"the pod that was asked is lost ({error})") from error
                raise

    async def _reached(self, folder: str) -> None:
        """Return when a pod of the group can be asked."""
        until = asyncio.get_running_loop().time() + WAIT
        asked: ParkedAgent | None = None
        while not self._reach.reaches(folder):
            session = self._session(folder)
            if asked is not None and asked.failed is not None:
                raise _not_had(folder, asked.failed)
            if session is None and (asked is None or asked.over):
                asked = self._parking.wanted(folder)
            if asyncio.get_running_loop().time() > until:
                raise await self._lateness(folder, session, asked)
            await asyncio.sleep(LOOK)

    def _session(self, folder: str) -> SessionStatus | None:
        return next((session for session in self._sessions() if session.folder == folder), None)

    async def _lateness(
        self, folder: str, session: SessionStatus | None, parked: ParkedAgent | None
    ) -> FilesAway | TransferRefused:
        if session is not None and session.state is not SessionState.STARTING:
            return TransferRefused(
                f"the pod of session {session.session} does not answer, or began before group {folder!r} was reached "
                f"this way; end it with `nanoclaw sessions stop {session.session}` and repeat this"
            )
        pod = session or parked
        why = await self._why(folder, pod.session) if pod else None
        if why is None:
            return FilesAway(folder, "a pod of it is being started")
        if why.kind in _HOPELESS and not (why.kind is FailureKind.QUOTA and await self._parking.make_room(folder)):
            return _not_had(folder, why.operator)
        if why.kind is FailureKind.UNSCHEDULABLE:
            await self._parking.make_room(folder)
        return FilesAway(folder, why.operator)


def _not_had(folder: str, why: str) -> TransferRefused:
    return TransferRefused(f"no pod of group {folder!r} can be had to reach its files: {why}")


async def _behind(first: bytes, stream: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    async with contextlib.aclosing(stream):
        yield first
        async for piece in stream:
            yield piece
