"""Combinations of settings that can never work, found before anything is declared.

Each rule is a function from the settings to sentences with field, value and remedy. Not here: what
only the cluster knows, such as whether a StorageClass exists; `nanoclaw doctor --stack` asks it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from nanoclaw_infra.settings import patterns
from nanoclaw_infra.settings.declared import claim_needs, declared_claims, parked, workloads
from nanoclaw_infra.settings.mounts import mount_problems
from nanoclaw_infra.settings.network import METADATA
from nanoclaw_infra.settings.storage import ONE_POD, only_one_node
from nanoclaw_runtime.contract import quantities, wire
from nanoclaw_runtime.contract.claims import Layout
from nanoclaw_runtime.contract.config import Placement
from nanoclaw_runtime.contract.needs import amounts

if TYPE_CHECKING:
    from nanoclaw_infra.settings.stack import StackSettings

_SETTINGS: Final = "nanoclaw:settings"


def problems(settings: StackSettings) -> list[str]:
    """Everything that is certain not to work."""
    found = mount_problems(settings.runtime, settings.groups, own_namespace=settings.namespace.create)
    for rule in RULES:
        found += rule(settings)
    return found


def _access_modes(settings: StackSettings) -> Iterator[str]:
    """Controller and agents mount a group's claims at the same time, from wherever they run; not with the bridge."""
    runtime, storage = settings.runtime, settings.storage
    if not runtime.pattern.has_claims or runtime.bridged:
        return
    shared = {claim.purpose for claim in declared_claims(settings)} - ONE_POD
    for purpose in sorted(shared):
        field = f"{_SETTINGS}.storage.{f'accessModes.{purpose}' if purpose in storage.access_modes else 'accessMode'}"
        mode = storage.mode(purpose)
        if mode == "ReadWriteOncePod":
            yield (
                f"{field} is {mode!r}, but the controller and an agent mount the claim at the same time; write "
                "'ReadWriteMany', 'ReadWriteOnce' with runtime.placement 'controller-node', or runtime.transport "
                "'bridge'"
            )
            return
        if mode == "ReadWriteOnce" and runtime.placement is Placement.ANYWHERE:
            yield (
                f"{field} is {mode!r}, so controller and agents must share a node, and runtime.placement is "
                f"{runtime.placement.value!r}; write 'controller-node' there, runtime.transport 'bridge', or use "
                "'ReadWriteMany'"
            )
            return


def _made_class(settings: StackSettings) -> Iterator[str]:
    made, storage = settings.storage.make_class, settings.storage
    if made is None or not only_one_node(made.provisioner):
        return
    for claim in declared_claims(settings):
        if storage.class_of(claim.purpose) == made.name and storage.mode(claim.purpose) == "ReadWriteMany":
            yield (
                f"{_SETTINGS}.storage.makeClass: the volumes of {made.provisioner!r} are mounted by one node at a time "
                f"each, and the claim {claim.name!r} asks for 'ReadWriteMany'; write accessMode 'ReadWriteOnce' with "
                "runtime.transport 'bridge' or runtime.placement 'controller-node', or a class of a shared file system"
            )
            return


def _groups_of_storage(settings: StackSettings) -> Iterator[str]:
    declared = {group.folder for group in settings.groups.groups}
    kept = set(settings.storage.keep)
    if (both := sorted(declared & kept)) and settings.runtime.pattern.has_claims:
        yield f"{_SETTINGS}.storage.keep names {both[0]!r}, which is among the groups; remove it from one of the two"
    if unknown := sorted(settings.storage.group_sizes.keys() - declared - kept):
        yield f"{_SETTINGS}.storage.groupSizes names {unknown[0]!r}, which is no group of the stack; correct it"
    if settings.storage.group_sizes and settings.runtime.layout is Layout.SHARED:
        yield (
            f"{_SETTINGS}.storage.groupSizes has no effect with nanoclaw:layout 'shared', where all groups share one "
            "claim; write sizes.data, or choose another layout"
        )
    named = {claim.name for claim in declared_claims(settings)}
    if strange := sorted(set(settings.storage.adopt) - named):
        yield (
            f"{_SETTINGS}.storage.adopt names {strange[0]!r}, which is no claim of this stack; there are "
            f"{', '.join(sorted(named))}"
        )


def _quota(settings: StackSettings) -> Iterator[str]:
    """A quota below what the stack itself asks for would leave the last sessions waiting for ever."""
    needs = amounts([*workloads(settings)], [*claim_needs(settings)])
    sessions, waiting = settings.runtime.max_concurrent_sessions, parked(settings)
    what = f"{sessions} sessions{f' and {waiting} parked agents' * bool(waiting)}"
    for resource, amount in settings.namespace.quota.items():
        if resource in needs and (Decimal(0) if amount == "0" else quantities.parse(amount)) < needs[resource]:
            yield (
                f"{_SETTINGS}.namespace.quota.{resource} is {amount!r}, and {what} with the controller and "
                f"their claims need {quantities.readable(resource, needs[resource])}; raise it, or lower "
                f"runtime.maxConcurrentSessions{' or runtime.parking.pods' * bool(waiting)}"
            )


def _reach(settings: StackSettings) -> Iterator[str]:
    """What agents must never reach, and what nobody would reach."""
    network, gateway, telegram = settings.network, settings.gateway, settings.runtime.channels.telegram
    if not network.enabled:
        return
    forbidden: dict[str, tuple[str, ...]] = {"the cloud's metadata": METADATA}
    if network.api_server is not None:
        forbidden["the API server"] = network.api_server.cidrs
    for position, peer in enumerate(network.agents or ()):
        for what, addresses in forbidden.items():
            if opened := [address for address in addresses if peer.opens(address)]:
                yield (
                    f"{_SETTINGS}.network.agents[{position}] opens {peer.cidr!r} to agents, and with it {what} at "
                    f"{opened[0]!r}; add that to `except`"
                )
    if gateway.enabled and network.gateway is None and gateway.serves.upstream != f"https://{wire.MODEL_HOST}":
        yield (
            f"{_SETTINGS}.gateway.serves.upstream is {gateway.serves.upstream!r}, and nothing lets the gateway reach "
            "it; say where it is in network.gateway"
        )
    if telegram is not None and not telegram.has_default_url and not network.controller:
        yield (
            f"{_SETTINGS}.runtime.channels.telegram.apiUrl is {telegram.api_url!r}, and nothing lets the controller "
            "reach it; say where it is in network.controller"
        )


def _gateway(settings: StackSettings) -> Iterator[str]:
    declared = {group.folder for group in settings.groups.groups}
    unknown = sorted(settings.gateway.serves.group_limits.keys() - declared)
    if unknown and not settings.runtime.registration:
        yield f"{_SETTINGS}.gateway.serves.groupLimits names {unknown[0]!r}, which is no group of the stack; correct it"
    serves = settings.gateway.serves
    if not serves.prices and any(each.cost_per_day for each in (serves.limits, *serves.group_limits.values())):
        yield f"{_SETTINGS}.gateway.serves has costPerDay and no prices, so nothing costs; say gateway.serves.prices"
    own = sorted(settings.runtime.agent.env.keys() & {"HTTPS_PROXY", "https_proxy"})
    if settings.gateway.enabled and own:
        yield (
            f"{_SETTINGS}.runtime.agent.env.{own[0]} leads agents past the gateway; remove it, or set gateway.enabled "
            "to false"
        )


RULES: Final[tuple[Callable[[StackSettings], Iterator[str]], ...]] = (
    _access_modes,
    _made_class,
    _groups_of_storage,
    patterns.nodelocal,
    patterns.constraints,
    patterns.permissions,
    patterns.groups,
    patterns.parking,
    _quota,
    _reach,
    _gateway,
)
"""In the order their sentences are told."""
