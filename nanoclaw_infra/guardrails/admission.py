"""What an admission policy is made of, as data, and which parts of a request its conditions look at.

Not here: which policies there are (`rules`), and how they are declared (the package itself).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from nanoclaw_runtime.contract import names
from nanoclaw_runtime.contract.config import ControllerConfig

OBJECT, SPEC = "object.metadata", "object.spec"
VOLUMES: Final = "object.spec.?volumes.orValue([])"
CONTAINERS: Final = {"containers": "object.spec.containers + object.spec.?initContainers.orValue([])"}
"""Variable with every container of a pod, whenever it runs."""


@dataclass(frozen=True)
class Rule:
    """Must hold, or the request is refused."""

    expression: str
    message: str
    """What is wanted, and what to do."""
    found: str = ""
    """CEL: what is there instead, a string."""


@dataclass(frozen=True)
class Admission:
    """One ValidatingAdmissionPolicy: which requests it looks at, and what it wants of them."""

    name: str
    told: str
    """For whoever finds it in the cluster, where CEL is hard to read."""
    kinds: tuple[tuple[str, str], ...]
    """API group and resource."""
    operations: tuple[str, ...]
    applies: str
    """CEL: whether the object is an agent's."""
    rules: tuple[Rule, ...]
    variables: dict[str, str] = field(default_factory=dict)


def owners(config: ControllerConfig) -> tuple[str, ...]:
    """What makes pods of agents: where groups have claims, each may choose one of the two."""
    return ("Job", "StatefulSet") if config.pattern.has_claims else ("Job",)


def each(condition: str) -> str:
    """Whether every container of the pod, called `each`, meets the condition; needs the variable of `CONTAINERS`."""
    return f"variables.containers.all(each, {condition})"


def every_mount(condition: str) -> str:
    """Whether every mount of every container, called `mount`, meets the condition."""
    return each(f"each.?volumeMounts.orValue([]).all(mount, {condition})")


def is_controller(namespace: str) -> str:
    return f"request.userInfo.username == 'system:serviceaccount:{namespace}:{names.CONTROLLER}'"
