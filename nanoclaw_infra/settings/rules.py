"""Combinations of settings that can never work, found before anything is declared.

Each rule is a function from the settings to sentences with field, value and remedy. Not here: what
only the cluster knows, such as whether a StorageClass exists; `nanoclaw doctor --stack` asks it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from nanoclaw_infra.settings.mounts import mount_problems
from nanoclaw_infra.settings.network import METADATA
from nanoclaw_infra.settings.storage import ONE_POD, only_one_node
from nanoclaw_runtime.contract import claims, quantities, wire
from nanoclaw_runtime.contract.claims import Claim, Layout
from nanoclaw_runtime.contract.config import RESTRICTED_SCC, Pattern, Placement, Platform

if TYPE_CHECKING:
    from nanoclaw_infra.settings.stack import StackSettings

_SETTINGS: Final = "nanoclaw:settings"


def problems(settings: StackSettings) -> list[str]:
    """Everything that is certain not to work."""
    found = mount_problems(settings.runtime, settings.groups, own_namespace=settings.namespace.create)
    for rule in RULES:
        found += rule(settings)
    return found


def declared_claims(settings: StackSettings) -> tuple[Claim, ...]:
    """Every claim the stack declares, those of kept folders included."""
    if not settings.runtime.pattern.has_claims:
        return claims.gateway_claims() if settings.gateway.enabled else ()
    layout = settings.runtime.layout
    folders = [*(group.folder for group in settings.groups.groups), *settings.storage.keep]
    return (
        *claims.installation_claims(layout),
        *(claim for folder in folders for claim in claims.group_claims(layout, folder)),
        *(claims.gateway_claims() if settings.gateway.enabled else ()),
    )


def _access_modes(settings: StackSettings) -> Iterator[str]:
    """Controller and agents mount a group's claims at the same time, from wherever they run."""
    runtime, storage = settings.runtime, settings.storage
    if not runtime.pattern.has_claims:
        return
    shared = {claim.purpose for claim in declared_claims(settings)} - ONE_POD
    for purpose in sorted(shared):
        field = f"{_SETTINGS}.storage.{f'accessModes.{purpose}' if purpose in storage.access_modes else 'accessMode'}"
        mode = storage.mode(purpose)
        if mode == "ReadWriteOncePod":
            yield (
                f"{field} is {mode!r}, but the controller and an agent mount the claim at the same time; write "
                "'ReadWriteMany', or 'ReadWriteOnce' with runtime.placement 'controller-node'"
            )
            return
        if mode == "ReadWriteOnce" and runtime.placement is Placement.ANYWHERE:
            yield (
                f"{field} is {mode!r}, so controller and agents must share a node, and runtime.placement is "
                f"{runtime.placement.value!r}; write 'controller-node' there, or use 'ReadWriteMany'"
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
                "runtime.placement 'controller-node', or a class of a shared file system"
            )
            return


def _groups_of_storage(settings: StackSettings) -> Iterator[str]:
    declared = {group.folder for group in settings.groups.groups}
    kept = set(settings.storage.keep)
    if both := sorted(declared & kept):
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


def _placement(settings: StackSettings) -> Iterator[str]:
    runtime = settings.runtime
    if runtime.pattern is Pattern.NODELOCAL and runtime.placement is not Placement.ANYWHERE:
        yield (
            f"{_SETTINGS}.runtime.placement is {runtime.placement.value!r}, but with the pattern 'nodelocal' each "
            "group has a node of its own; remove it"
        )
    on_openshift = runtime.platform is Platform.OPENSHIFT
    if runtime.pattern is Pattern.NODELOCAL and on_openshift and settings.openshift.scc.startswith("restricted"):
        yield (
            f"{_SETTINGS}.openshift.scc is {settings.openshift.scc!r}, which forbids the folders of nodes that the "
            "pattern 'nodelocal' lives on; name one that permits hostPath, or use the pattern 'job'"
        )


def _constraints(settings: StackSettings) -> Iterator[str]:
    openshift = settings.openshift
    if settings.runtime.platform is not Platform.OPENSHIFT and (openshift.bind or openshift.scc != RESTRICTED_SCC):
        yield f"{_SETTINGS}.openshift is for OpenShift; remove it, or write nanoclaw:platform 'openshift'"


def _quota(settings: StackSettings) -> Iterator[str]:
    """A quota below what the stack itself asks for would leave the last sessions waiting for ever."""
    hard, storage = settings.namespace.quota, settings.storage
    agents = settings.runtime.max_concurrent_sessions
    workloads = [(agents, settings.runtime.agent.resources), (1, settings.controller.resources)]
    if settings.gateway.enabled:
        workloads.append((1, settings.gateway.resources))
    volumes = declared_claims(settings)
    needs = {
        "pods": Decimal(sum(count for count, _ in workloads)),
        "persistentvolumeclaims": Decimal(len(volumes)),
        "requests.storage": sum(
            (quantities.parse(storage.size(claim.purpose, claim.folder)) for claim in volumes), Decimal(0)
        ),
    }
    for resource in ("cpu", "memory"):
        for side, field in (("requests", "request"), ("limits", "limit")):
            needs[f"{side}.{resource}"] = sum(
                (count * quantities.parse(getattr(each, f"{resource}_{field}")) for count, each in workloads),
                Decimal(0),
            )
    for resource, alias in (("cpu", "requests.cpu"), ("memory", "requests.memory")):
        needs[resource] = needs[alias]
    for resource, amount in hard.items():
        if resource in needs and (Decimal(0) if amount == "0" else quantities.parse(amount)) < needs[resource]:
            yield (
                f"{_SETTINGS}.namespace.quota.{resource} is {amount!r}, and {agents} sessions with the controller and "
                f"their claims need {quantities.readable(resource, needs[resource])}; raise it, or lower "
                "runtime.maxConcurrentSessions"
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
    _placement,
    _constraints,
    _quota,
    _reach,
    _gateway,
)
"""In the order their sentences are told."""
