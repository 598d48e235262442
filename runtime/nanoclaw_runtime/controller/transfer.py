"""Taking in what a group had on another host, and giving out what it has here.

Nothing of a group changes while its agent works: files and records come in between two sessions,
and only the last portion lets an agent see what waits. Reading is always possible. What an import
brings is decided where it is planned (`domain.migration`); files are `ipc.archive`, and `pod_files`
where only pods mount them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import structlog

from nanoclaw_runtime.contract import layout
from nanoclaw_runtime.contract.config import ControllerConfig, GroupSpec
from nanoclaw_runtime.controller.pod_files import PodFiles
from nanoclaw_runtime.controller.reservations import Reservations
from nanoclaw_runtime.controller.status import SessionStatus
from nanoclaw_runtime.domain import project
from nanoclaw_runtime.domain.errors import FilesAway, GroupBusy, GroupUnknown, TransferRefused
from nanoclaw_runtime.domain.transfer import (
    GROUP_AREAS,
    Area,
    ChatBundle,
    FileList,
    FilesTaken,
    GroupFacts,
    Inventory,
    PastAnswer,
    PastChat,
    Portion,
    StoredMessage,
    Taken,
    TaskBundle,
    moves,
    not_logs,
)
from nanoclaw_runtime.ipc import archive, streams
from nanoclaw_runtime.store.transfer import TransferBook

STALLED: Final = 60.0
"""Seconds in which the sender of an archive has to send some of it: a session may wait for its end."""

_log = structlog.get_logger(__name__)


class Transfer:
    """The door for imports and exports.

    `groups` are those served now, `sessions` those alive, once those of earlier processes are `found`;
    `taken_in` is told of a group whose last portion came, so that its messages are answered and its tasks
    run. `pods` have the files of groups where they are not in `tree`.
    """

    def __init__(
        self,
        tree: Path,
        book: TransferBook,
        config: ControllerConfig,
        *,
        groups: Callable[[], Sequence[GroupSpec]],
        sessions: Callable[[], Sequence[SessionStatus]],
        found: Callable[[], bool],
        taken_in: Callable[[str], Awaitable[None]],
        reservations: Reservations,
        pods: PodFiles | None = None,
    ) -> None:
        self._tree, self._book, self._config = tree, book, config
        self._groups, self._sessions, self._found, self._taken_in = groups, sessions, found, taken_in
        self._reservations, self._pods = reservations, pods
        self._changed: set[Area] = set()
        """Those of no group that somebody changes now."""

    async def inventory(self) -> Inventory:
        conversations = await self._book.conversations()
        live = {session.folder: session.session for session in self._sessions()}
        return Inventory(
            registration=self._config.registration,
            assistant_name=self._config.assistant_name,
            timezone=self._config.timezone,
            groups=tuple(
                GroupFacts(spec=spec, conversation=conversations.get(spec.folder), session=live.get(spec.folder))
                for spec in sorted(self._groups(), key=lambda spec: spec.folder)
            ),
        )

    # Records

    async def messages(self, folder: str, *, after: int, limit: int) -> list[StoredMessage]:
        """Raises GroupUnknown."""
        return await self._book.messages(self._known(folder), after=after, limit=limit)

    async def answers(self, folder: str, *, after: int, limit: int) -> list[PastAnswer]:
        """Raises GroupUnknown."""
        return await self._book.answers(self._known(folder), after=after, limit=limit)

    async def tasks(self) -> TaskBundle:
        return await self._book.tasks()

    async def chats(self) -> list[PastChat]:
        return await self._book.chats()

    async def take_records(self, folder: str, portion: Portion) -> Taken:
        """Raises GroupUnknown, GroupBusy or TransferRefused; nothing was kept then."""
        self._free(folder)
        taken = await self._book.take_in(portion, folder, at=datetime.now(UTC))
        _log.info("records taken in", group=folder, messages=taken.messages, tasks=taken.tasks, runs=taken.runs)
        if portion.complete:
            await self._taken_in(folder)
        return taken

    async def take_chats(self, bundle: ChatBundle) -> int:
        return await self._book.take_chats(bundle.chats)

    # Files. Everything raises GroupUnknown; TransferRefused, and FilesAway, when they cannot be read.

    async def files(self, area: Area, folder: str | None = None) -> FileList:
        """What there is."""
        if (pods := self._pods_for(area)) is not None:
            return await pods.listing(self._known(folder), area)
        root, wanted = self._place(area, folder)
        try:
            return await asyncio.to_thread(archive.listing, root, wanted)
        except OSError as error:
            raise _unreadable(root, error) from error

    async def give_files(self, area: Area, folder: str | None = None) -> AsyncGenerator[bytes]:
        """The area as a tar stream; refusals come before its first piece."""
        if (pods := self._pods_for(area)) is not None:
            return await pods.give(self._known(folder), area)
        found = await self.files(area, folder)
        root, _ = self._place(area, folder)
        return streams.flowing(archive.pack(root, [file.path for file in found.files]))

    async def take_files(self, chunks: AsyncIterator[bytes], area: Area, folder: str | None = None) -> FilesTaken:
        """Put the files of a tar stream in place, all or none of them. Raises GroupBusy, too."""
        lively = streams.Lively(chunks, STALLED)
        with self._changing(area, folder):
            taken = await self._take(lively, area, folder)
        _log.info("files taken in", area=area.value, group=folder, files=taken.files, bytes=taken.bytes)
        return taken

    async def remove_files(self, paths: Sequence[str], area: Area, folder: str | None = None) -> int:
        """How many of the files were there. Raises GroupBusy, too."""
        with self._changing(area, folder):
            if (pods := self._pods_for(area)) is not None:
                return await pods.remove(self._known(folder), area, paths)
            root, _ = self._place(area, folder)
            return await asyncio.to_thread(archive.remove, root, paths)

    async def _take(self, chunks: AsyncIterator[bytes], area: Area, folder: str | None) -> FilesTaken:
        if (pods := self._pods_for(area)) is not None:
            return await pods.take(self._known(folder), area, chunks)
        root, wanted = self._place(area, folder)
        try:
            await asyncio.to_thread(root.mkdir, parents=True, exist_ok=True)
            return await streams.drained(chunks, lambda read: archive.unpack(root, read, wanted))
        except OSError as error:
            raise _unreadable(root, error) from error

    @contextlib.contextmanager
    def _changing(self, area: Area, folder: str | None) -> Iterator[None]:
        """While it is held nobody else changes it, and no session of the group begins."""
        with contextlib.ExitStack() as stack:
            if folder is not None:
                self._free(folder)
                stack.enter_context(self._reservations.quiet(folder))
            else:
                stack.enter_context(self._alone(area))
            yield

    @contextlib.contextmanager
    def _alone(self, area: Area) -> Iterator[None]:
        """An upload begins with removing what one before it left behind, which must not be one that goes on."""
        if area in self._changed:
            raise TransferRefused(f"the files of {area.value} are being changed already; repeat this when that is over")
        self._changed.add(area)
        try:
            yield
        finally:
            self._changed.discard(area)

    def _pods_for(self, area: Area) -> PodFiles | None:
        return self._pods if area in GROUP_AREAS else None

    def _place(self, area: Area, folder: str | None) -> tuple[Path, archive.Wanted]:
        match area:
            case Area.GROUP:
                return self._tree / layout.group_dir(self._known(folder)), moves(area)
            case Area.SESSIONS:
                return self._tree / layout.sessions_dir(self._known(folder)), moves(area)
            case Area.GLOBAL:
                return self._tree / layout.GLOBAL_DIR, not_logs
            case Area.PROJECT:
                return self._tree / layout.PROJECT_DIR, project.wanted

    def _known(self, folder: str | None) -> str:
        for spec in self._groups():
            if spec.folder == folder:
                return spec.folder
        raise GroupUnknown(folder or "")

    def _free(self, folder: str) -> None:
        self._known(folder)
        if not self._found():
            raise FilesAway(folder, "the controller began anew and still looks for agents that work")
        for session in self._sessions():
            if session.folder == folder:
                raise GroupBusy(folder, session.session)


def _unreadable(root: Path, error: OSError) -> TransferRefused:
    what = error.strerror or type(error).__name__
    return TransferRefused(
        f"{root} cannot be used ({what}); a group that was just added has its volumes after the controller's restart"
    )
