"""The pod of an agent, whatever controller owns it.

It passes Pod Security `restricted` and OpenShift's restricted-v2, runs the image's own entry
point, and says nothing about the session's content: input and secrets come over stdin.
"""

from __future__ import annotations

from typing import Any, Final

from nanoclaw_runtime.contract import labels, layout, names, wire
from nanoclaw_runtime.contract.config import ControllerConfig, Pattern, Platform
from nanoclaw_runtime.domain.model import SessionPlan
from nanoclaw_runtime.manifests.bridge import bridge_container, bridge_volumes, carried_mount
from nanoclaw_runtime.manifests.node_volumes import CUT, node_volumes
from nanoclaw_runtime.manifests.permissions_fix import fix_permissions
from nanoclaw_runtime.manifests.scheduling import scheduling
from nanoclaw_runtime.manifests.volumes import claim_volumes, extra_volume_mounts, extra_volumes, volume_mount

Manifest = dict[str, Any]

CONTAINER: Final = "agent"

UID: Final = 1000
"""`node` in the agent image. OpenShift assigns a uid of its own, which the image supports too."""

GRACE: Final = 2
"""Seconds. Agents ignore SIGTERM; asking them to end is the mailbox's job, before anything is deleted."""

PROBE_PERIOD: Final = 5
"""Seconds between two looks whether a parked agent waits. Each starts a process; a start does not wait for it."""

TMP_SIZE: Final = "1Gi"
HOME_SIZE: Final = "1Gi"
"""Scratch space that goes with the pod; beyond it the kubelet evicts."""


def agent_pod(plan: SessionPlan) -> Manifest:
    """Metadata and spec of a session's pod, as every pod template has them."""
    config, folder = plan.config, plan.ref.folder
    on_node = config.pattern is Pattern.NODELOCAL
    cut = CUT if on_node else config.layout
    mounts = layout.agent_mounts(cut, folder, plan.ref.session, config.transport)
    claims = sorted({mount.claim for mount in mounts})
    return {
        "metadata": {
            "labels": session_labels(plan),
            "annotations": _annotations(config, folder) | ({labels.NODE: plan.node} if plan.node else {}),
        },
        "spec": {
            **scheduling(config, {"matchLabels": labels.component(labels.AGENT)}, node=plan.node, near=plan.near),
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": GRACE,
            "serviceAccountName": names.AGENT_ACCOUNT,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": _pod_security(config.platform),
            **_first(plan, mounts),
            "containers": [_container(plan, mounts) | (_waits() if plan.parked else {})],
            "volumes": [
                {"name": "tmp", "emptyDir": {"sizeLimit": TMP_SIZE}},
                {"name": "home", "emptyDir": {"sizeLimit": HOME_SIZE}},
                *(node_volumes(config.node_root, folder, claims) if on_node else claim_volumes(claims)),
                *(bridge_volumes() if config.bridged else []),
                *extra_volumes(plan.extra),
            ],
            **_aliases(config),
        },
    }


def _first(plan: SessionPlan, mounts: tuple[layout.Mount, ...]) -> Manifest:
    """What runs before the agent: volumes get their owner before the bridge makes folders in them."""
    bridge = [bridge_container(plan)] if plan.config.bridged else []
    first = [*fix_permissions(plan.config, mounts), *bridge]
    return {"initContainers": first} if first else {}


def session_labels(plan: SessionPlan) -> dict[str, str]:
    """Of everything that belongs to the session."""
    kind = labels.PARKED if plan.parked else plan.ref.kind.value
    return labels.session(plan.ref.folder, plan.ref.session, kind)


def _waits() -> Manifest:
    """Ready from the moment the agent has compiled on, and not less so when it has its input."""
    compiled = ["test", "-e", wire.PARKED_FILE, "-o", "-e", wire.COMPILED_FILE]
    probe = {"exec": {"command": compiled}, "periodSeconds": PROBE_PERIOD, "timeoutSeconds": PROBE_PERIOD}
    return {"readinessProbe": probe}


def _aliases(config: ControllerConfig) -> Manifest:
    """Answers the look-up of the model's own name, which agents make even where the gateway serves them: 4 s saved."""
    if not (config.closed_network and config.gateway):
        return {}
    return {"hostAliases": [{"ip": "127.0.0.1", "hostnames": [wire.MODEL_HOST]}]}


def _annotations(config: ControllerConfig, folder: str) -> dict[str, str]:
    annotations = {labels.FOLDER: folder}
    if config.platform is Platform.OPENSHIFT:
        # Without it an SCC of higher priority may take the pod and change its user.
        annotations[labels.REQUIRED_SCC] = config.scc
    return annotations


def _pod_security(platform: Platform) -> Manifest:
    settings: Manifest = {
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
        # A recursive change of owner takes minutes on a volume with many files.
        "fsGroupChangePolicy": "OnRootMismatch",
    }
    if platform is Platform.KUBERNETES:
        settings |= {"runAsUser": UID, "runAsGroup": UID, "fsGroup": UID}
    return settings


def _container(plan: SessionPlan, mounts: tuple[layout.Mount, ...]) -> Manifest:
    config, extra = plan.config, plan.extra
    agent = config.agent
    quiet = wire.QUIET_ENV if config.closed_network else {}
    environment = quiet | agent.env | {"HOME": wire.AGENT_HOME, "TZ": config.timezone}
    return {
        "name": CONTAINER,
        "image": agent.image,
        "imagePullPolicy": agent.image_pull_policy,
        "stdin": True,
        "stdinOnce": True,
        "tty": False,
        "env": [{"name": name, "value": environment[name]} for name in sorted(environment)],
        "resources": {
            "requests": {"cpu": agent.resources.cpu_request, "memory": agent.resources.memory_request},
            "limits": {"cpu": agent.resources.cpu_limit, "memory": agent.resources.memory_limit},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108  # the agent compiles into it
            {"name": "home", "mountPath": wire.AGENT_HOME},
            *(volume_mount(mount.claim, mount.path, mount.sub_path, read_only=mount.read_only) for mount in mounts),
            *([carried_mount(plan.ref.folder)] if config.bridged else []),
            *extra_volume_mounts(extra),
        ],
    }
