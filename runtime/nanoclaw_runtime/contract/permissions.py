"""What the controller may do in its namespace, and nothing beyond.

The Role is rendered from this list, and the tests run the controller with exactly that Role.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from nanoclaw_runtime.contract import names


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
