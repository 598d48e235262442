"""Declared objects as the policies see them, and what these tell of the stack as a whole.

A policy pack is not reliably told the stack's configuration; so platform and pattern are read from the settings the
controller is given, which are among the objects. A stack is production when it protects data, or when its name
begins with `prod`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from nanoclaw_runtime.contract import labels, names
from nanoclaw_runtime.contract.config import Pattern, Platform

Manifest = dict[str, Any]

_NOT_PRECIOUS: Final = frozenset({names.PROJECT_CLAIM, names.GATEWAY})


@dataclass(frozen=True)
class Declared:
    """One Kubernetes object of a stack, with what the engine was told to do for it."""

    manifest: Manifest
    protect: bool = False
    retain: bool | None = None
    """None where nobody says: the engine does not tell a policy pack."""
    urn: str | None = None

    @property
    def kind(self) -> str:
        return str(self.manifest.get("kind", ""))

    @property
    def name(self) -> str:
        return str(self.manifest.get("metadata", {}).get("name") or "(generated name)")

    @property
    def component(self) -> str:
        return str((self.manifest.get("metadata", {}).get("labels") or {}).get(labels.COMPONENT, ""))

    @property
    def precious(self) -> bool:
        """Whether it holds data that cannot be made again."""
        return self.kind == "Namespace" or (self.kind == "PersistentVolumeClaim" and self.name not in _NOT_PRECIOUS)

    @property
    def pod(self) -> Manifest | None:
        """The spec of its pods, for what has pods."""
        spec = self.manifest.get("spec") or {}
        if self.kind == "Pod":
            return spec
        if self.kind == "CronJob":
            spec = spec["jobTemplate"]["spec"]
        template: Manifest | None = spec.get("template") if isinstance(spec, dict) else None
        return template.get("spec") if template else None

    def containers(self) -> Iterator[tuple[str, Manifest]]:
        """Every container of its pods, and the field it is in."""
        for kind in ("initContainers", "containers"):
            for position, container in enumerate((self.pod or {}).get(kind) or []):
                yield f"{kind}[{position}]", container

    def says(self, place: str, problem: str) -> str:
        """A sentence about a field of this object."""
        return f"{self.kind} {self.name}: {place} {problem}"


@dataclass(frozen=True)
class Stack:
    """All objects of a stack."""

    objects: Sequence[Declared]
    name: str = ""
    settings: Manifest = field(init=False)
    """What the controller is told; empty when there is no controller among the objects."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "settings", _settings(self.objects))

    @property
    def openshift(self) -> bool:
        return self.settings.get("platform") == Platform.OPENSHIFT

    @property
    def nodelocal(self) -> bool:
        return self.settings.get("pattern") == Pattern.NODELOCAL

    @cached_property
    def production(self) -> bool:
        return self.name.startswith("prod") or any(each.protect for each in self.objects if each.precious)

    def images(self) -> Iterator[tuple[Declared, str, str]]:
        """Every image: the object, the field, the reference; the agents' among them."""
        for declared in self.objects:
            for place, container in declared.containers():
                yield declared, f"{place}.image", str(container.get("image", ""))
            if declared.kind == "ConfigMap" and (agent := _settings([declared]).get("agent")):
                yield declared, "agent.image", str(agent.get("image", ""))


def _settings(objects: Sequence[Declared]) -> Manifest:
    for declared in objects:
        if declared.kind == "ConfigMap" and declared.component == labels.CONTROLLER:
            text = (declared.manifest.get("data") or {}).get(names.SETTINGS_KEY)
            if text:
                found: Manifest = json.loads(text)
                return found
    return {}
