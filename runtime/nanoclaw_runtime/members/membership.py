"""What one member knows of itself and the others: which groups are its own, and where all others are.

Its own are those the record gives it, except that groups which may be given to others are put down
by a member that cannot be sure it still counts as alive. A group that comes is served once the host
has taken it up, one that goes is not served from the moment the record says so.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Final

import structlog

from nanoclaw_runtime.api.places import Place
from nanoclaw_runtime.contract.config import Groups, GroupSpec, NodelocalSettings
from nanoclaw_runtime.domain.assignment import Assignments, movable
from nanoclaw_runtime.domain.errors import NanoclawError
from nanoclaw_runtime.kube.errors import KubeError
from nanoclaw_runtime.members.holdings import Holdings
from nanoclaw_runtime.members.presence import Presence
from nanoclaw_runtime.members.record import Edition

LOOK: Final = 1.0
"""Seconds between two looks whether we still count as alive."""

_log = structlog.get_logger(__name__)


class Membership:
    """Of one member. `follow_groups` and `follow_record` feed it, `own` is what its host serves."""

    def __init__(
        self,
        node: str,
        settings: NodelocalSettings,
        presence: Presence,
        holdings: Holdings,
        read: Callable[[], Awaitable[Edition]],
    ) -> None:
        """`read` asks for the record as it is now."""
        self.node = node
        """See `Elsewhere`."""
        self._settings, self._presence, self._holdings, self._read = settings, presence, holdings, read
        self._declared: dict[str, GroupSpec] | None = None
        self._record: Assignments | None = None
        self._version = 0
        """Of the record: the watch may bring what was before the last look."""
        self._current = False
        """It was read since the others may last have counted us as gone, and given our groups away."""
        self._served: frozenset[str] = frozenset()
        self._held: frozenset[str] = frozenset()
        """What our host has, be it served or about to be put down."""
        self._changed = asyncio.Event()

    @property
    def declared(self) -> Sequence[GroupSpec]:
        """Every group of the stack, whoever has it."""
        return tuple((self._declared or {}).values())

    @property
    def complete(self) -> bool:
        """Whether there is anything to decide by yet."""
        return self._declared is not None

    async def follow_groups(self, groups: AsyncGenerator[Groups]) -> None:
        async with contextlib.aclosing(groups) as found:
            async for each in found:
                self._declared = {group.folder: group for group in each.groups}
                self._changed.set()

    async def follow_record(self, record: AsyncGenerator[Edition]) -> None:
        async with contextlib.aclosing(record) as found:
            async for each in found:
                if each.version < self._version:  # late, or from a cluster that was set back: look which
                    self._current = False
                else:
                    self._record, self._version = each.content, each.version
                self._changed.set()

    async def own(self) -> AsyncGenerator[Groups]:
        """The groups this member serves, at once and whenever they change; nothing before the record is known."""
        last: Groups | None = None
        while True:
            self._changed.clear()
            await self._catch_up()
            found = self._own()
            if found is not None and found != last:
                folders = frozenset(group.folder for group in found.groups)
                self._served &= folders
                self._held |= folders
                _log.info("own groups", node=self.node, groups=sorted(folders))
                await self._remember()
                yield found  # comes back when the host has taken them up
                self._served, self._held, last = folders, folders, found
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK):  # `wait_for` would swallow a cancellation that comes with a change
                    await self._changed.wait()

    async def _catch_up(self) -> None:
        """Behind a time in which we did not count as alive, see what became of our groups before taking them up."""
        if not self._presence.believed:
            self._current = False
            return
        while not self._current:
            known = self._version
            try:
                found = await self._read()
            except (KubeError, NanoclawError) as error:
                _log.warning("assignments not read", node=self.node, reason=str(error))
                return
            self._current = self._version == known  # else the watch has brought a later one: look again
            if self._current and found.content.groups:  # one that is lost takes nobody's groups away
                self._record, self._version = found.content, found.version

    # Where the others are

    def node_of(self, folder: str) -> str | None:
        """The node of a group of the stack; None when it has none, or there is no such group."""
        if self._record is None or folder not in (self._declared or {}) or folder not in self._record.groups:
            return None
        return self._record.groups[folder].node

    def place(self, folder: str) -> Place | None:
        """See `Elsewhere`."""
        node = self.node_of(folder)
        return None if node is None or node == self.node else self._place(node)

    def left(self, folder: str) -> Place | None:
        """The same once our host has put the group down: before, a session may still begin with what waits here."""
        return None if folder in self._held else self.place(folder)

    def waits(self, folder: str) -> str | None:
        """See `Elsewhere`."""
        if folder in self._served or (self._declared is not None and folder not in self._declared):
            return None
        if self._declared is None or self._record is None:
            return "is not known yet: this controller has just begun"
        if self.node_of(folder) is None:
            return "has no node yet"
        if not self._presence.believed:
            return f"is on node {self.node!r}, which cannot reach the API server and may have lost it"
        return f"is being taken up by node {self.node!r}"

    def others(self) -> list[Place]:
        """See `Elsewhere`."""
        with_groups = {node for group in self.declared if (node := self.node_of(group.folder)) is not None}
        gone = self._settings.gone_after
        alive = {node for node, peer in self._presence.peers().items() if peer.silent < gone}
        return [self._place(node) for node in sorted({*alive, *with_groups} - {self.node})]

    def folder_of(self, jid: str) -> str | None:
        """The group another member has for a chat."""
        return next((group.folder for group in self.declared if group.jid == jid), None)

    # Small things

    def _own(self) -> Groups | None:
        if self._declared is None or self._record is None or not self._presence.told:
            return None
        if self._declared and not self._record.groups:
            return None  # the first record is still to come: not ready to be asked
        return Groups(groups=tuple(group for group in self.declared if self._is_ours(group)))

    def _is_ours(self, group: GroupSpec) -> bool:
        certain = self._presence.believed and self._current
        return (certain or not movable(group, self._settings)) and self.node_of(group.folder) == self.node

    async def _remember(self) -> None:
        """Which data here is the present one, those of groups that were removed from the stack among it."""
        assert self._record is not None
        ours = {folder: each.generation for folder, each in self._record.groups.items() if each.node == self.node}
        try:
            await asyncio.to_thread(self._holdings.now, ours)
        except OSError as error:
            _log.warning("own groups not noted", node=self.node, error=str(error), remedy="look at the node's disk")

    def _place(self, node: str) -> Place:
        peer = self._presence.peers().get(node)
        return Place(node, peer.address, peer.silent) if peer else Place(node, "", self._presence.watched())
