"""The controller: its Deployment, what it is told, and the Service in front of its API.

What a change does is decided by the kind of object: settings are an immutable ConfigMap with a
generated name, so a change rolls the pod; groups, credentials and the API's token keep their names
and change in place, because the running controller reads them again.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import pulumi
import pulumi_kubernetes as kubernetes

from nanoclaw_infra.access import Access
from nanoclaw_infra.namespace import Namespace
from nanoclaw_infra.settings import Stack
from nanoclaw_infra.settings.told import told
from nanoclaw_runtime.contract import config, labels, layout, names
from nanoclaw_runtime.contract.config import Platform, Resources

USER = 1000
"""uid, gid and fsGroup on plain Kubernetes, where nobody else chooses them; the agents' image insists on it."""
OPENSHIFT_SCC = {"openshift.io/required-scc": "restricted-v2"}
"""Pinned, so that a constraint of higher priority cannot take the pod and give it another uid."""
STOP_GRACE = 30
"""Seconds for the controller to finish its writes; sessions go on without it."""
ROLL_OUT = "5m"
"""Until the new controller is ready, image pull included."""

_CREDENTIALS_VOLUME = "credentials"
_SETTINGS_VOLUME = "settings"
_TOKEN_VOLUME = "api-token"  # noqa: S105
_SCRATCH_VOLUME = "tmp"


class Controller(pulumi.ComponentResource):
    """One controller, replaced and never doubled: it alone writes the database and starts agents."""

    service: pulumi.Output[str]
    """Name of the Service."""

    def __init__(
        self,
        name: str,
        stack: Stack,
        *,
        namespace: Namespace,
        access: Access,
        claims: Sequence[pulumi.Resource],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("nanoclaw:controller:Controller", name, {}, opts)
        self._namespace = namespace
        self._options = pulumi.ResourceOptions(parent=self, deleted_with=namespace.goes_with_it)

        settings = kubernetes.core.v1.ConfigMap(
            "nanoclaw-settings",
            metadata=kubernetes.meta.v1.ObjectMetaArgs(
                namespace=namespace.name, labels=labels.component(labels.CONTROLLER)
            ),
            immutable=True,
            data={names.SETTINGS_KEY: told(stack.settings).model_dump_json(by_alias=True, indent=2)},
            opts=self._options,
        )
        groups = kubernetes.core.v1.ConfigMap(
            names.GROUPS_CONFIG,
            metadata=self._metadata(names.GROUPS_CONFIG),
            data={names.GROUPS_KEY: stack.settings.groups.model_dump_json(by_alias=True, indent=2)},
            opts=self._options,
        )
        token = kubernetes.core.v1.Secret(
            names.API_TOKEN,
            metadata=self._metadata(names.API_TOKEN),
            string_data={names.API_TOKEN_KEY: stack.secrets.api_token or self._generated_token()},
            opts=self._options,
        )
        credentials = self._credentials(stack)
        kubernetes.apps.v1.Deployment(
            names.CONTROLLER,
            metadata=self._metadata(names.CONTROLLER),
            spec=kubernetes.apps.v1.DeploymentSpecArgs(
                replicas=1,
                strategy=kubernetes.apps.v1.DeploymentStrategyArgs(type="Recreate"),
                revision_history_limit=3,
                selector=kubernetes.meta.v1.LabelSelectorArgs(match_labels=labels.component(labels.CONTROLLER)),
                template=_pod(
                    stack,
                    account=access.controller_account,
                    settings=settings.metadata.name,
                    token=token.metadata.name,
                    credentials=credentials,
                ),
            ),
            opts=pulumi.ResourceOptions.merge(
                self._options,
                pulumi.ResourceOptions(
                    depends_on=[access.binding, groups, *claims],
                    custom_timeouts=pulumi.CustomTimeouts(create=ROLL_OUT, update=ROLL_OUT),
                ),
            ),
        )
        service = kubernetes.core.v1.Service(
            names.CONTROLLER,
            metadata=self._metadata(
                names.CONTROLLER,
                # Its readiness is the Deployment's, and that is awaited.
                annotations={"pulumi.com/skipAwait": "true"},
            ),
            spec=kubernetes.core.v1.ServiceSpecArgs(
                selector=labels.component(labels.CONTROLLER),
                ports=[
                    kubernetes.core.v1.ServicePortArgs(
                        name=names.API_PORT_NAME, port=names.API_PORT, target_port=names.API_PORT_NAME
                    )
                ],
            ),
            opts=self._options,
        )
        self.service = service.metadata.name
        self.register_outputs({"service": self.service})

    def _metadata(self, name: str, annotations: dict[str, str] | None = None) -> kubernetes.meta.v1.ObjectMetaArgs:
        return kubernetes.meta.v1.ObjectMetaArgs(
            name=name,
            namespace=self._namespace.name,
            labels=labels.component(labels.CONTROLLER),
            annotations=annotations,
        )

    def _generated_token(self) -> pulumi.Output[str]:
        """A token made at the first `pulumi up` and kept in the state: later inputs are ignored."""
        stash = pulumi.Stash(
            names.API_TOKEN,
            input=pulumi.Output.secret(secrets.token_urlsafe(32)),
            opts=pulumi.ResourceOptions(parent=self, ignore_changes=["input"]),
        )
        return pulumi.Output.secret(stash.output).apply(str)

    def _credentials(self, stack: Stack) -> pulumi.Input[str] | None:
        """Name of the Secret with what agents get on stdin, or None when the stack has none."""
        if stack.secrets.credentials is None:
            return stack.settings.credentials.existing_secret
        secret = kubernetes.core.v1.Secret(
            names.CREDENTIALS,
            metadata=self._metadata(names.CREDENTIALS),
            string_data=stack.secrets.credentials,
            opts=self._options,
        )
        return secret.metadata.name


def _pod(
    stack: Stack,
    account: pulumi.Input[str],
    settings: pulumi.Input[str],
    token: pulumi.Input[str],
    credentials: pulumi.Input[str] | None,
) -> kubernetes.core.v1.PodTemplateSpecArgs:
    openshift = stack.settings.runtime.platform is Platform.OPENSHIFT
    return kubernetes.core.v1.PodTemplateSpecArgs(
        metadata=kubernetes.meta.v1.ObjectMetaArgs(
            labels=labels.component(labels.CONTROLLER), annotations=OPENSHIFT_SCC if openshift else None
        ),
        spec=kubernetes.core.v1.PodSpecArgs(
            service_account_name=account,
            automount_service_account_token=True,
            enable_service_links=False,  # a variable for every Service of the namespace tells nobody anything
            termination_grace_period_seconds=STOP_GRACE,
            security_context=_pod_security(openshift=openshift),
            containers=[_container(stack, with_credentials=credentials is not None)],
            volumes=_volumes(stack, settings=settings, token=token, credentials=credentials),
        ),
    )


def _pod_security(*, openshift: bool) -> kubernetes.core.v1.PodSecurityContextArgs:
    profile = kubernetes.core.v1.SeccompProfileArgs(type="RuntimeDefault")
    if openshift:
        return kubernetes.core.v1.PodSecurityContextArgs(run_as_non_root=True, seccomp_profile=profile)
    return kubernetes.core.v1.PodSecurityContextArgs(
        run_as_non_root=True,
        run_as_user=USER,
        run_as_group=USER,
        fs_group=USER,
        fs_group_change_policy="OnRootMismatch",  # walking every file of every group would delay each start
        seccomp_profile=profile,
    )


def _container(stack: Stack, *, with_credentials: bool) -> kubernetes.core.v1.ContainerArgs:
    controller, runtime = stack.settings.controller, stack.settings.runtime
    folders = [group.folder for group in stack.settings.groups.groups]
    environment = {
        config.ENV_CONFIG_DIR: config.CONFIG_DIR,
        config.ENV_API_TOKEN_DIR: config.API_TOKEN_DIR,
        config.ENV_TREE: str(layout.TREE),
    }
    mounts = {
        _SETTINGS_VOLUME: config.CONFIG_DIR,
        _TOKEN_VOLUME: config.API_TOKEN_DIR,
    }
    if with_credentials:
        environment[config.ENV_CREDENTIALS_DIR] = config.CREDENTIALS_DIR
        mounts[_CREDENTIALS_VOLUME] = config.CREDENTIALS_DIR
    return kubernetes.core.v1.ContainerArgs(
        name=names.CONTROLLER_CONTAINER,
        image=controller.image,
        image_pull_policy=controller.image_pull_policy,
        env=[
            *(kubernetes.core.v1.EnvVarArgs(name=name, value=value) for name, value in environment.items()),
            kubernetes.core.v1.EnvVarArgs(
                name=config.ENV_NAMESPACE,
                value_from=kubernetes.core.v1.EnvVarSourceArgs(
                    field_ref=kubernetes.core.v1.ObjectFieldSelectorArgs(field_path="metadata.namespace")
                ),
            ),
        ],
        ports=[kubernetes.core.v1.ContainerPortArgs(name=names.API_PORT_NAME, container_port=names.API_PORT)],
        startup_probe=_probe("/healthz", period=1, failures=120),
        liveness_probe=_probe("/healthz", period=20, failures=3),
        readiness_probe=_probe("/readyz", period=2, failures=3),
        resources=_resources(controller.resources),
        security_context=kubernetes.core.v1.SecurityContextArgs(
            allow_privilege_escalation=False,
            read_only_root_filesystem=True,
            capabilities=kubernetes.core.v1.CapabilitiesArgs(drop=["ALL"]),
        ),
        volume_mounts=[
            *(
                kubernetes.core.v1.VolumeMountArgs(name=volume, mount_path=path, read_only=True)
                for volume, path in mounts.items()
            ),
            kubernetes.core.v1.VolumeMountArgs(name=_SCRATCH_VOLUME, mount_path="/tmp"),  # noqa: S108
            *(
                kubernetes.core.v1.VolumeMountArgs(
                    name=mount.claim, mount_path=mount.path, sub_path=mount.sub_path, read_only=mount.read_only or None
                )
                for mount in layout.controller_mounts(runtime.layout, folders)
            ),
        ],
    )


def _probe(path: str, *, period: int, failures: int) -> kubernetes.core.v1.ProbeArgs:
    """An HTTP probe of the API's port; `period` in seconds."""
    return kubernetes.core.v1.ProbeArgs(
        http_get=kubernetes.core.v1.HTTPGetActionArgs(path=path, port=names.API_PORT_NAME),
        period_seconds=period,
        timeout_seconds=5,
        failure_threshold=failures,
    )


def _resources(resources: Resources) -> kubernetes.core.v1.ResourceRequirementsArgs:
    return kubernetes.core.v1.ResourceRequirementsArgs(
        requests={"cpu": resources.cpu_request, "memory": resources.memory_request},
        limits={"cpu": resources.cpu_limit, "memory": resources.memory_limit},
    )


def _volumes(
    stack: Stack, settings: pulumi.Input[str], token: pulumi.Input[str], credentials: pulumi.Input[str] | None
) -> list[kubernetes.core.v1.VolumeArgs]:
    folders = [group.folder for group in stack.settings.groups.groups]
    mounted = {mount.claim for mount in layout.controller_mounts(stack.settings.runtime.layout, folders)}
    volumes = [
        kubernetes.core.v1.VolumeArgs(
            name=_SETTINGS_VOLUME, config_map=kubernetes.core.v1.ConfigMapVolumeSourceArgs(name=settings)
        ),
        _secret_volume(_TOKEN_VOLUME, token),
        kubernetes.core.v1.VolumeArgs(name=_SCRATCH_VOLUME, empty_dir=kubernetes.core.v1.EmptyDirVolumeSourceArgs()),
    ]
    if credentials is not None:
        volumes.append(_secret_volume(_CREDENTIALS_VOLUME, credentials))
    return volumes + [
        kubernetes.core.v1.VolumeArgs(
            name=claim,
            persistent_volume_claim=kubernetes.core.v1.PersistentVolumeClaimVolumeSourceArgs(claim_name=claim),
        )
        for claim in sorted(mounted)
    ]


def _secret_volume(name: str, secret: pulumi.Input[str]) -> kubernetes.core.v1.VolumeArgs:
    return kubernetes.core.v1.VolumeArgs(
        name=name,
        secret=kubernetes.core.v1.SecretVolumeSourceArgs(
            secret_name=secret,
            default_mode=0o440,  # the pod's group reads it
        ),
    )
