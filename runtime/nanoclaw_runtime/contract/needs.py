"""What a stack needs of a cluster, as data: what it makes, what has to be there, which version each feature asks for.

The platform's package writes it from a stack's settings and the command line lays it beside the cluster. Not here:
looking at a cluster, and judging it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, Protocol

from nanoclaw_runtime.contract import quantities
from nanoclaw_runtime.contract.config import ControllerConfig, GroupSpec, Resources, Scheduling

STACK_READERS: Final = "nanoclaw.stacks"
"""Group of entry points in which an installed platform offers its `StackReader`."""

Version = tuple[int, int]


class StackUnusable(Exception):
    """The stack cannot be read; the message says everything that is wrong with it."""


class StackReader(Protocol):
    """Reads a stack by its name. Raises StackUnusable."""

    def __call__(self, stack: str, project: Path | None, environ: Mapping[str, str]) -> Needs: ...


@dataclass(frozen=True)
class Kind:
    """A kind of object that the stack makes."""

    kind: str
    plural: str
    group: str = ""
    """API group; empty for the core."""
    namespaced: bool = True


@dataclass(frozen=True)
class Feature:
    """Something that only newer clusters have."""

    what: str
    since: Version
    """Kubernetes' own version; OpenShift's is told beside it."""
    setting: str
    """What asks for it, as the stack file has it; empty when nothing can be changed there."""
    without: str
    """What happens on an older cluster."""
    essential: bool


@dataclass(frozen=True)
class ClaimNeed:
    """A claim the stack declares."""

    name: str
    storage_class: str | None
    """The cluster's default when it is None."""
    access_mode: str
    size: str
    database: bool
    """Holds a database, which wants block storage."""
    adopted: bool = False
    """Exists already and is taken over as it is."""


@dataclass(frozen=True)
class Workload:
    """Pods of one shape that run at the same time."""

    name: str
    image: str
    resources: Resources
    scheduling: Scheduling
    count: int = 1
    node_folder: str | None = None
    """A folder of the node that the pods mount."""
    beside: tuple[Resources, ...] = ()
    """Of the containers beside the first, in each of the pods."""


@dataclass(frozen=True)
class CustomKinds:
    """Custom resources that an operator has to have installed."""

    group: str
    versions: tuple[str, ...]
    """Any one of them will do."""
    plurals: tuple[str, ...]
    setting: str
    operator: str


@dataclass(frozen=True)
class SecretNeed:
    """A Secret of the namespace that somebody else makes."""

    name: str
    setting: str


@dataclass(frozen=True)
class ApiServerNeed:
    """What the controller may reach of the API server, as pods see it behind the Service `kubernetes`."""

    cidrs: tuple[str, ...]
    """Anywhere when there are none."""
    ports: tuple[int, ...]


@dataclass(frozen=True)
class Needs:
    """Everything a stack asks of its cluster."""

    stack: str
    kubeconfig: Path
    context: str | None
    namespace: str
    makes_namespace: bool
    pod_security: str | None
    """Level the stack's own namespace enforces; None where the platform sets it."""
    protects_data: bool
    config: ControllerConfig
    """What the controller is told."""
    groups: tuple[GroupSpec, ...]
    kinds: tuple[Kind, ...]
    features: tuple[Feature, ...]
    claims: tuple[ClaimNeed, ...]
    workloads: tuple[Workload, ...]
    """The agents first."""
    custom: tuple[CustomKinds, ...] = ()
    secrets: tuple[SecretNeed, ...] = ()
    binds_constraint: bool = False
    """Whether the stack gives its accounts the right to use OpenShift's constraint `config.scc`."""
    made_class: Mapping[str, Any] | None = None
    """The StorageClass the stack makes, as the API would show it."""
    made_priorities: tuple[str, ...] = ()
    """PriorityClasses the stack makes."""
    one_node_provisioners: tuple[str, ...] = ()
    """Provisioners whose volumes are mounted by one node at a time."""
    api_server: ApiServerNeed | None = None
    """Where the network policies let the controller find the API server; None when the stack makes no policies."""
    dns_namespace: Mapping[str, str] | None = None
    """Labels by which the network policies find cluster DNS; None when the stack makes no policies."""
    amounts: Mapping[str, Decimal] = field(init=False)
    """What all of it takes of a quota, by the names of a ResourceQuota; CPUs, bytes and counts."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "amounts", amounts(self.workloads, self.claims))

    @property
    def agents(self) -> Workload:
        return self.workloads[0]


def amounts(workloads: Sequence[Workload], claims: Sequence[ClaimNeed]) -> dict[str, Decimal]:
    """What all of it takes of a quota, by the names of a ResourceQuota; CPUs, bytes and counts."""
    containers = [(each.count, one) for each in workloads for one in (each.resources, *each.beside)]
    found = {
        "pods": Decimal(sum(each.count for each in workloads)),
        "persistentvolumeclaims": Decimal(len(claims)),
        "requests.storage": sum((quantities.parse(claim.size) for claim in claims), Decimal(0)),
    }
    for resource in ("cpu", "memory"):
        for side, suffix in (("requests", "request"), ("limits", "limit")):
            found[f"{side}.{resource}"] = sum(
                (count * quantities.parse(getattr(each, f"{resource}_{suffix}")) for count, each in containers),
                Decimal(0),
            )
        found[resource] = found[f"requests.{resource}"]
    return found
