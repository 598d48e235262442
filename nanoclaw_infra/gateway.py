"""The model gateway: a small Deployment that holds the model's key, so that no agent and no controller does.

Its settings are an immutable ConfigMap with a generated name, so a change rolls the pod. The Secrets
change in place: it reads them anew for each call. Agents reach one port, kubelet and Prometheus another.
"""

from __future__ import annotations

import secrets
from typing import Final

import pulumi
import pulumi_kubernetes as kubernetes

from nanoclaw_infra import workload
from nanoclaw_infra.namespace import Namespace
from nanoclaw_infra.settings.stack import StackSettings
from nanoclaw_infra.settings.told import CONTROLLER_PRIORITY, priority_class
from nanoclaw_infra.storage import declare
from nanoclaw_runtime.contract import claims, config, gateway, labels, names, wire

STOP_GRACE: Final = 30
"""Seconds for calls under way to end, and for what they used to be written."""

_SETTINGS_VOLUME: Final = "settings"
_CREDENTIALS_VOLUME: Final = "credentials"
_KEY_VOLUME: Final = "gateway-key"
_OURS: Final = labels.component(labels.GATEWAY)


class GatewayKey(pulumi.ComponentResource):
    """The key that placeholders are signed with, made once; nothing where the stack has no gateway."""

    secret: pulumi.Output[str] | None = None
    """Name of the Secret, for the pods of the controller and of the gateway."""

    def __init__(
        self, name: str, settings: StackSettings, namespace: Namespace, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("nanoclaw:gateway:GatewayKey", name, {}, opts)
        if settings.gateway.enabled:
            stash = pulumi.Stash(
                names.GATEWAY_KEY,
                input=pulumi.Output.secret(secrets.token_urlsafe(32)),
                opts=pulumi.ResourceOptions(parent=self, ignore_changes=["input"]),
            )
            made = kubernetes.core.v1.Secret(
                names.GATEWAY_KEY,
                metadata=_metadata(names.GATEWAY_KEY, namespace),
                string_data={names.GATEWAY_KEY_KEY: pulumi.Output.secret(stash.output).apply(str)},
                opts=pulumi.ResourceOptions(parent=self, deleted_with=namespace.goes_with_it),
            )
            self.secret = made.metadata.name
        self.register_outputs({})


class Gateway(pulumi.ComponentResource):
    """One gateway, replaced and never doubled: it alone writes what groups used."""

    def __init__(
        self,
        name: str,
        settings: StackSettings,
        *,
        namespace: Namespace,
        key: pulumi.Input[str],
        credentials: pulumi.Input[str],
        after: list[pulumi.Resource],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """`key` and `credentials` name Secrets: what placeholders are signed with, and the model's real key."""
        super().__init__("nanoclaw:gateway:Gateway", name, {}, opts)
        options = pulumi.ResourceOptions(parent=self, deleted_with=namespace.goes_with_it)
        told = kubernetes.core.v1.ConfigMap(
            names.GATEWAY,
            metadata=_metadata(None, namespace),
            immutable=True,
            data={names.SETTINGS_KEY: settings.gateway.serves.model_dump_json(by_alias=True, indent=2)},
            opts=options,
        )
        account = kubernetes.core.v1.ServiceAccount(
            names.GATEWAY,
            metadata=_metadata(names.GATEWAY, namespace),
            automount_service_account_token=False,
            opts=options,
        )
        usage = declare(claims.gateway_claims(), settings, namespace, parent=self)
        volumes = [
            workload.config_volume(_SETTINGS_VOLUME, told.metadata.name),
            workload.secret_volume(_KEY_VOLUME, key),
            # One of them is there; which, the gateway sees, and is not ready with none.
            workload.secret_volume(_CREDENTIALS_VOLUME, credentials, keys=wire.MODEL_KEYS, optional=True),
            workload.claim_volume(names.GATEWAY),
            workload.scratch_volume(),
        ]
        kubernetes.apps.v1.Deployment(
            names.GATEWAY,
            metadata=_metadata(names.GATEWAY, namespace),
            spec=kubernetes.apps.v1.DeploymentSpecArgs(
                replicas=1,
                strategy=kubernetes.apps.v1.DeploymentStrategyArgs(type="Recreate"),
                revision_history_limit=3,
                selector=kubernetes.meta.v1.LabelSelectorArgs(match_labels=_OURS),
                template=_pod(settings, account.metadata.name, volumes),
            ),
            opts=pulumi.ResourceOptions.merge(
                options,
                pulumi.ResourceOptions(
                    depends_on=[*usage, *after],
                    custom_timeouts=pulumi.CustomTimeouts(create=workload.ROLL_OUT, update=workload.ROLL_OUT),
                ),
            ),
        )
        workload.disruption_budget(names.GATEWAY, _metadata(names.GATEWAY, namespace), _OURS, options)
        _service(namespace, options)
        self.register_outputs({})


def _metadata(
    name: str | None, namespace: Namespace, annotations: dict[str, str] | None = None
) -> kubernetes.meta.v1.ObjectMetaArgs:
    return kubernetes.meta.v1.ObjectMetaArgs(name=name, namespace=namespace.name, labels=_OURS, annotations=annotations)


def _service(namespace: Namespace, options: pulumi.ResourceOptions) -> None:
    ports = {gateway.PORT_NAME: names.GATEWAY_PORT, gateway.OPERATIONS_PORT_NAME: gateway.OPERATIONS_PORT}
    kubernetes.core.v1.Service(
        names.GATEWAY,
        # Its readiness is the Deployment's, and that is awaited.
        metadata=_metadata(names.GATEWAY, namespace, annotations={"pulumi.com/skipAwait": "true"}),
        spec=kubernetes.core.v1.ServiceSpecArgs(
            selector=_OURS,
            ports=[
                kubernetes.core.v1.ServicePortArgs(name=name, port=port, target_port=name)
                for name, port in ports.items()
            ],
        ),
        opts=options,
    )


def _pod(
    settings: StackSettings, account: pulumi.Input[str], volumes: list[kubernetes.core.v1.VolumeArgs]
) -> kubernetes.core.v1.PodTemplateSpecArgs:
    scheduling = settings.gateway.scheduling
    # Without it no agent works, as without the controller.
    priority = priority_class(settings, CONTROLLER_PRIORITY) if settings.priorities.enabled else None
    return kubernetes.core.v1.PodTemplateSpecArgs(
        metadata=kubernetes.meta.v1.ObjectMetaArgs(labels=_OURS, annotations=workload.pod_annotations(settings)),
        spec=kubernetes.core.v1.PodSpecArgs(
            service_account_name=account,
            automount_service_account_token=False,
            enable_service_links=False,
            termination_grace_period_seconds=STOP_GRACE,
            security_context=workload.pod_security(settings),
            node_selector=scheduling.node_selector or None,
            tolerations=workload.tolerations(scheduling),
            runtime_class_name=scheduling.runtime_class,
            priority_class_name=scheduling.priority_class or priority,
            image_pull_secrets=workload.pull_secrets(scheduling),
            init_containers=workload.owned(settings, [_usage_mount()]),
            containers=[_container(settings)],
            volumes=volumes,
        ),
    )


def _usage_mount() -> kubernetes.core.v1.VolumeMountArgs:
    return kubernetes.core.v1.VolumeMountArgs(name=names.GATEWAY, mount_path=gateway.USAGE_DIR)


def _container(settings: StackSettings) -> kubernetes.core.v1.ContainerArgs:
    mounts = {
        _SETTINGS_VOLUME: (config.ENV_CONFIG_DIR, config.CONFIG_DIR),
        _CREDENTIALS_VOLUME: (config.ENV_CREDENTIALS_DIR, config.CREDENTIALS_DIR),
        _KEY_VOLUME: (gateway.ENV_KEY_DIR, gateway.KEY_DIR),
    }
    environment = {**dict(mounts.values()), gateway.ENV_USAGE_DIR: gateway.USAGE_DIR}
    operations = gateway.OPERATIONS_PORT_NAME
    return kubernetes.core.v1.ContainerArgs(
        name=labels.GATEWAY,
        image=settings.controller.image,
        image_pull_policy=settings.controller.image_pull_policy,
        command=["python", "-m", "nanoclaw_runtime.gateway"],
        env=[kubernetes.core.v1.EnvVarArgs(name=name, value=value) for name, value in environment.items()],
        ports=[
            kubernetes.core.v1.ContainerPortArgs(name=gateway.PORT_NAME, container_port=names.GATEWAY_PORT),
            kubernetes.core.v1.ContainerPortArgs(name=operations, container_port=gateway.OPERATIONS_PORT),
        ],
        startup_probe=workload.probe("/healthz", operations, period=1, failures=60),
        liveness_probe=workload.probe("/healthz", operations, period=20, failures=3),
        readiness_probe=workload.probe("/readyz", operations, period=2, failures=3),
        resources=workload.resources(settings.gateway.resources),
        security_context=workload.container_security(),
        volume_mounts=[
            *(workload.read_only(volume, path) for volume, (_, path) in mounts.items()),
            _usage_mount(),
            workload.scratch_mount(),
        ],
    )
