"""Labels and annotations on everything that belongs to an installation.

The controller finds its own by `AGENT_SELECTOR`; users may add labels, never with our prefix.
"""

from __future__ import annotations

from typing import Final

from nanoclaw_runtime.contract import names

PREFIX: Final = "nanoclaw.dev/"

NAME: Final = "app.kubernetes.io/name"
COMPONENT: Final = "app.kubernetes.io/component"
PART_OF: Final = "app.kubernetes.io/part-of"

GROUP: Final = f"{PREFIX}group"
"""Label: the slug of the group."""
SESSION: Final = f"{PREFIX}session"
"""Label: the session an object was made for."""
FOLDER: Final = f"{PREFIX}folder"
"""Annotation: the group's folder as NanoClaw writes it."""
KIND: Final = f"{PREFIX}session-kind"
"""Label: `messages`, `task` or `parked`."""
NODE: Final = f"{PREFIX}node"
"""Annotation: the node a session belongs to, with the pattern `nodelocal`."""
PARKED: Final = "parked"
"""Value of `KIND` of what was made before its message. It keeps it when the message has come."""
FINGERPRINT: Final = f"{PREFIX}fingerprint"
"""Annotation of what was parked: a hash of everything its pod is made of."""
TRANSPORT: Final = f"{PREFIX}transport"
"""Annotation: how the session's messages reach it; `volume` where it is missing."""
GIVEN: Final = f"{PREFIX}given"
"""Annotation of a StatefulSet: session, and pod (uid) and container (id) with its input; none made later has it."""
INSTALLATION: Final = f"{PREFIX}installation"
"""Label on a Docker host, where no namespace keeps installations apart: which tree a container belongs to."""

CONTROLLER: Final = "controller"
AGENT: Final = "agent"
STORAGE: Final = "storage"
GATEWAY: Final = "gateway"
MONITORING: Final = "monitoring"
PLATFORM: Final = "platform"
"""What belongs to no process: policies, priorities, quotas."""

REQUIRED_SCC: Final = "openshift.io/required-scc"
"""Annotation of a pod: the one SecurityContextConstraints that may admit it."""

AGENT_SELECTOR: Final = f"{NAME}=nanoclaw,{COMPONENT}={AGENT}"
CONTROLLER_SELECTOR: Final = f"{NAME}=nanoclaw,{COMPONENT}={CONTROLLER}"
"""With the pattern `nodelocal` its members, and their leases."""


def component(name: str) -> dict[str, str]:
    """Labels of an object of one component: `controller`, `agent`, `storage`, `gateway`, …."""
    return {NAME: "nanoclaw", PART_OF: "nanoclaw", COMPONENT: name}


def group(folder: str) -> dict[str, str]:
    return {GROUP: names.slug(folder)}


def session(folder: str, session_id: str, kind: str) -> dict[str, str]:
    """Labels of the Job and pod of one session."""
    return component(AGENT) | group(folder) | {SESSION: session_id, KIND: kind}
