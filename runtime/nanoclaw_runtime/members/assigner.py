"""The one member that says which node has which group: it looks, decides and writes, as long as it is elected."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Final

import structlog

from nanoclaw_runtime.contract.config import NodelocalSettings
from nanoclaw_runtime.domain.assignment import Assignment, Assignments, Member, assign
from nanoclaw_runtime.domain.errors import NanoclawError
from nanoclaw_runtime.kube.errors import KubeError
from nanoclaw_runtime.kube.lease import Election
from nanoclaw_runtime.members.membership import Membership
from nanoclaw_runtime.members.presence import Presence
from nanoclaw_runtime.members.record import Record
from nanoclaw_runtime.telemetry import Metrics

LOOK: Final = 1.0
"""Seconds from one look to the next."""
COMING: Final = 180.0
"""Seconds a node that has a member's pod is waited for: its image may have to be pulled, or never come."""

_log = structlog.get_logger(__name__)


class Assigner:
    """`run` it in every member; only the elected one does anything."""

    def __init__(
        self,
        election: Election,
        record: Record,
        *,
        presence: Presence,
        membership: Membership,
        settings: NodelocalSettings,
        metrics: Metrics,
    ) -> None:
        self._election, self._record = election, record
        self._presence, self._membership, self._settings = presence, membership, settings
        self._metrics = metrics
        self._in_office = False
        self._told: tuple[object, ...] = ()
        self._trouble = ""
        self._awaited: dict[str, float] = {}

    async def run(self) -> None:
        """Until cancelled; whatever goes wrong is tried again."""
        while True:
            try:
                await self._turn()
                self._trouble = ""
            except (KubeError, NanoclawError) as error:  # a conflict among them: read it again
                self._in_office = False
                if str(error) != self._trouble:
                    _log.warning("groups not assigned", reason=str(error))
                self._trouble = str(error)
            await asyncio.sleep(LOOK)

    async def _turn(self) -> None:
        if not self._election.held:
            self._in_office = False
            self._metrics.groups_stranded.set(0)  # one member tells
            return
        if not self._presence.known.is_set() or not self._membership.complete:
            return
        if not self._in_office:
            await self._record.take()
            self._in_office = True
        found, content = await self._record.read()
        result = assign(
            self._membership.declared,
            self._members(frozenset(each.node for each in content.groups.values())),
            content.groups,
            self._settings,
            datetime.now(UTC),
            coming=await self._coming(content),
        )
        self._tell(result)
        if result.groups == content.groups or not self._election.held:
            return
        moved = {folder: each.node for folder, each in result.groups.items() if content.groups.get(folder) != each}
        await self._record.write(found, content.model_copy(update={"groups": dict(result.groups)}))
        _log.info("groups assigned", groups=moved)

    async def _coming(self, content: Assignments) -> bool:
        """Whether a node has a member's pod and has not shown a member yet; asked only while a group has no node."""
        if all(group.folder in content.groups for group in self._membership.declared):
            return False
        now, there = asyncio.get_running_loop().time(), self._presence.peers()
        nodes = await self._record.nodes_with_pods()
        self._awaited = {node: self._awaited.get(node, now) for node in nodes if node not in there}
        return any(now - since < COMING for since in self._awaited.values())

    def _members(self, nodes: frozenset[str]) -> list[Member]:
        """Those that have a lease, and nodes of the record that have none: they count as gone once we looked enough."""
        members = self._presence.members()
        watched = self._presence.watched()
        missing = nodes - {member.node for member in members}
        return [*members, *(Member(node, silent=watched, present=watched) for node in sorted(missing))]

    def _tell(self, result: Assignment) -> None:
        self._metrics.groups_stranded.set(len(result.stranded))
        nodes = sorted({result.groups[folder].node for folder in result.stranded})
        told = (result.stranded, result.without)
        if told == self._told:
            return
        self._told = told
        if result.stranded:
            _log.error(
                "groups out of reach",
                groups=list(result.stranded),
                nodes=nodes,
                remedy="bring the node back; their data is there, so they are not given to another",
            )
        if result.without:
            _log.info("groups without a node", groups=list(result.without))
