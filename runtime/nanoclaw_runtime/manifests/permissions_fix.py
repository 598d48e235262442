"""The init container that gives a group's volumes to the agent, for storage that ignores fsGroup.

Root with two capabilities and nothing else, and only where the stack asks for it; the command is the contract's. It
sees what is the group's own and the agent may write; additional mounts stay as their owners have them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nanoclaw_runtime.contract import ownership, wire
from nanoclaw_runtime.contract.config import ControllerConfig, Platform
from nanoclaw_runtime.contract.layout import Mount
from nanoclaw_runtime.manifests.volumes import volume_mount

Manifest = dict[str, Any]


def fix_permissions(config: ControllerConfig, mounts: Sequence[Mount]) -> list[Manifest]:
    """One container, to run before all others; none unless the stack asks for it."""
    if not config.fix_permissions or config.platform is not Platform.KUBERNETES:
        return []
    own = [mount for mount in mounts if not mount.read_only and not _is_input(mount)]
    container = {
        "name": ownership.NAME,
        "image": config.agent.image,
        "imagePullPolicy": config.agent.image_pull_policy,
        "command": ownership.command([mount.path for mount in own]),
        "resources": {
            "requests": {"cpu": "10m", "memory": "16Mi"},
            "limits": {"cpu": "500m", "memory": "64Mi"},
        },
        "securityContext": {
            "runAsUser": 0,
            "runAsNonRoot": False,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"], "add": list(ownership.CAPABILITIES)},
        },
        "volumeMounts": [volume_mount(mount.claim, mount.path, mount.sub_path, read_only=False) for mount in own],
    }
    return [container]


def _is_input(mount: Mount) -> bool:
    """Part of the group's `ipc`, and one mount inside another would be another volume to `find`."""
    return mount.path == f"/workspace/ipc/{wire.INPUT_DIR}"
