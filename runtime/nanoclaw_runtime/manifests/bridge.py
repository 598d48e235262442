"""The container beside an agent that carries its files, with what it mounts.

It is an init container that goes on, so that the agent starts when it is ready and ends before it does. It sees the
group's claims whole, because it makes the folders that the agent mounts; its token is good for the bridge alone and
is mounted nowhere else.
"""

from __future__ import annotations

from typing import Any

from nanoclaw_runtime.contract import bridge, layout, names, wire
from nanoclaw_runtime.contract.bridge import BridgeFacts
from nanoclaw_runtime.contract.claims import Layout
from nanoclaw_runtime.contract.config import Transport
from nanoclaw_runtime.domain.model import SessionPlan
from nanoclaw_runtime.manifests.volumes import volume_mount

Manifest = dict[str, Any]


def bridge_container(plan: SessionPlan) -> Manifest:
    """A native sidecar: Kubernetes 1.29 or newer."""
    config = plan.config
    resources = bridge.RESOURCES
    claims = sorted({mount.claim for mount in _mounts(plan)})
    return {
        "name": names.BRIDGE,
        "image": config.bridge_image,
        "imagePullPolicy": config.agent.image_pull_policy,
        "command": list(bridge.COMMAND),
        "restartPolicy": "Always",
        "env": [{"name": name, "value": value} for name, value in sorted(_environment(plan).items())],
        "resources": {
            "requests": {"cpu": resources.cpu_request, "memory": resources.memory_request},
            "limits": {"cpu": resources.cpu_limit, "memory": resources.memory_limit},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        # Behind a hook the kubelet goes on to the agent at once; a startup probe would be looked at once a second.
        "lifecycle": {"postStart": {"exec": {"command": list(bridge.STARTED)}}},
        "volumeMounts": [
            {"name": bridge.OWN_VOLUME, "mountPath": f"{bridge.ROOT}/{bridge.OWN_DIR}"},
            {"name": bridge.CARRIED_VOLUME, "mountPath": f"{bridge.ROOT}/{bridge.CARRIED_DIR}"},
            {"name": bridge.TOKEN_VOLUME, "mountPath": f"{bridge.ROOT}/{bridge.TOKEN_DIR}", "readOnly": True},
            *({"name": claim, "mountPath": f"{bridge.CLAIMS_DIR}/{claim}"} for claim in claims),
        ],
    }


def bridge_volumes() -> list[Manifest]:
    """Beside the group's claims."""
    token = {
        "audience": names.BRIDGE_AUDIENCE,
        "expirationSeconds": bridge.TOKEN_SECONDS,
        "path": bridge.TOKEN_FILE,
    }
    return [
        {"name": bridge.OWN_VOLUME, "emptyDir": {"sizeLimit": bridge.OWN_SIZE}},
        {"name": bridge.CARRIED_VOLUME, "emptyDir": {"sizeLimit": bridge.CARRIED_SIZE}},
        {"name": bridge.TOKEN_VOLUME, "projected": {"sources": [{"serviceAccountToken": token}]}},
    ]


def carried_mount(folder: str) -> Manifest:
    """Where the agent sees what was fetched for it."""
    sub_path, path = bridge.carried_folder(folder)
    return volume_mount(bridge.CARRIED_VOLUME, path, sub_path, read_only=True)


def _environment(plan: SessionPlan) -> dict[str, str]:
    facts = plan.bridge or BridgeFacts("", "")  # of a pod that is only shown, to an admission plug-in say
    group, ipc, sessions = _folders(plan)
    return {
        bridge.ENV_ADDRESS: facts.address,
        bridge.ENV_CERTIFICATE: facts.certificate,
        bridge.ENV_FOLDER: plan.ref.folder,
        bridge.ENV_SESSION: plan.ref.session,
        bridge.ENV_GROUP_DIR: group,
        bridge.ENV_IPC_DIR: ipc,
        bridge.ENV_SESSIONS_DIR: sessions,
    }


def _folders(plan: SessionPlan) -> list[str]:
    """The group's folders as the container sees them."""
    mounts = {mount.path: mount for mount in _mounts(plan)}
    wanted = (mounts[path] for path in ("/workspace/group", "/workspace/ipc", f"{wire.AGENT_HOME}/.claude"))
    return ["/".join(filter(None, (bridge.CLAIMS_DIR, each.claim, each.sub_path))) for each in wanted]


def _mounts(plan: SessionPlan) -> tuple[layout.Mount, ...]:
    assert plan.config.layout is not Layout.SHARED, "a bridged group's claims are its own"
    return layout.agent_mounts(plan.config.layout, plan.ref.folder, plan.ref.session, Transport.BRIDGE)
