"""Which members live: each renews a lease of its node, and looks at those of the others.

The lease carries where the member is reached and which groups' data its node has. An operator who
wants groups off a node says so on it (`DRAIN`). A member that could not renew its own for half of
the time after which others count it as gone has to take itself for gone.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import structlog

from nanoclaw_runtime.contract import labels, names
from nanoclaw_runtime.domain.assignment import Member
from nanoclaw_runtime.kube.client import KubeClient, Manifest
from nanoclaw_runtime.kube.deadline import Deadline
from nanoclaw_runtime.kube.errors import AlreadyExists, Conflict, KubeError, NotFound
from nanoclaw_runtime.kube.lease import LEASES, Lease, create_lease, lease_spec, replace
from nanoclaw_runtime.kube.resources import slim

ADDRESS: Final = f"{labels.PREFIX}address"
"""Annotation: host and port of the member's API."""
NODE: Final = labels.NODE
"""Annotation: the node's name; the lease's own may be folded."""
HOLDS: Final = f"{labels.PREFIX}holds"
"""Annotation: the groups whose data lies on the node, each with the generation of the record it is of."""
DRAIN: Final = f"{labels.PREFIX}drain"
"""Annotation an operator sets to `true`: groups that may move are given to other nodes, and no new one comes."""

RENEW_AT_MOST: Final = 10.0
"""Seconds from one renewal to the next."""

_log = structlog.get_logger(__name__)


def lease_name(node: str) -> str:
    """The lease of the member of a node."""
    return f"{names.MEMBER_LEASE_PREFIX}{names.slug(node)}"


@dataclass(frozen=True)
class Peer:
    """Another member, or this one, as its lease shows it."""

    node: str
    address: str
    """Host and port; empty when it may be another pod's by now, which must not be told our token."""
    silent: float
    """Seconds without a sign of life."""


@dataclass
class _Seen:
    lease: Lease
    first: float
    changed: float


class Presence:
    """Of one member. `run` is its life; `known` is set once the others were looked at."""

    def __init__(
        self,
        client: KubeClient,
        *,
        namespace: str,
        node: str,
        address: str,
        gone_after: float,
        holds: Callable[[], Mapping[str, int]],
        identity: str,
    ) -> None:
        self._client, self._namespace = client, namespace
        self._node, self._address, self._identity = node, address, identity
        self._gone_after = gone_after
        self._period = min(RENEW_AT_MOST, gone_after / 5)
        self._holds = holds
        self._seen: dict[str, _Seen] = {}
        self._began = 0.0
        self._looked = float("-inf")
        self._renewed = float("-inf")
        self.known = asyncio.Event()

    async def run(self) -> None:
        """Renew and look, until cancelled. The lease stays: a member that is being replaced is not gone."""
        self._began = _now()
        while True:
            for step in (self._renew, self._look):
                try:
                    await step()
                except KubeError as error:
                    _log.warning("presence not told", node=self._node, reason=str(error))
            await asyncio.sleep(self._period)

    @property
    def told(self) -> bool:
        """Whether this member has ever said that it lives."""
        return self._renewed > float("-inf")

    @property
    def believed(self) -> bool:
        """Whether the others certainly still count this member among the living."""
        return _now() - self._renewed < self._gone_after / 2

    def peers(self) -> dict[str, Peer]:
        """Every member that ever was, by its node; the clock of each runs since we saw it change."""
        now = _now()
        return {node: Peer(node, self._address_of(seen), now - seen.changed) for node, seen in self._seen.items()}

    def members(self) -> list[Member]:
        """As the assignment takes them: silent for the time in which we would have heard them, and no longer."""
        now = _now()
        return [
            Member(
                node,
                silent=0.0 if node == self._node else self._looked - seen.changed,
                present=now - seen.first,
                draining=_annotation(seen.lease, DRAIN) == "true",
                holds=_held(seen.lease),
            )
            for node, seen in self._seen.items()
        ]

    def _address_of(self, seen: _Seen) -> str:
        """Of a member that does not believe itself any more nobody knows whether its pod is there."""
        heard = self._looked - seen.changed < self._gone_after / 2
        return _annotation(seen.lease, ADDRESS) if heard else ""

    def watched(self) -> float:
        """Seconds since this member began to look: of a node without a lease nobody can tell more."""
        return _now() - self._began

    async def _renew(self) -> None:
        begun, name, deadline = _now(), lease_name(self._node), Deadline.after(self._period)
        marks = {
            NODE: self._node,
            ADDRESS: self._address,
            HOLDS: json.dumps(self._holds(), sort_keys=True),
        }
        spec = lease_spec(self._identity, self._gone_after)
        try:
            found = await self._client.get(LEASES, name, namespace=self._namespace, deadline=deadline)
            await replace(
                self._client, LEASES, _renewed(found, marks, spec), namespace=self._namespace, deadline=deadline
            )
        except NotFound:
            await create_lease(
                self._client,
                name,
                spec,
                namespace=self._namespace,
                deadline=deadline,
                labels=labels.component(labels.CONTROLLER),
                annotations=marks,
            )
        except (Conflict, AlreadyExists):
            return  # somebody wrote on it: the next turn
        self._renewed = begun

    async def _look(self) -> None:
        found = await self._client.list(
            LEASES,
            namespace=self._namespace,
            labels=labels.CONTROLLER_SELECTOR,
            deadline=Deadline.after(self._period),
        )
        now, before = _now(), self._seen
        blind = now - self._looked > self._gone_after / 2  # as the others may have been, who could not renew then
        self._looked, self._seen = now, {}
        for lease in (slim(item, Lease) for item in found):
            node = _annotation(lease, NODE)
            if not node or lease.metadata.name != lease_name(node):
                continue
            last = before.get(node)
            same = last is not None and last.lease.beat == lease.beat and not blind
            self._seen[node] = _Seen(lease, last.first if last else now, last.changed if last and same else now)
        self.known.set()


def _renewed(found: Manifest, marks: Mapping[str, str], spec: Manifest) -> Manifest:
    metadata = found["metadata"]
    return found | {
        "metadata": metadata | {"annotations": (metadata.get("annotations") or {}) | dict(marks)},
        "spec": (found.get("spec") or {}) | spec,
    }


def _annotation(lease: Lease, key: str) -> str:
    return (lease.metadata.annotations or {}).get(key, "")


def _held(lease: Lease) -> dict[str, int]:
    """What a node says it has; nothing when that cannot be read: other members write it, of other versions maybe."""
    try:
        found = json.loads(_annotation(lease, HOLDS) or "{}")
    except ValueError:
        return {}
    if not isinstance(found, dict):
        return {}
    return {folder: number for folder, number in found.items() if isinstance(number, int)}


def _now() -> float:
    return asyncio.get_running_loop().time()
