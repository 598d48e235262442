"""Which changes take data away, whether somebody permitted it in writing, and what becomes of the rest.

A permission is a line `Kind/name` in `nanoclaw:settings.allowDataLoss` of the stack; one for a Namespace
that goes covers what is in it. Nothing here stops anything: the command's exit status does.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from nanoclaw_infra.preview.changes import Operation, Resource
from nanoclaw_runtime.contract import quantities

SETTING: Final = "allowDataLoss"
"""Key in `nanoclaw:settings`: a list of Kind/name."""

_CARRIERS: Final = frozenset({"Namespace", "PersistentVolumeClaim", "PersistentVolume"})


class Fate(Enum):
    """What becomes of an object and its data."""

    GONE = "gone"
    REFUSED = "refused"
    """Protected: the engine stops before it touches anything."""
    KEPT = "kept"
    """The stack lets go of it; the cluster keeps it."""


@dataclass(frozen=True)
class Loss:
    """An object with data that is replaced or deleted."""

    resource: Resource
    fate: Fate
    permission: str | None
    """The line that permits it, where one is needed and written."""

    @property
    def unpermitted(self) -> bool:
        return self.fate is Fate.GONE and self.permission is None


def losses(changes: Iterable[Resource], permissions: frozenset[str], *, failed: bool) -> list[Loss]:
    """Every object with data that would be replaced or deleted, what needs a permission first.

    Protection counts only where the preview `failed`: an engine that went on did not refuse.
    """
    leaving = [each for each in changes if each.operation in {Operation.DELETE, Operation.REPLACE}]
    fates = {id(each): _alone(each, failed=failed) for each in leaving}
    doomed = {each.name: each for each in leaving if each.kind == "Namespace" and fates[id(each)] is Fate.GONE}
    found = [
        _loss(each, fates[id(each)], doomed, permissions)
        for each in leaving
        if each.kind in _CARRIERS or each.protected or each.retained
    ]
    return sorted(found, key=lambda loss: (not loss.unpermitted, list(Fate).index(loss.fate), loss.resource.kind))


def _loss(resource: Resource, fate: Fate, doomed: Mapping[str, Resource], permissions: frozenset[str]) -> Loss:
    around = doomed.get(resource.namespace or "")
    if fate is Fate.KEPT and around is not None:
        fate = Fate.GONE  # the cluster deletes what is in a namespace, whatever the stack let go of
    asked = [resource.reference, *([around.reference] if around is not None else [])]
    permission = next((line for line in asked if line in permissions), None)
    return Loss(resource, fate, permission if fate is Fate.GONE else None)


def _alone(resource: Resource, *, failed: bool) -> Fate:
    if resource.protected and failed:
        return Fate.REFUSED
    return Fate.KEPT if resource.retained else Fate.GONE


def permissions(config: Mapping[str, Any]) -> frozenset[str]:
    """The permissions written in the stack's configuration, as the engine shows it."""
    settings = config.get("nanoclaw:settings")
    if isinstance(settings, str):
        try:
            settings = json.loads(settings)
        except ValueError:
            return frozenset()
    written = settings.get(SETTING) if isinstance(settings, dict) else None
    return frozenset(each for each in written if isinstance(each, str)) if isinstance(written, list) else frozenset()


def warning(resource: Resource) -> str | None:
    """What a reviewer should know of a claim or StatefulSet that stays, or None."""
    if resource.operation is Operation.UPDATE and resource.kind == "PersistentVolumeClaim":
        return _resized(resource)
    templates = (_at(resource.old, "volumeClaimTemplates"), _at(resource.new, "volumeClaimTemplates"))
    if resource.kind == "StatefulSet" and resource.operation is Operation.REPLACE and templates[0] != templates[1]:
        return "its volumeClaimTemplates change: claims made from the old ones stay as they are, and keep their data"
    return None


def _resized(resource: Resource) -> str | None:
    try:
        before, after = (quantities.parse(_size(side)) for side in (resource.old, resource.new))
    except ValueError:
        return None
    if after > before:
        return "grows; nothing is lost, and its StorageClass has to allow expansion"
    return "would shrink, which Kubernetes refuses for a claim that is in use" if after < before else None


def _size(manifest: Mapping[str, Any]) -> str:
    requests = _at(manifest, "resources", "requests")
    return str(requests.get("storage", "")) if isinstance(requests, dict) else ""


def _at(manifest: Mapping[str, Any], *path: str) -> Any:
    node: Any = manifest
    for key in ("spec", *path):
        node = node.get(key) if isinstance(node, dict) else None
    return node
