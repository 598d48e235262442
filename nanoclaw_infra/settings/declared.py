"""What a stack's settings come to: which claims it declares, and which pods run at the same time.

The components declare the claims of this list, the rules lay it beside a quota, and the doctor beside a cluster. Not
here: how a claim or a pod is written.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from nanoclaw_infra.settings.storage import ONE_POD
from nanoclaw_infra.settings.told import CONTROLLER_PRIORITY, priority_class, told
from nanoclaw_runtime.contract import bridge, claims
from nanoclaw_runtime.contract.claims import Claim
from nanoclaw_runtime.contract.config import Pattern, Scheduling
from nanoclaw_runtime.contract.needs import ClaimNeed, Workload

if TYPE_CHECKING:
    from nanoclaw_infra.settings.stack import StackSettings


def claimed_folders(settings: StackSettings) -> tuple[str, ...]:
    """Folders of the groups whose claims are declared; with the pattern `nodelocal` those that `keep` names alone."""
    groups = settings.groups.groups if settings.runtime.pattern.has_claims else ()
    return (*(group.folder for group in groups), *settings.storage.keep)


def installation_claims(settings: StackSettings) -> tuple[Claim, ...]:
    """The claims of all groups together: of a stack whose groups have claims, or keep those they had."""
    if not settings.runtime.pattern.has_claims and not settings.storage.keep:
        return ()
    return claims.installation_claims(settings.runtime.layout)


def declared_claims(settings: StackSettings) -> tuple[Claim, ...]:
    """Every claim the stack declares, those of kept folders included."""
    layout = settings.runtime.layout
    return (
        *installation_claims(settings),
        *(claim for folder in claimed_folders(settings) for claim in claims.group_claims(layout, folder)),
        *(claims.gateway_claims() if settings.gateway.enabled else ()),
    )


def claim_needs(settings: StackSettings) -> Iterator[ClaimNeed]:
    """The same as a cluster is asked for them."""
    storage = settings.storage
    for claim in declared_claims(settings):
        yield ClaimNeed(
            name=claim.name,
            storage_class=storage.class_of(claim.purpose),
            access_mode=storage.mode(claim.purpose),
            size=storage.size(claim.purpose, claim.folder),
            database=claim.purpose in ONE_POD,
            adopted=claim.name in storage.adopt,
        )


def parked(settings: StackSettings) -> int:
    """Most agents that are parked at the same time; a group has one pod at most."""
    wanted = settings.runtime.parked_pods
    return wanted if settings.runtime.registration else min(wanted, len(settings.groups.groups))


def workloads(settings: StackSettings) -> Iterator[Workload]:
    """The agents first. Our own pods have a priority of the stack's where it makes some, as its components have it."""
    runtime, agent = settings.runtime, told(settings).agent
    folder = runtime.node_root if runtime.pattern is Pattern.NODELOCAL else None
    yield Workload(
        "agent",
        agent.image,
        agent.resources,
        agent.scheduling,
        runtime.max_concurrent_sessions + parked(settings),
        folder,
        beside=(bridge.RESOURCES,) if runtime.bridged else (),
    )
    own = {"controller": settings.controller} | ({"gateway": settings.gateway} if settings.gateway.enabled else {})
    for name, workload in own.items():
        yield Workload(
            name,
            settings.controller.image,
            workload.resources,
            _prioritised(settings, workload.scheduling),
            node_folder=folder if name == "controller" else None,
        )


def _prioritised(settings: StackSettings, given: Scheduling) -> Scheduling:
    if not settings.priorities.enabled or given.priority_class is not None:
        return given
    return given.model_copy(update={"priority_class": priority_class(settings, CONTROLLER_PRIORITY)})
