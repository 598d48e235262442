"""Pods of agents as the cluster makes them of our Jobs and sets, and ways to make them differ.

Each function below `spec` returns a change, which takes a pod and alters it in place.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from nanoclaw_runtime.contract.bridge import TOKEN_VOLUME, BridgeFacts
from nanoclaw_runtime.contract.config import Pattern, Transport
from nanoclaw_runtime.domain.model import SessionPlan
from tests.infra.recording import VARIABLES
from tests.support.plans import holder, plan

NODE_ROOT = "/srv/nanoclaw"
RUNTIME_IMAGE = VARIABLES["NANOCLAW_RUNTIME_IMAGE"]
SECRET = {"secretKeyRef": {"name": "nanoclaw-credentials", "key": "ANTHROPIC_API_KEY"}}
"""What a variable would have its value from."""

Pod = dict[str, Any]


def plain(name: str, **marks: str) -> Pod:
    """A pod of somebody else."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": marks},
        "spec": {"containers": [{"name": "main", "image": "localhost/none:1"}]},
    }


def agent(shape: SessionPlan) -> Pod:
    """The pod that is made of a session's Job, or of the set of its group."""
    made = holder(shape)
    template = copy.deepcopy(made["spec"]["template"])
    owner = {
        "apiVersion": made["apiVersion"],
        "kind": made["kind"],
        "name": made["metadata"]["name"],
        "uid": "1",
        "controller": True,
    }
    named = {"name": f"{owner['name']}-0"} if made["kind"] == "StatefulSet" else {"generateName": f"{owner['name']}-"}
    metadata = template["metadata"] | named | {"ownerReferences": [owner]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


def bridged(shape: SessionPlan) -> SessionPlan:
    """The same with a container beside the agent."""
    config = shape.config.model_copy(update={"transport": Transport.BRIDGE, "bridge_image": RUNTIME_IMAGE})
    return replace(shape, config=config, bridge=BridgeFacts("nanoclaw-controller.x.svc:8443", "-----BEGIN…"))


def fixed(shape: SessionPlan) -> SessionPlan:
    """The same with a container that gives it its volumes."""
    return replace(shape, config=shape.config.model_copy(update={"fix_permissions": True}))


def on_node(group: str, **more: Any) -> SessionPlan:
    """A group of the pattern `nodelocal`."""
    return replace(plan(group, "s1", pattern=Pattern.NODELOCAL, node_root=NODE_ROOT, **more), node="worker-1")


def as_set(shape: SessionPlan) -> SessionPlan:
    return replace(shape, config=shape.config.model_copy(update={"pattern": Pattern.STATEFULSET}))


def claim(name: str) -> dict[str, Any]:
    return {"persistentVolumeClaim": {"claimName": name}}


def spec(**fields: Any) -> Callable[[Pod], None]:
    return lambda pod: pod["spec"].update(fields)


def container(**fields: Any) -> Callable[[Pod], None]:
    return lambda pod: pod["spec"]["containers"][0].update(fields)


def security(**fields: Any) -> Callable[[Pod], None]:
    return lambda pod: pod["spec"]["containers"][0]["securityContext"].update(fields)


def metadata(field: str, **entries: str) -> Callable[[Pod], None]:
    return lambda pod: pod["metadata"][field].update({key.replace("_", "/"): value for key, value in entries.items()})


def volume(name: str, sub_path: str | None = None, read_only: bool = False, **source: Any) -> Callable[[Pod], None]:
    """One more volume, mounted."""

    def add(pod: Pod) -> None:
        if source:
            pod["spec"]["volumes"].append({"name": name, **source})
        mount = {"name": name, "mountPath": f"/workspace/extra/{name}", "readOnly": read_only}
        pod["spec"]["containers"][0]["volumeMounts"].append(mount | ({"subPath": sub_path} if sub_path else {}))

    return add


def writable(name: str) -> Callable[[Pod], None]:
    def change(pod: Pod) -> None:
        for mount in pod["spec"]["containers"][0]["volumeMounts"]:
            if mount["name"] == name:
                mount["readOnly"] = False

    return change


def second(kind: str) -> Callable[[Pod], None]:
    return lambda pod: pod["spec"].setdefault(kind, []).append(pod["spec"]["containers"][0] | {"name": "other"})


def without(*path: Any) -> Callable[[Pod], None]:
    def remove(pod: Pod) -> None:
        place: Any = pod
        for step in path[:-1]:
            place = place[step]
        del place[path[-1]]

    return remove


def first(change: Callable[[Pod], None], position: int = 0) -> Callable[[Pod], None]:
    """The change, of a container that starts before the agent."""

    def changed(pod: Pod) -> None:
        spec = pod["spec"]
        agents, spec["containers"] = spec["containers"], [spec["initContainers"][position]]
        change(pod)
        spec["initContainers"][position], spec["containers"] = spec["containers"][0], agents

    return changed


def source(**fields: Any) -> Callable[[Pod], None]:
    """Another token in the place of the bridge's."""

    def change(pod: Pod) -> None:
        (token,) = (each for each in pod["spec"]["volumes"] if each["name"] == TOKEN_VOLUME)
        token["projected"]["sources"] = [fields]

    return change


def folder(name: str, path: str) -> Callable[[Pod], None]:
    """Another folder of the node behind a volume that is there."""

    def change(pod: Pod) -> None:
        (found,) = (each for each in pod["spec"]["volumes"] if each["name"] == name)
        found["hostPath"]["path"] = path

    return change
