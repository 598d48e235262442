"""When agents are told anew of tasks and chats: before each session, and whenever either changed.

What is in the files, and how they are written, is `ipc.snapshots`.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import structlog

from nanoclaw_runtime.contract import names
from nanoclaw_runtime.contract.config import GroupSpec
from nanoclaw_runtime.ipc.snapshots import write_groups, write_tasks
from nanoclaw_runtime.store.chats import ChatBook
from nanoclaw_runtime.store.tasks import TaskBook

_log = structlog.get_logger(__name__)


class Snapshots:
    """The snapshot files of all groups. `groups` are those that are registered; `changed` is told whose are new."""

    def __init__(
        self,
        tree: Path,
        tasks: TaskBook,
        chats: ChatBook,
        groups: Callable[[], Sequence[GroupSpec]],
        *,
        changed: Callable[[str], None] = lambda _folder: None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._tree = tree
        self._tasks = tasks
        self._chats = chats
        self._groups = groups
        self._changed = changed
        self._now = now
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def write(self, folder: str) -> None:
        """Both files of a group, whose IPC folder is there. Raises OSError, StoreFailed."""
        await self.write_tasks(folder)
        await self.write_groups(folder)

    async def write_tasks(self, folder: str) -> None:
        """Raises OSError, StoreFailed."""
        async with self._turns[folder]:  # what was read first must not be written last
            tasks = await self._tasks.list(None if _sees_all(folder) else folder)
            await asyncio.to_thread(write_tasks, self._tree, folder, tasks)
        self._changed(folder)

    async def write_groups(self, folder: str) -> None:
        """Raises OSError, StoreFailed."""
        async with self._turns[folder]:
            registered = {group.jid for group in self._groups()}
            chats = await self._chats.list() if _sees_all(folder) else ()
            await asyncio.to_thread(write_groups, self._tree, folder, chats, registered, self._now())
        self._changed(folder)

    async def tasks_changed(self, folder: str) -> None:
        """Tell the group whose tasks they are, and main, which sees them all. Raises StoreFailed."""
        for told in sorted({folder, names.MAIN_FOLDER}):
            try:
                await self.write_tasks(told)
            except FileNotFoundError:
                pass  # no agent of it has run yet
            except OSError as error:
                _log.warning("tasks not told", group=told, error=str(error))

    async def refresh_groups(self) -> None:
        """Tell main which chats there are. Raises OSError, StoreFailed."""
        await self.write_groups(names.MAIN_FOLDER)


def _sees_all(folder: str) -> bool:
    """What another group may not see need not be read."""
    return folder == names.MAIN_FOLDER
