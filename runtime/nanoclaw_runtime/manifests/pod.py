"""The pod of an agent, whatever controller owns it.

It passes Pod Security `restricted` and OpenShift's restricted-v2, runs the image's own entry
point, and says nothing about the session's content: input and secrets come over stdin.
"""

from __future__ import annotations

from typing import Any, Final

from nanoclaw_runtime.contract import labels, layout, names, wire
from nanoclaw_runtime.contract.config import ControllerConfig, Platform
from nanoclaw_runtime.domain.model import SessionPlan

Manifest = dict[str, Any]

CONTAINER: Final = "agent"

UID: Final = 1000
"""`node` in the agent image. OpenShift assigns a uid of its own, which the image supports too."""

GRACE: Final = 2
"""Seconds. Agents ignore SIGTERM; asking them to end is the mailbox's job, before anything is deleted."""

TMP_SIZE: Final = "1Gi"
HOME_SIZE: Final = "1Gi"
"""Scratch space that goes with the pod; beyond it the kubelet evicts."""


def agent_pod(plan: SessionPlan) -> Manifest:
    """Metadata and spec of a session's pod, as every pod template has them."""
    config, folder = plan.config, plan.ref.folder
    mounts = layout.agent_mounts(config.layout, folder)
    claims = sorted({mount.claim for mount in mounts})
    return {
        "metadata": {
            "labels": labels.session(folder, plan.ref.session, plan.ref.kind.value),
            "annotations": _annotations(config, folder),
        },
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": GRACE,
            "serviceAccountName": names.AGENT_ACCOUNT,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": _pod_security(config.platform),
            "containers": [_container(config, mounts)],
            "volumes": [
                {"name": "tmp", "emptyDir": {"sizeLimit": TMP_SIZE}},
                {"name": "home", "emptyDir": {"sizeLimit": HOME_SIZE}},
                *({"name": claim, "persistentVolumeClaim": {"claimName": claim}} for claim in claims),
            ],
        },
    }


def _annotations(config: ControllerConfig, folder: str) -> dict[str, str]:
    annotations = {labels.FOLDER: folder}
    if config.platform is Platform.OPENSHIFT:
        # Without it an SCC of higher priority may take the pod and change its user.
        annotations["openshift.io/required-scc"] = "restricted-v2"
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


def _container(config: ControllerConfig, mounts: tuple[layout.Mount, ...]) -> Manifest:
    agent = config.agent
    environment = agent.env | {"HOME": wire.AGENT_HOME, "TZ": config.timezone}
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
            *(_volume_mount(mount) for mount in mounts),
        ],
    }


def _volume_mount(mount: layout.Mount) -> Manifest:
    made: Manifest = {"name": mount.claim, "mountPath": mount.path}
    if mount.sub_path:
        made["subPath"] = mount.sub_path
    if mount.read_only:
        made["readOnly"] = True
    return made
