"""Which node has which group, with the pattern `nodelocal`.

A group that has a node keeps it, because its data is there: only one whose data may be left behind
(`ephemeral`), or is the same on every node (`shared`), gets another when its node is gone or
drained. A node that joins gets nothing that another has. Pure: who is alive was judged by others
(`members`), and what is returned here still has to be written down by them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from pydantic import AwareDatetime, Field

from nanoclaw_runtime.contract.config import ContractModel, GroupSpec, NodelocalSettings

SETTLE: Final = 5.0
"""Seconds since the last new member after which groups without a node get one: when an installation begins, the first
member would take them all before the second is up, and they would stay."""


class Assigned(ContractModel):
    """The node of one group."""

    node: str
    since: AwareDatetime
    generation: int = Field(ge=1)
    """Raised whenever the group gets another node."""


class Assignments(ContractModel):
    """The record all members read and one of them writes."""

    term: int = Field(default=0, ge=0)
    """Raised by each member that begins to write it: whoever finds a higher one than its own has been replaced."""
    writer: str = ""
    """Node of the member that wrote it last."""
    groups: dict[str, Assigned] = Field(default_factory=dict)
    """By folder; a group that is not declared any more keeps its place, as its data does."""


@dataclass(frozen=True)
class Member:
    """A node's controller, as the others see it."""

    node: str
    silent: float
    """Seconds without a sign of life."""
    present: float
    """Seconds since it was first seen."""
    draining: bool = False
    """Whether an operator wants groups off its node."""
    holds: Mapping[str, int] = field(default_factory=dict)
    """Groups whose data its node says it has, and of which generation."""


@dataclass(frozen=True)
class Assignment:
    """What follows for every declared group."""

    groups: Mapping[str, Assigned]
    """Of all groups that were ever assigned."""
    stranded: tuple[str, ...] = ()
    """Folders of groups whose node is gone, and their data with it: they stay, and wait for it."""
    without: tuple[str, ...] = ()
    """Folders of groups that have no node yet."""


def movable(group: GroupSpec, settings: NodelocalSettings) -> bool:
    """Whether the group may be given to another node than the one it has."""
    return settings.shared or group.ephemeral


def assign(
    groups: Iterable[GroupSpec],
    members: Collection[Member],
    known: Mapping[str, Assigned],
    settings: NodelocalSettings,
    now: datetime,
    *,
    coming: bool = False,
) -> Assignment:
    """The next record, equal to `known` unless something has to change.

    `coming` tells that another member is about to be there: groups without a node wait for it.
    """
    declared = sorted(groups, key=lambda group: group.folder)
    alive = {member.node: member for member in members if member.silent < settings.gone_after}
    takers = {node for node, member in alive.items() if not member.draining}
    settled = not coming and all(member.present >= SETTLE for member in alive.values())
    result, seeking = dict(known), list[str]()
    for group in declared:
        has = known.get(group.folder)
        if has is None:
            if settled:
                seeking.append(group.folder)
        elif has.node not in takers and takers and movable(group, settings):
            seeking.append(group.folder)
    places = _Places(takers, [group.folder for group in declared], known, seeking)
    for folder in seeking:
        # Data that lies somewhere comes before an even spread: of a record that got lost, this is what is left.
        holder = None if folder in known else _holder(folder, alive.values())
        node = holder.node if holder else places.take(folder)
        if node is not None:
            before = known[folder].generation if folder in known else holder.holds[folder] if holder else 0
            result[folder] = Assigned(node=node, since=now, generation=before + 1)
    return Assignment(
        result,
        stranded=tuple(
            group.folder for group in declared if group.folder in result and result[group.folder].node not in alive
        ),
        without=tuple(group.folder for group in declared if group.folder not in result),
    )


def _holder(folder: str, members: Iterable[Member]) -> Member | None:
    """Who has the latest data of a group."""
    holders = [member for member in members if folder in member.holds]
    return max(holders, key=lambda member: (member.holds[folder], member.node), default=None)


class _Places:
    """Rendezvous hashing with a bound: no node takes a group while it has more than an even share of all."""

    def __init__(
        self, takers: Collection[str], declared: Iterable[str], known: Mapping[str, Assigned], seeking: Collection[str]
    ) -> None:
        stays = [known[folder].node for folder in declared if folder in known and folder not in seeking]
        self._load = {node: stays.count(node) for node in takers}
        self._share = -(-(sum(self._load.values()) + len(seeking)) // len(takers)) if takers else 0

    def take(self, folder: str) -> str | None:
        """The node that has the most weight for this group, of those with room; None without any node."""
        room = [node for node, load in self._load.items() if load < self._share]
        node = max(room, key=lambda node: (weight(folder, node), node), default=None)
        if node is not None:
            self._load[node] += 1
        return node


def weight(folder: str, node: str) -> int:
    """The same in every process and version: a move would leave data behind."""
    return int.from_bytes(hashlib.sha256(f"{folder}\0{node}".encode()).digest()[:8], "big")
