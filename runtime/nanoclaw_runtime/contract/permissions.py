"""What the controller may do in its namespace, and nothing beyond.

The Role is rendered from this list, and the tests run the controller with exactly that Role.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from nanoclaw_runtime.contract import names
from nanoclaw_runtime.contract.claims import Layout
from nanoclaw_runtime.contract.config import ControllerConfig


@dataclass(frozen=True)
class Rule:
    """One rule of the Role. `reason` is for the reader; it is not rendered."""

    api_group: str
    resources: tuple[str, ...]
    verbs: tuple[str, ...]
    reason: str
    names: tuple[str, ...] = ()


CONTROLLER_RULES: Final = (
    Rule("batch", ("jobs",), ("create", "get", "list", "delete"), "one Job a session"),
    Rule("", ("pods",), ("get", "list", "watch"), "the pods' state is the sessions' state"),
    Rule("", ("pods/attach",), ("get", "create"), "input and output; Kubernetes 1.35 checks create, before it get"),
    Rule("", ("pods/log",), ("get",), "outputs after a lost stream or a restart"),
    Rule("", ("events",), ("list",), "why a pod does not start"),
    Rule("", ("persistentvolumeclaims",), ("get",), "whether a group's claims are bound"),
    Rule("", ("configmaps",), ("get", "list", "watch"), "the groups the stack declares", (names.GROUPS_CONFIG,)),
)

STATEFULSET_RULES: Final = (
    Rule(
        "apps",
        ("statefulsets",),
        ("create", "get", "list", "patch"),
        "one set a group, scaled between 0 and 1",
    ),
)
"""Beyond `CONTROLLER_RULES`, where groups have claims: each may choose. A set that nobody needs stays at zero."""

BRIDGE_RULES: Final = (Rule("authentication.k8s.io", ("tokenreviews",), ("create",), "who speaks for an agent's pod"),)
"""Of the whole cluster, with the transport `bridge`: reviewing tokens belongs to no namespace."""

NODELOCAL_RULES: Final = (
    Rule("coordination.k8s.io", ("leases",), ("create", "get", "update"), "one member assigns groups to nodes"),
    Rule("coordination.k8s.io", ("leases",), ("list",), "which nodes have a controller that lives"),
    Rule(
        "",
        ("configmaps",),
        ("get", "list", "watch", "update"),
        "which node has which group",
        (names.ASSIGNMENTS_CONFIG,),
    ),
    Rule("", ("configmaps",), ("create",), "the first of those records"),
)
"""Beyond `CONTROLLER_RULES`, with the pattern `nodelocal`."""

REGISTRATION_RULES: Final = (
    Rule("", ("persistentvolumeclaims",), ("create",), "the claims of a group that is added at run time"),
    Rule("apps", ("deployments",), ("patch",), "to mount those claims into its own pod", (names.CONTROLLER,)),
)
"""Beyond `CONTROLLER_RULES`, where groups may be added and each has claims of its own."""


def controller_rules(config: ControllerConfig) -> tuple[Rule, ...]:
    """What a controller with these settings needs, the whole of its Role."""
    makes_claims = config.registration and config.layout is not Layout.SHARED and config.pattern.has_claims
    pattern = STATEFULSET_RULES if config.pattern.has_claims else NODELOCAL_RULES
    return CONTROLLER_RULES + pattern + (REGISTRATION_RULES if makes_claims else ())


def controller_cluster_rules(config: ControllerConfig) -> tuple[Rule, ...]:
    """What it needs of the whole cluster, the whole of its ClusterRole; usually nothing."""
    return BRIDGE_RULES if config.bridged else ()
