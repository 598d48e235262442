"""The pod of the controller, the same under a Deployment and a DaemonSet: what it mounts, and what it is told where.

Pure: from a stack's settings and the names of what was declared for it. Not here: what keeps it running.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Final

import pulumi
import pulumi_kubernetes as kubernetes

from nanoclaw_infra import workload
from nanoclaw_infra.settings.stack import StackSettings
from nanoclaw_infra.settings.told import CONTROLLER_PRIORITY, priority_class
from nanoclaw_runtime.contract import config, gateway, labels, layout, names, wire
from nanoclaw_runtime.contract.config import Pattern

OURS: Final = labels.component(labels.CONTROLLER)
"""Labels of the pod and of all that belongs to it."""
STOP_GRACE: Final = 30
"""Seconds for the controller to finish its writes; sessions go on without it."""

_CREDENTIALS_VOLUME: Final = "credentials"
_SETTINGS_VOLUME: Final = "settings"
_TOKEN_VOLUME: Final = "api-token"  # noqa: S105
_KEY_VOLUME: Final = "gateway-key"
_NODE_VOLUME: Final = "node"

_FOLDERS: Final = {
    _SETTINGS_VOLUME: (config.ENV_CONFIG_DIR, config.CONFIG_DIR),
    _TOKEN_VOLUME: (config.ENV_API_TOKEN_DIR, config.API_TOKEN_DIR),
    _CREDENTIALS_VOLUME: (config.ENV_CREDENTIALS_DIR, config.CREDENTIALS_DIR),
    _KEY_VOLUME: (gateway.ENV_KEY_DIR, gateway.KEY_DIR),
}
# Volume → the variable that names its folder, and the folder.


def ports(settings: StackSettings) -> dict[str, int]:
    """By name: the API, and where agents' pods keep their files equal with the controller's."""
    bridge = {names.BRIDGE: names.BRIDGE_PORT} if settings.runtime.bridged else {}
    return {names.API_PORT_NAME: names.API_PORT, **bridge}


def controller_pod(
    settings: StackSettings,
    *,
    account: pulumi.Input[str],
    settings_name: pulumi.Input[str],
    api_token: pulumi.Input[str],
    credentials: pulumi.Input[str] | None,
    gateway_key: pulumi.Input[str] | None,
) -> kubernetes.core.v1.PodTemplateSpecArgs:
    """Its template. All but `settings` and `account` are names of what it mounts, None for what this stack has not."""
    secrets = {
        _TOKEN_VOLUME: api_token,
        _CREDENTIALS_VOLUME: credentials if _wants_credentials(settings) else None,
        _KEY_VOLUME: gateway_key,
    }
    mounted = {volume: secret for volume, secret in secrets.items() if secret is not None}
    scheduling = settings.controller.scheduling
    priority = priority_class(settings, CONTROLLER_PRIORITY) if settings.priorities.enabled else None
    volumes = [
        workload.config_volume(_SETTINGS_VOLUME, settings_name),
        *(
            workload.secret_volume(volume, secret, keys=_own_keys(settings) if volume == _CREDENTIALS_VOLUME else ())
            for volume, secret in mounted.items()
        ),
        workload.scratch_volume(),
        *_data_volumes(settings),
    ]
    return kubernetes.core.v1.PodTemplateSpecArgs(
        metadata=kubernetes.meta.v1.ObjectMetaArgs(
            labels=OURS, annotations=workload.pod_annotations(settings, folders_of_nodes=True)
        ),
        spec=kubernetes.core.v1.PodSpecArgs(
            service_account_name=account,
            automount_service_account_token=True,
            enable_service_links=False,  # a variable for every Service of the namespace tells nobody anything
            termination_grace_period_seconds=STOP_GRACE,
            security_context=workload.pod_security(settings),
            node_selector=scheduling.node_selector or None,
            tolerations=workload.tolerations(scheduling),
            runtime_class_name=scheduling.runtime_class,
            priority_class_name=scheduling.priority_class or priority,
            image_pull_secrets=workload.pull_secrets(scheduling),
            init_containers=workload.owned(settings, _data_mounts(settings)),
            containers=[_container(settings, mounted)],
            volumes=volumes,
        ),
    )


def _own_keys(settings: StackSettings) -> tuple[str, ...]:
    """Of the credentials; all of them, unless a gateway keeps the model's key from the controller."""
    if not settings.gateway.enabled:
        return ()
    return (wire.TELEGRAM_TOKEN_KEY,) if settings.runtime.channels.telegram is not None else ()


def _wants_credentials(settings: StackSettings) -> bool:
    return not settings.gateway.enabled or bool(_own_keys(settings))


def _container(settings: StackSettings, secrets: Container[str]) -> kubernetes.core.v1.ContainerArgs:
    controller = settings.controller
    folders = {volume: folder for volume, folder in _FOLDERS.items() if volume == _SETTINGS_VOLUME or volume in secrets}
    environment = {**dict(folders.values()), config.ENV_TREE: str(layout.TREE)}
    return kubernetes.core.v1.ContainerArgs(
        name=names.CONTROLLER_CONTAINER,
        image=controller.image,
        image_pull_policy=controller.image_pull_policy,
        env=[
            *(kubernetes.core.v1.EnvVarArgs(name=name, value=value) for name, value in environment.items()),
            *(_field(name, path) for name, path in _fields(settings).items()),
        ],
        ports=[
            kubernetes.core.v1.ContainerPortArgs(name=name, container_port=port)
            for name, port in ports(settings).items()
        ],
        startup_probe=workload.probe("/healthz", names.API_PORT_NAME, period=1, failures=120),
        liveness_probe=workload.probe("/healthz", names.API_PORT_NAME, period=20, failures=3),
        readiness_probe=workload.probe("/readyz", names.API_PORT_NAME, period=2, failures=3),
        resources=workload.resources(controller.resources),
        security_context=workload.container_security(),
        volume_mounts=[
            *(workload.read_only(volume, path) for volume, (_, path) in folders.items()),
            workload.scratch_mount(),
            *_data_mounts(settings),
        ],
    )


def _fields(settings: StackSettings) -> dict[str, str]:
    """Variable → the field of its pod that it holds; with the pattern `nodelocal` a member says where it is."""
    of_member = {config.ENV_NODE: "spec.nodeName", config.ENV_POD_IP: "status.podIP"}
    nodelocal = settings.runtime.pattern is Pattern.NODELOCAL
    return {config.ENV_NAMESPACE: "metadata.namespace", **(of_member if nodelocal else {})}


def _field(name: str, path: str) -> kubernetes.core.v1.EnvVarArgs:
    source = kubernetes.core.v1.ObjectFieldSelectorArgs(field_path=path)
    return kubernetes.core.v1.EnvVarArgs(name=name, value_from=kubernetes.core.v1.EnvVarSourceArgs(field_ref=source))


def _tree(settings: StackSettings) -> tuple[layout.Mount, ...]:
    folders = [group.folder for group in settings.groups.groups]
    return layout.controller_mounts(settings.runtime.layout, folders, settings.runtime.transport)


def _data_mounts(settings: StackSettings) -> list[kubernetes.core.v1.VolumeMountArgs]:
    if settings.runtime.pattern is Pattern.NODELOCAL:
        return [kubernetes.core.v1.VolumeMountArgs(name=_NODE_VOLUME, mount_path=str(layout.TREE))]
    return [workload.mount(each) for each in _tree(settings)]


def _data_volumes(settings: StackSettings) -> list[kubernetes.core.v1.VolumeArgs]:
    if settings.runtime.pattern is Pattern.NODELOCAL:
        folder = kubernetes.core.v1.HostPathVolumeSourceArgs(
            path=settings.runtime.node_root,
            type="Directory",  # made by whoever runs the nodes, and theirs to own: a kubelet would make it root's
        )
        return [kubernetes.core.v1.VolumeArgs(name=_NODE_VOLUME, host_path=folder)]
    return [workload.claim_volume(claim) for claim in sorted({each.claim for each in _tree(settings)})]
