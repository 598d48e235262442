"""What the container beside an agent is given, and how much of everything may pass between it and the controller.

Both ends take their paths and bounds from here, and so do the manifests. Not here: the messages (`bridge.protocol`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from nanoclaw_runtime.contract import layout, names
from nanoclaw_runtime.contract.config import Resources

ENV_ADDRESS: Final = "NANOCLAW_BRIDGE_ADDRESS"
"""`host:port` of the controller, as agents' pods reach it."""
ENV_SERVER: Final = "NANOCLAW_BRIDGE_SERVER"
"""The name in the certificate, where it is not the host of the address."""
ENV_CERTIFICATE: Final = "NANOCLAW_BRIDGE_CERTIFICATE"
"""The controller's certificate, PEM; the container trusts this one and no other."""
ENV_FOLDER: Final = "NANOCLAW_BRIDGE_FOLDER"
ENV_SESSION: Final = "NANOCLAW_BRIDGE_SESSION"
ENV_GROUP_DIR: Final = "NANOCLAW_BRIDGE_GROUP_DIR"
ENV_IPC_DIR: Final = "NANOCLAW_BRIDGE_IPC_DIR"
ENV_SESSIONS_DIR: Final = "NANOCLAW_BRIDGE_SESSIONS_DIR"
"""Where the container sees the group's three folders, whatever claims they are on."""
ENV_ROOT: Final = "NANOCLAW_BRIDGE_ROOT"
"""Folder with everything of the container's own; `ROOT` when it is not set."""

COMMAND: Final = ("python", "-m", "nanoclaw_runtime.bridge")
"""What the container runs, of the controller's image."""
ROOT: Final = "/bridge"
CLAIMS_DIR: Final = f"{ROOT}/claims"
"""Below it each of the group's claims, whole."""
OWN_DIR: Final = "own"
"""Below the root: what the container remembers while the pod lives. Agents never see it."""
CARRIED_DIR: Final = "carried"
"""Below the root: the project or the shared memory, as fetched; agents mount folders of it."""
TOKEN_DIR: Final = "token"  # noqa: S105
TOKEN_FILE: Final = "token"  # noqa: S105
READY_FILE: Final = f"{OWN_DIR}/ready"
"""There when folders are made, files are fetched and everything that waited has arrived."""

START_SECONDS: Final = 20
"""For the container to be ready, before it is started anew. The kubelet ends a hook for nobody: a pod that is deleted
meanwhile goes only when they are over."""
STARTED: Final = ("timeout", str(START_SECONDS), "sh", "-c", f"until test -e {ROOT}/{READY_FILE}; do sleep 0.05; done")
"""What the kubelet runs in the container, and waits for before it starts the agent."""

OWN_VOLUME: Final = "bridge-own"
CARRIED_VOLUME: Final = "bridge-carried"
TOKEN_VOLUME: Final = "bridge-token"  # noqa: S105
OWN_SIZE: Final = "16Mi"
CARRIED_SIZE: Final = "512Mi"
TOKEN_SECONDS: Final = 600
"""Life of a token; the shortest there is, and the kubelet renews it."""

RESOURCES: Final = Resources(cpu_request="10m", memory_request="48Mi", cpu_limit="500m", memory_limit="128Mi")
"""It rests at 45 to 50 MiB, and holds a follow-up of at most 16 MiB twice for a moment. Starting is what takes CPU."""

LARGEST_INPUT: Final = 17 * 1024 * 1024
"""Bytes of a message to the pod: a follow-up, a snapshot, or a piece of an archive."""
LARGEST_REPORT: Final = 2 * 1024 * 1024
"""Bytes of a message from the pod: a request and little else."""
LARGEST_HELLO: Final = 16 * 1024
"""Bytes of the first message, which anybody can send."""
LARGEST_CARRIED: Final = 256 * 1024 * 1024
"""Bytes on the disk of all files that are fetched at the start; what does not fit stays behind."""
REQUESTS_AT_ONCE: Final = 100
"""Of one folder, that were carried and are not dealt with."""
REQUEST_BYTES_AT_ONCE: Final = 8 * 1024 * 1024
"""Of one agent's requests together, before the last one."""

BEAT: Final = 5.0
"""Seconds after which each end says that it lives."""
SILENCE: Final = 15.0
"""Seconds without a word after which each end gives a stream up."""
POLL: Final = 0.2
"""Seconds between two looks of the container into the folders; an agent's own is `wire.AGENT_POLL`."""
LAST_REPORT: Final = 3.0
"""Seconds the controller waits for the last report of an agent that has ended."""
LAST_HANDLED: Final = 1.2
"""Seconds that a pod with a last report is kept for its requests to be dealt with: the controller looks each second."""
FAREWELL: Final = 1.6
"""Seconds the container takes for that report; its pod's grace is two."""


@dataclass(frozen=True)
class BridgeFacts:
    """Of the controller's end, what a pod has to know; none of it is secret."""

    address: str
    """`host:port`."""
    certificate: str
    """PEM."""


def host(namespace: str) -> str:
    """The controller's name inside the cluster, and the one its certificate is for."""
    return f"{names.CONTROLLER}.{namespace}.svc"


def carried_folder(folder: str) -> tuple[str, str]:
    """What agents of the group see beside their own folders: path below the fetched files, and in the agent."""
    if folder == names.MAIN_FOLDER:
        return layout.PROJECT_DIR, "/workspace/project"
    return layout.GLOBAL_DIR, "/workspace/global"
