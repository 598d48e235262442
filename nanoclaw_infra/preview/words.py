"""What things are for and what a change does, in the words of the platform.

Only what the contract or the program decides is said; of anything else the fields speak.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from nanoclaw_infra.preview.changes import AUTONAMED, Operation, Resource
from nanoclaw_infra.preview.difference import Difference
from nanoclaw_infra.preview.switches import switched
from nanoclaw_runtime.contract import claims, labels, names
from nanoclaw_runtime.contract.claims import Claim, Layout, Purpose

Code = Callable[[str], str]
"""Shows text of unknown origin."""

_OF_GROUP: Final = {
    Purpose.GROUP: "files and memory of group",
    Purpose.IPC: "requests and follow-ups under way of group",
    Purpose.SESSIONS: "conversations of group",
    Purpose.FOLDER: "conversations, files and memory of group",
}
_OF_ALL: Final = {
    Purpose.STORE: "the database: messages, answers and tasks of all groups",
    Purpose.DATA: "everything of all groups: conversations, files and memory",
    Purpose.GLOBAL: "the memory all groups share",
    Purpose.USAGE: "what groups used of the model, and of today's budget",
    Purpose.PROJECT: "the project pushed for main's agent, which can be pushed again",
}
_HEADINGS: Final = {
    "namespace": "Namespace",
    "access": "Accounts and rights",
    "storage": "Storage",
    "network": "Network",
    "controller": "Controller",
    "credentials": "Credentials",
    "gateway": "Model gateway",
    "openshift": "OpenShift",
    "priorities": "Priorities",
    "guardrails": "Limits",
    "monitoring": "Monitoring",
}


def heading(resource: Resource, code: Code) -> str:
    """The part of the installation a resource belongs to."""
    if (folder := group_of(resource)) is not None:
        return f"Group {code(folder)}"
    areas = [link.split(":")[1] for link in resource.type.split("$") if link.startswith("nanoclaw:") and ":" in link]
    return _HEADINGS.get(areas[-1], code(areas[-1])) if areas else "Others"


def group_of(resource: Resource) -> str | None:
    """The folder of the group a resource was made for, or None."""
    folder = resource.metadata_map("annotations").get(labels.FOLDER) or resource.metadata_map("labels").get(
        labels.GROUP
    )
    return folder if isinstance(folder, str) and folder else None


def holds(resource: Resource, code: Code) -> str:
    """What is lost when the resource goes with its data."""
    if resource.kind == "Namespace":
        return "everything in it: all conversations, files, the database, and what others put there"
    if resource.kind == "PersistentVolume":
        return "the data on this volume"
    folder = group_of(resource)
    if (claim := _claim(resource.name, folder)) is None:
        return "data this program knows nothing of"
    if claim.folder is not None:
        return f"{_OF_GROUP[claim.purpose]} {code(claim.folder)}"
    return _OF_ALL[claim.purpose]


def _claim(name: str, folder: str | None) -> Claim | None:
    known = [claim for layout in Layout for claim in claims.installation_claims(layout)]
    known += claims.gateway_claims()
    if folder is not None and names.folder_problem(folder) is None:
        known += [claim for layout in Layout for claim in claims.group_claims(layout, folder)]
    return next((claim for claim in known if claim.name == name), None)


def effect(resource: Resource, found: Sequence[Difference]) -> str | None:
    """What applying the change does, or None where nobody here knows."""
    if resource.operation not in {Operation.UPDATE, Operation.REPLACE}:
        return None
    if any(each.path == "metadata.namespace" for each in found):
        return "moves to another namespace; what runs in the old one is not followed"
    if resource.kind in {"Deployment", "StatefulSet", "DaemonSet"}:
        return _rollout(resource, found)
    if any(path.startswith(("data", "stringData")) for path in (*(each.path for each in found), *resource.touched)):
        told = _BY_NAME.get((resource.kind, _base(resource)))
        return "; ".join([told, *_switches(resource, found)]) if told is not None else None
    return _BY_KIND.get(resource.kind) if resource.operation is Operation.UPDATE else None


def _switches(resource: Resource, found: Sequence[Difference]) -> list[str]:
    if _base(resource) != _SETTINGS:
        return []
    data = resource.new.get("data")
    return switched(found, data.get(names.SETTINGS_KEY) if isinstance(data, dict) else None)


_SETTINGS: Final = "nanoclaw-settings"
_BY_NAME: Final = {
    ("ConfigMap", _SETTINGS): "settings: the controller starts anew with them; running sessions go on",
    ("ConfigMap", names.GROUPS_CONFIG): "groups change live: the controller sees them within seconds",
    ("Secret", names.CREDENTIALS): "agents get the new credentials at their next start; nothing restarts",
    ("Secret", names.API_TOKEN): "the API accepts the new token at once, and the old one no more",
}
_BY_KIND: Final = {
    "Role": "rights change",
    "ClusterRole": "rights change, in the whole cluster",
    "RoleBinding": "who has the rights changes",
    "ClusterRoleBinding": "who has the rights changes, in the whole cluster",
    "NetworkPolicy": "who may reach whom changes",
    "ResourceQuota": "the namespace's limits change; what runs goes on",
    "LimitRange": "limits of pods to come change; what runs goes on",
    "Service": "the API's address may change for a moment",
}


def _base(resource: Resource) -> str:
    """The name as the program wrote it, without the suffix of a generated one."""
    generated = resource.metadata_map("annotations").get(AUTONAMED) == "true"
    return resource.name.rpartition("-")[0] if generated else resource.name


def _rollout(resource: Resource, found: Sequence[Difference]) -> str | None:
    ours = resource.name == names.CONTROLLER
    if resource.operation is Operation.REPLACE:
        return "the controller is removed and made again" if ours else "its pods are made again"
    if any(each.path.startswith("spec.template") for each in found):
        return "rolls the controller: a new pod; running sessions go on" if ours else "rolls its pods"
    return None
