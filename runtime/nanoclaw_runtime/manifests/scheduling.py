"""Which node gets an agent's pod, and with what it runs there.

What the stack says is passed on as Kubernetes names it. Not here: which group belongs to which node.
"""

from __future__ import annotations

from typing import Any

from nanoclaw_runtime.contract import labels
from nanoclaw_runtime.contract.config import ControllerConfig, Placement, Scheduling

HOSTNAME = "kubernetes.io/hostname"

STAYS = (
    {"key": "node.kubernetes.io/unschedulable", "operator": "Exists", "effect": "NoSchedule"},
    {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"},
    {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"},
)
"""What the pods of a DaemonSet put up with, for agents that belong to a node as well: nowhere else is their data, so a
cordon must not silence the chat, and taking a pod off a node that is merely cut off would end a turn for nothing."""


def scheduling(
    config: ControllerConfig, agents: dict[str, Any], *, node: str | None = None, near: str | None = None
) -> dict[str, Any]:
    """The part of a pod's spec that chooses its node; `agents` selects the pods it is spread among.

    With `node` it runs there or nowhere; `near` is where it would rather run than elsewhere.
    """
    spec = _written(config.agent.scheduling)
    if node is not None:
        return spec | {
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": _only(node)}},
            "tolerations": [*spec.get("tolerations", ()), *STAYS],
        }
    if config.placement is Placement.CONTROLLER_NODE:
        return spec | {"affinity": _beside_the_controller()}
    spec["topologySpreadConstraints"] = [_spread(agents)]
    if near is not None:
        wish = {"weight": 100, "preference": _only(near)["nodeSelectorTerms"][0]}
        spec["affinity"] = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [wish]}}
    return spec


def _only(node: str) -> dict[str, Any]:
    # By its name as an object, not by a label: whoever labels nodes need not be trusted, and no two have the same.
    return {"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}]}


def _written(given: Scheduling) -> dict[str, Any]:
    spec = {
        "nodeSelector": given.node_selector,
        "tolerations": [each.model_dump(by_alias=True, exclude_none=True) for each in given.tolerations],
        "runtimeClassName": given.runtime_class,
        "priorityClassName": given.priority_class,
        "imagePullSecrets": [{"name": name} for name in given.image_pull_secrets],
    }
    return {field: value for field, value in spec.items() if value}


def _beside_the_controller() -> dict[str, Any]:
    controller = {"labelSelector": {"matchLabels": labels.component(labels.CONTROLLER)}, "topologyKey": HOSTNAME}
    return {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [controller]}}


def _spread(agents: dict[str, Any]) -> dict[str, Any]:
    """A node that is lost takes few agents with it. A wish: one full node is no reason to wait."""
    return {"maxSkew": 1, "topologyKey": HOSTNAME, "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": agents}
