"""Where agents run and how they are reached: which patterns, transports and constraints never go together.

Rules of `rules`, which tells their sentences among its own. What one model of the contract can say by itself, such as
that the bridge and one shared claim exclude each other, is said there.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

from nanoclaw_infra.settings.declared import parked, workloads
from nanoclaw_runtime.contract import quantities
from nanoclaw_runtime.contract.config import RESTRICTED_SCC, ControllerConfig, Pattern, Placement, Platform, Warm

if TYPE_CHECKING:
    from nanoclaw_infra.settings.stack import StackSettings

_SETTINGS: Final = "nanoclaw:settings"

OPENSHIFTS_OWN: Final = frozenset(
    {
        "restricted", "restricted-v2", "restricted-v3", "nonroot", "nonroot-v2", "anyuid", "nested-container",
        "hostnetwork", "hostnetwork-v2", "hostaccess", "hostmount-anyuid", "hostmount-anyuid-v2", "node-exporter",
        "privileged",
    }
)  # fmt: skip
"""Constraints that every cluster has and nobody should change."""
_NO_FOLDERS: Final = frozenset({"nonroot", "nonroot-v2", "anyuid", "nested-container", "hostnetwork", "hostnetwork-v2"})
# Of these, beside all that are restricted, those that forbid folders of nodes.


def nodelocal(settings: StackSettings) -> Iterator[str]:
    """What the pattern `nodelocal` leaves no room for."""
    runtime = settings.runtime
    if runtime.pattern is not Pattern.NODELOCAL:
        return
    if runtime.placement is not Placement.ANYWHERE:
        yield (
            f"{_SETTINGS}.runtime.placement is {runtime.placement.value!r}, but with the pattern 'nodelocal' each "
            "group has a node of its own; remove it"
        )
    if runtime.registration:
        yield (
            f"{_SETTINGS}.runtime.registration is true, but with the pattern 'nodelocal' the stack alone says which "
            "groups there are, and each gets a node; declare them in groups, and remove it"
        )
    yield from _roots_beside_groups(runtime)
    scc = settings.openshift.scc
    if runtime.platform is Platform.OPENSHIFT and _forbids_folders(scc):
        yield (
            f"{_SETTINGS}.openshift.scc is {scc!r}, which forbids the folders of nodes that the pattern 'nodelocal' "
            "lives on; name one of the stack's own and set openshift.makeScc, name one that permits hostPath, or use "
            "the pattern 'job'"
        )


def _roots_beside_groups(runtime: ControllerConfig) -> Iterator[str]:
    """No additional mount may lead into the folders of other groups."""
    allowlist, tree = runtime.mount_allowlist, PurePosixPath(runtime.node_root)
    if allowlist is None or not allowlist.host_paths_on_nodes:
        return
    for position, root in enumerate(allowlist.allowed_roots):
        path = PurePosixPath(root.path)
        if path.is_relative_to(tree) or tree.is_relative_to(path):
            yield (
                f"{_SETTINGS}.runtime.mountAllowlist.allowedRoots[{position}].path is {root.path!r}, which leads to "
                f"the folders of all groups in runtime.nodeRoot ({runtime.node_root!r}); name a folder beside it"
            )


def _forbids_folders(scc: str) -> bool:
    """Whether this constraint is known to forbid folders of nodes."""
    return scc.startswith("restricted") or scc in _NO_FOLDERS


def constraints(settings: StackSettings) -> Iterator[str]:
    """What is said about constraints has to be about one that there is, and that the stack may touch."""
    openshift, runtime = settings.openshift, settings.runtime
    said = openshift.bind or openshift.make_scc or openshift.scc != RESTRICTED_SCC
    if runtime.platform is not Platform.OPENSHIFT:
        if said:
            yield f"{_SETTINGS}.openshift is for OpenShift; remove it, or write nanoclaw:platform 'openshift'"
        return
    if not openshift.make_scc:
        return
    if runtime.pattern is not Pattern.NODELOCAL:
        yield (
            f"{_SETTINGS}.openshift.makeScc is true, but only the pattern 'nodelocal' needs more than "
            f"{RESTRICTED_SCC!r}; remove it"
        )
    elif openshift.scc in OPENSHIFTS_OWN and not _forbids_folders(openshift.scc):  # or else that was told
        yield (
            f"{_SETTINGS}.openshift.makeScc is true, and {openshift.scc!r} is a constraint of OpenShift's own; write "
            "another name in openshift.scc, like 'nanoclaw-nodelocal'"
        )
    if openshift.bind:
        yield (
            f"{_SETTINGS}.openshift.bind is true, but a constraint that the stack makes names its accounts itself; "
            "remove it"
        )


def permissions(settings: StackSettings) -> Iterator[str]:
    """A container that is root for a moment is refused where nobody may be root."""
    runtime = settings.runtime
    if not runtime.fix_permissions:
        return
    field = f"{_SETTINGS}.runtime.fixPermissions is true, which takes a container that runs as root"
    if runtime.platform is Platform.OPENSHIFT:
        yield f"{field}, but on OpenShift volumes are the namespace's own user's already, and nobody is root; remove it"
    elif settings.namespace.create and runtime.pattern.has_claims:
        yield (
            f"{field}, and the namespace this stack makes enforces Pod Security 'restricted', which forbids it; use a "
            "storage class whose driver obeys fsGroup, or set namespace.create to false and name a namespace that "
            "enforces 'baseline'"
        )


def groups(settings: StackSettings) -> Iterator[str]:
    """What a group says of its own agents has to have somebody who listens."""
    pattern = settings.runtime.pattern
    for position, group in enumerate(settings.groups.groups):
        field = f"{_SETTINGS}.groups[{position}]"
        if group.pattern is not None and not pattern.has_claims:
            yield (
                f"{field}.pattern is {group.pattern.value!r}, but the stack's pattern {pattern.value!r} keeps every "
                "group in folders of nodes; remove it"
            )
        if group.ephemeral and pattern is not Pattern.NODELOCAL:
            yield (
                f"{field}.ephemeral is true, but with the pattern {pattern.value!r} no node takes a group's data with "
                "it; remove it"
            )


def parking(settings: StackSettings) -> Iterator[str]:
    """A budget that cannot hold what is to be parked always."""
    always = [group.folder for group in settings.groups.groups if group.warm is Warm.ALWAYS]
    if not always:
        return
    budget, memory = parked(settings), settings.runtime.parking.memory
    agent = next(workloads(settings))
    each = sum(quantities.parse(one.memory_request) for one in (agent.resources, *agent.beside))
    count = f"{len(always)} group{'s are' * (len(always) > 1) or ' is'} to be parked always"
    if len(always) > budget:
        said = "is left out" if settings.runtime.parking.pods is None else f"is {budget}"
        yield (
            f"{_SETTINGS}.runtime.parking.pods {said}, and {count} ({', '.join(always)}): at most {budget} of them "
            f"would be; write {len(always)} or more there, or warm 'auto' at the groups"
        )
    elif memory is not None and quantities.parse(memory) < (needed := Decimal(len(always)) * each):
        yield (
            f"{_SETTINGS}.runtime.parking.memory is {memory!r}, and {count} ({', '.join(always)}), which takes "
            f"{quantities.readable('memory', needed)}; raise it, or write warm 'auto' at the groups"
        )
