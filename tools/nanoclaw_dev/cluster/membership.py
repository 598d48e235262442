"""What the API says of a node, and what an operator tells it about one.

The node itself is not asked and not touched.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Callable
from typing import Any

from nanoclaw_dev.cluster.api import UNANSWERED, Api
from nanoclaw_dev.errors import SetupError

OUT_OF_SERVICE = {"key": "node.kubernetes.io/out-of-service", "value": "nodeshutdown", "effect": "NoExecute"}
# Says that the node is off for certain: its pods are then forgotten, and may run elsewhere.

Taints = list[dict[str, Any]]


def ready(api: Api, name: str, *, since: float) -> bool | None:
    """Whether the API calls a node ready and heard so after `since`; None when it gives no answer."""
    with contextlib.suppress(*UNANSWERED):
        for condition in _node(api, name).get("status", {}).get("conditions", []):
            if condition["type"] == "Ready":
                beat = dt.datetime.fromisoformat(condition["lastHeartbeatTime"]).timestamp()
                return bool(condition["status"] == "True" and beat >= int(since))
        return False
    return None


def troubled(api: Api, name: str) -> bool:
    """The node has a taint of Kubernetes' own, which keeps pods away, or nobody can tell."""
    with contextlib.suppress(*UNANSWERED):
        taints: Taints = _node(api, name).get("spec", {}).get("taints", [])
        return any(taint["key"].startswith("node.kubernetes.io/") for taint in taints)
    return True


def out_of_service(api: Api, name: str) -> None:
    """Say that the node is off for certain. No error when that was said before."""
    _change_taints(api, name, lambda taints: [*_others(taints), OUT_OF_SERVICE])


def in_service(api: Api, name: str) -> None:
    """Take that back."""
    _change_taints(api, name, _others)


def _others(taints: Taints) -> Taints:
    return [taint for taint in taints if taint["key"] != OUT_OF_SERVICE["key"]]


def _change_taints(api: Api, name: str, change: Callable[[Taints], Taints]) -> None:
    while True:
        node = api.get(f"/api/v1/nodes/{name}")
        if node is None:
            raise SetupError(f"The cluster has no node {name}.")
        before: Taints = node["spec"].get("taints", [])
        after = change(before)
        if after == before:
            return
        node["spec"]["taints"] = after
        if api.replace(f"/api/v1/nodes/{name}", node):
            return


def _node(api: Api, name: str) -> dict[str, Any]:
    return api.get(f"/api/v1/nodes/{name}") or {}
