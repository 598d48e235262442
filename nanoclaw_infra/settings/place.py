"""Where an installation lives: which cluster, which namespace, and what the namespace allows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, Field, field_validator

from nanoclaw_infra.settings.base import Settings
from nanoclaw_runtime.contract import quantities
from nanoclaw_runtime.contract.quantities import Quantity

_NAMESPACE: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_HARD: Final = re.compile(r"^[a-z0-9./-]+$")


def _valid_hard(hard: dict[str, str]) -> dict[str, str]:
    for resource, amount in hard.items():
        if not _HARD.fullmatch(resource):
            raise ValueError(f"{resource!r} is no resource of a quota; write one like 'pods' or 'requests.memory'")
        if amount != "0":
            quantities.parse(amount)
    return hard


class ContainerLimits(Settings):
    """What a container of the namespace gets when it asks for nothing, and the most it may ask for."""

    default_cpu: Quantity = "500m"
    """Limit of a container that names none."""
    default_memory: Quantity = "512Mi"
    """Limit of a container that names none."""
    max_cpu: Quantity | None = None
    """No bound when it is left out."""
    max_memory: Quantity | None = None
    """No bound when it is left out."""


class NamespaceSettings(Settings):
    """Where the installation lives. Everything of it, agents included, is in one namespace."""

    name: str = "nanoclaw"
    """A namespace of its own; never one of the cluster."""
    create: bool = True
    """Whether the stack makes the namespace; `false` when somebody else hands out namespaces."""
    quota: Annotated[dict[str, str], AfterValidator(_valid_hard)] = Field(default_factory=dict)
    """A ResourceQuota for all of it, as Kubernetes names resources: `pods`, `requests.cpu`, `requests.storage`, …."""
    container_limits: ContainerLimits | None = None
    """A LimitRange for whatever else runs in the namespace; ours says what it needs."""

    @field_validator("name")
    @classmethod
    def _usable(cls, name: str) -> str:
        if not _NAMESPACE.fullmatch(name):
            raise ValueError(f"{name!r} is no namespace; write 1 to 63 lower-case letters, digits and '-'")
        if name == "default" or name.startswith(("kube-", "openshift-")):
            raise ValueError(f"{name!r} belongs to the cluster; write a namespace of its own, like 'nanoclaw'")
        return name


class ClusterSettings(Settings):
    """Which cluster; never the ambient context."""

    kubeconfig: str = "~/.kube/config"
    """Path of a kubeconfig; `~` and `$VARIABLES` are expanded."""
    context: str | None = None
    """Context in it; its current one when left out."""

    @field_validator("kubeconfig")
    @classmethod
    def _exists(cls, kubeconfig: str) -> str:
        if not _is_file(kubeconfig):
            raise ValueError(
                f"there is no file {kubeconfig!r}; write the path of a kubeconfig (for the embedded cluster: `make up`)"
            )
        return kubeconfig


def _is_file(path: str) -> bool:
    try:
        return Path(path).expanduser().is_file()
    except (OSError, RuntimeError):  # one that may not be looked at, or of a user that is not
        return False
