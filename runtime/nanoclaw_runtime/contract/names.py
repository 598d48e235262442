"""Names of Kubernetes objects, and which group folders are valid.

A NanoClaw folder may have 64 characters, upper case and underscores; an object name may not.
Folding would make `Team_42` and `team-42` the same claim, so whatever loses information gets a
hash of the original behind it, and so does a folder that merely looks like such a name.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

MAIN_FOLDER: Final = "main"
"""The owner's own group; its agent may see the project and steer the other groups."""

FOLDER_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"
"""What NanoClaw accepts as a group folder."""

OBJECT_PATTERN: Final = r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$"
"""Names of most Kubernetes objects."""

RESERVED_FOLDERS: Final = frozenset({"global", "errors"})
"""Taken by NanoClaw itself, in any case: the shared memory and the folder of refused requests."""

SLUG_LENGTH: Final = 32
"""Characters of a group in object names; leaves room for prefix, session and the pod's own suffix in 63."""

_HASHED: Final = re.compile(r"-[0-9a-f]{10}$")
_LABEL: Final = re.compile(r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")

OWN_PREFIX: Final = "nanoclaw-"
"""How the names of all our objects begin."""
CONTROLLER: Final = "nanoclaw-controller"
"""Deployment, Service and ServiceAccount of the controller."""
CONTROLLER_CONTAINER: Final = "controller"
"""The container of the controller's pod."""
AGENT_ACCOUNT: Final = "nanoclaw-agent"
"""ServiceAccount of agent pods: no token, no rights."""
GROUPS_CONFIG: Final = "nanoclaw-groups"
"""ConfigMap the controller watches; the groups the stack declares."""
GROUPS_KEY: Final = "groups.json"
SETTINGS_KEY: Final = "config.json"
CREDENTIALS: Final = "nanoclaw-credentials"
"""Secret with what agents get on stdin, unless the stack names an existing one."""
API_TOKEN: Final = "nanoclaw-api-token"  # noqa: S105
"""Secret with the bearer token of the controller's API, under `API_TOKEN_KEY`."""
API_TOKEN_KEY: Final = "token"  # noqa: S105

GATEWAY: Final = "nanoclaw-gateway"
"""Deployment, Service, ServiceAccount, claim and settings of the model gateway."""
GATEWAY_KEY: Final = "nanoclaw-gateway-key"
"""Secret with the key the controller signs the agents' placeholders with and the gateway checks them by."""
GATEWAY_KEY_KEY: Final = "key"
GATEWAY_PORT: Final = 8081
BRIDGE: Final = "bridge"
"""The container beside an agent, and the controller's port, that carry files with the transport `bridge`."""
BRIDGE_PORT: Final = 8443
BRIDGE_AUDIENCE: Final = "nanoclaw-bridge"
"""What the token of that container is for; good for nothing else."""
TOKEN_REVIEWER: Final = "nanoclaw-token-reviewer"  # noqa: S105
"""ClusterRole of the controller with the transport `bridge`; its name carries the namespace behind it."""
MEMBER_LEASE_PREFIX: Final = "nanoclaw-member-"
"""Leases by which the controllers of the pattern `nodelocal` show that they live; one a node."""
ASSIGNER_LEASE: Final = "nanoclaw-assigner"
"""Lease of the one of them that assigns groups to nodes."""
ASSIGNMENTS_CONFIG: Final = "nanoclaw-group-assignments"
"""ConfigMap with the node of each group, of the pattern `nodelocal`."""

API_PORT: Final = 8080
API_PORT_NAME: Final = "http"


def folder_problem(folder: str) -> str | None:
    """Why NanoClaw would refuse this group folder, or None when it is valid."""
    if not re.fullmatch(FOLDER_PATTERN, folder):
        return "a folder has 1 to 64 letters, digits, '-' or '_' and starts with a letter or digit"
    if folder.lower() in RESERVED_FOLDERS:
        return f"the folder {folder.lower()!r} is reserved"
    return None


def slug(folder: str) -> str:
    """A DNS-1123 label of at most `SLUG_LENGTH` characters, different for different folders."""
    if len(folder) <= SLUG_LENGTH and _LABEL.fullmatch(folder) and not _HASHED.search(folder):
        return folder
    digest = hashlib.sha256(folder.encode()).hexdigest()[:10]
    readable = re.sub(r"[^a-z0-9]+", "-", folder.lower()).strip("-")[: SLUG_LENGTH - 11].strip("-")
    return f"{readable or 'group'}-{digest}"


def group_claim(folder: str) -> str:
    """The claim mounted at /workspace/group."""
    return f"nanoclaw-group-{slug(folder)}"


def ipc_claim(folder: str) -> str:
    """The claim mounted at /workspace/ipc."""
    return f"nanoclaw-ipc-{slug(folder)}"


def sessions_claim(folder: str) -> str:
    """The claim mounted at /home/node/.claude."""
    return f"nanoclaw-sessions-{slug(folder)}"


def folder_claim(folder: str) -> str:
    """The one claim of a group in the layout `per-group`."""
    return f"nanoclaw-folder-{slug(folder)}"


PROJECT_CLAIM: Final = "nanoclaw-project"
GLOBAL_CLAIM: Final = "nanoclaw-global"
STORE_CLAIM: Final = "nanoclaw-store"
"""The controller's database."""
DATA_CLAIM: Final = "nanoclaw-data"
"""The one claim of the `shared` layout."""


def stateful_set(folder: str) -> str:
    """The StatefulSet of a group, whose pod is `…-0`."""
    return f"nanoclaw-{slug(folder)}"


def job(folder: str, session: str) -> str:
    """The Job of one session, at most 57 characters so that its pod's name fits a label."""
    return f"nanoclaw-{slug(folder)}-{session}"
