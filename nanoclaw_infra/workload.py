"""What the pods of our own Deployments have in common: who they run as, where they run, and how they are probed.

The agents' pods are the runtime's and are not made here; both sides take uid, constraint and
scheduling from the contract.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import pulumi
import pulumi_kubernetes as kubernetes

from nanoclaw_infra.settings.stack import StackSettings
from nanoclaw_runtime.contract import labels, layout, ownership
from nanoclaw_runtime.contract.config import RESTRICTED_SCC, Platform, Resources, Scheduling, Toleration

USER: Final = 1000
"""uid, gid and fsGroup on plain Kubernetes, where nobody else chooses them; the agents' image insists on it."""
ROLL_OUT: Final = "5m"
"""Until new pods are ready, image pull included."""
SCRATCH: Final = "tmp"
"""Volume of the one folder a pod may write to besides its claims."""
SCRATCH_SIZE: Final = "1Gi"
"""Beyond it the kubelet evicts the pod that filled its node, and no other."""


def pod_annotations(settings: StackSettings, *, folders_of_nodes: bool = False) -> dict[str, str] | None:
    """OpenShift's constraint, pinned so that one of higher priority cannot take the pod and give it another uid.

    One that the stack makes is for pods with `folders_of_nodes` alone.
    """
    if settings.runtime.platform is not Platform.OPENSHIFT:
        return None
    own = settings.openshift.make_scc and not folders_of_nodes
    return {labels.REQUIRED_SCC: RESTRICTED_SCC if own else settings.openshift.scc}


def pod_security(settings: StackSettings) -> kubernetes.core.v1.PodSecurityContextArgs:
    profile = kubernetes.core.v1.SeccompProfileArgs(type="RuntimeDefault")
    if settings.runtime.platform is Platform.OPENSHIFT:
        return kubernetes.core.v1.PodSecurityContextArgs(run_as_non_root=True, seccomp_profile=profile)
    return kubernetes.core.v1.PodSecurityContextArgs(
        run_as_non_root=True,
        run_as_user=USER,
        run_as_group=USER,
        fs_group=USER,
        fs_group_change_policy="OnRootMismatch",  # walking every file of every group would delay each start
        seccomp_profile=profile,
    )


def container_security() -> kubernetes.core.v1.SecurityContextArgs:
    return kubernetes.core.v1.SecurityContextArgs(
        allow_privilege_escalation=False,
        read_only_root_filesystem=True,
        capabilities=kubernetes.core.v1.CapabilitiesArgs(drop=["ALL"]),
    )


def owned(
    settings: StackSettings, mounts: Iterable[kubernetes.core.v1.VolumeMountArgs]
) -> list[kubernetes.core.v1.ContainerArgs] | None:
    """What gives these volumes to `USER` before the pod's own container starts, where the stack asks for it."""
    if not settings.runtime.fix_permissions or settings.runtime.platform is not Platform.KUBERNETES:
        return None
    given = list(mounts)
    return [
        kubernetes.core.v1.ContainerArgs(
            name=ownership.NAME,
            image=settings.controller.image,
            image_pull_policy=settings.controller.image_pull_policy,
            command=ownership.command([str(each.mount_path) for each in given]),
            resources=kubernetes.core.v1.ResourceRequirementsArgs(
                requests={"cpu": "10m", "memory": "16Mi"}, limits={"cpu": "500m", "memory": "64Mi"}
            ),
            security_context=kubernetes.core.v1.SecurityContextArgs(
                run_as_user=0,
                run_as_non_root=False,
                allow_privilege_escalation=False,
                read_only_root_filesystem=True,
                capabilities=kubernetes.core.v1.CapabilitiesArgs(drop=["ALL"], add=list(ownership.CAPABILITIES)),
            ),
            volume_mounts=given,
        )
    ]


def resources(given: Resources) -> kubernetes.core.v1.ResourceRequirementsArgs:
    return kubernetes.core.v1.ResourceRequirementsArgs(
        requests={"cpu": given.cpu_request, "memory": given.memory_request},
        limits={"cpu": given.cpu_limit, "memory": given.memory_limit},
    )


def probe(path: str, port: str, *, period: int, failures: int) -> kubernetes.core.v1.ProbeArgs:
    """An HTTP probe; `period` in seconds."""
    return kubernetes.core.v1.ProbeArgs(
        http_get=kubernetes.core.v1.HTTPGetActionArgs(path=path, port=port),
        period_seconds=period,
        timeout_seconds=5,
        failure_threshold=failures,
    )


def tolerations(given: Scheduling) -> list[kubernetes.core.v1.TolerationArgs] | None:
    return [_toleration(each) for each in given.tolerations] or None


def _toleration(given: Toleration) -> kubernetes.core.v1.TolerationArgs:
    return kubernetes.core.v1.TolerationArgs(
        key=given.key,
        operator=given.operator,
        value=given.value,
        effect=given.effect,
        toleration_seconds=given.toleration_seconds,
    )


def pull_secrets(given: Scheduling) -> list[kubernetes.core.v1.LocalObjectReferenceArgs] | None:
    return [kubernetes.core.v1.LocalObjectReferenceArgs(name=name) for name in given.image_pull_secrets] or None


def scratch_volume() -> kubernetes.core.v1.VolumeArgs:
    empty = kubernetes.core.v1.EmptyDirVolumeSourceArgs(size_limit=SCRATCH_SIZE)
    return kubernetes.core.v1.VolumeArgs(name=SCRATCH, empty_dir=empty)


def scratch_mount() -> kubernetes.core.v1.VolumeMountArgs:
    return kubernetes.core.v1.VolumeMountArgs(name=SCRATCH, mount_path="/tmp")  # noqa: S108


def read_only(volume: str, path: str) -> kubernetes.core.v1.VolumeMountArgs:
    return kubernetes.core.v1.VolumeMountArgs(name=volume, mount_path=path, read_only=True)


def mount(given: layout.Mount) -> kubernetes.core.v1.VolumeMountArgs:
    return kubernetes.core.v1.VolumeMountArgs(
        name=given.claim, mount_path=given.path, sub_path=given.sub_path, read_only=given.read_only or None
    )


def claim_volume(claim: str) -> kubernetes.core.v1.VolumeArgs:
    return kubernetes.core.v1.VolumeArgs(
        name=claim,
        persistent_volume_claim=kubernetes.core.v1.PersistentVolumeClaimVolumeSourceArgs(claim_name=claim),
    )


def config_volume(name: str, config_map: pulumi.Input[str]) -> kubernetes.core.v1.VolumeArgs:
    return kubernetes.core.v1.VolumeArgs(
        name=name, config_map=kubernetes.core.v1.ConfigMapVolumeSourceArgs(name=config_map)
    )


def secret_volume(
    name: str, secret: pulumi.Input[str], *, keys: Iterable[str] = (), optional: bool | None = None
) -> kubernetes.core.v1.VolumeArgs:
    """The Secret, or only some of its keys; with `optional` the pod starts without those that are missing."""
    return kubernetes.core.v1.VolumeArgs(
        name=name,
        secret=kubernetes.core.v1.SecretVolumeSourceArgs(
            secret_name=secret,
            default_mode=0o440,  # the pod's group reads it
            items=[kubernetes.core.v1.KeyToPathArgs(key=key, path=key) for key in keys] or None,
            optional=optional,
        ),
    )


def disruption_budget(
    name: str,
    metadata: kubernetes.meta.v1.ObjectMetaArgs,
    match: dict[str, str],
    opts: pulumi.ResourceOptions,
) -> kubernetes.policy.v1.PodDisruptionBudget:
    """One pod at a time may be evicted: a drain is never blocked, and never takes more than it must."""
    return kubernetes.policy.v1.PodDisruptionBudget(
        name,
        metadata=metadata,
        spec=kubernetes.policy.v1.PodDisruptionBudgetSpecArgs(
            max_unavailable=1, selector=kubernetes.meta.v1.LabelSelectorArgs(match_labels=match)
        ),
        opts=opts,
    )
