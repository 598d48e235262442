"""The controller: its Deployment or DaemonSet, what it is told, and the Service in front of its API.

What a change does is decided by the kind of object: settings are an immutable ConfigMap with a
generated name, so a change rolls the pod; groups, credentials and the API's token keep their names
and change in place, because the running controller reads them again. Not here: its pod (`controller_pod`).
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import pulumi
import pulumi_kubernetes as kubernetes

from nanoclaw_infra import workload
from nanoclaw_infra.access import Access
from nanoclaw_infra.controller_pod import OURS, controller_pod, ports
from nanoclaw_infra.namespace import Namespace
from nanoclaw_infra.settings import Stack
from nanoclaw_infra.settings.stack import StackSettings
from nanoclaw_infra.settings.told import told
from nanoclaw_runtime.contract import names
from nanoclaw_runtime.contract.config import Pattern


class Controller(pulumi.ComponentResource):
    """One controller, replaced and never doubled: it alone writes the database and starts agents.

    With the pattern `nodelocal` there is one a node, each for the groups of its node.
    """

    service: pulumi.Output[str]
    """Name of the Service."""

    def __init__(
        self,
        name: str,
        stack: Stack,
        *,
        namespace: Namespace,
        access: Access,
        credentials: pulumi.Input[str] | None,
        gateway_key: pulumi.Input[str] | None,
        after: Sequence[pulumi.Resource],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """`credentials` names the Secret with what agents get on stdin, if there is any.

        `gateway_key` names the one that agents' placeholders are signed with, where the stack has a gateway.
        """
        super().__init__("nanoclaw:controller:Controller", name, {}, opts)
        self._namespace = namespace
        self._options = pulumi.ResourceOptions(parent=self, deleted_with=namespace.goes_with_it)

        settings = kubernetes.core.v1.ConfigMap(
            "nanoclaw-settings",
            metadata=kubernetes.meta.v1.ObjectMetaArgs(namespace=namespace.name, labels=OURS),
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
        pod = controller_pod(
            stack.settings,
            account=access.controller_account,
            settings_name=settings.metadata.name,
            api_token=token.metadata.name,
            credentials=credentials,
            gateway_key=gateway_key,
        )
        self._run(stack.settings, pod, [access.binding, groups, *after])
        if stack.settings.runtime.pattern is not Pattern.NODELOCAL:  # a budget cannot count the pods of a DaemonSet
            workload.disruption_budget(names.CONTROLLER, self._metadata(names.CONTROLLER), OURS, self._options)
        service = kubernetes.core.v1.Service(
            names.CONTROLLER,
            metadata=self._metadata(
                names.CONTROLLER,
                # Its readiness is the Deployment's, and that is awaited.
                annotations={"pulumi.com/skipAwait": "true"},
            ),
            spec=kubernetes.core.v1.ServiceSpecArgs(
                selector=OURS,
                ports=[
                    kubernetes.core.v1.ServicePortArgs(name=name, port=port, target_port=name)
                    for name, port in ports(stack.settings).items()
                ],
            ),
            opts=self._options,
        )
        self.service = service.metadata.name
        self.register_outputs({"service": self.service})

    def _metadata(self, name: str, annotations: dict[str, str] | None = None) -> kubernetes.meta.v1.ObjectMetaArgs:
        return kubernetes.meta.v1.ObjectMetaArgs(
            name=name, namespace=self._namespace.name, labels=OURS, annotations=annotations
        )

    def _run(
        self,
        settings: StackSettings,
        pod: kubernetes.core.v1.PodTemplateSpecArgs,
        after: Sequence[pulumi.Resource],
    ) -> None:
        """The object that keeps the pod running, where the pattern wants it."""
        selector = kubernetes.meta.v1.LabelSelectorArgs(match_labels=OURS)
        options = pulumi.ResourceOptions.merge(
            self._options,
            pulumi.ResourceOptions(
                depends_on=[*after],
                custom_timeouts=pulumi.CustomTimeouts(create=workload.ROLL_OUT, update=workload.ROLL_OUT),
            ),
        )
        if settings.runtime.pattern is Pattern.NODELOCAL:
            kubernetes.apps.v1.DaemonSet(
                names.CONTROLLER,
                metadata=self._metadata(names.CONTROLLER),
                spec=kubernetes.apps.v1.DaemonSetSpecArgs(
                    selector=selector,
                    template=pod,
                    revision_history_limit=3,
                    update_strategy=kubernetes.apps.v1.DaemonSetUpdateStrategyArgs(
                        type="RollingUpdate",
                        rolling_update=kubernetes.apps.v1.RollingUpdateDaemonSetArgs(
                            max_unavailable="25%"  # one by one would outlast the roll-out of many nodes
                        ),
                    ),
                ),
                opts=options,
            )
            return
        kubernetes.apps.v1.Deployment(
            names.CONTROLLER,
            metadata=self._metadata(names.CONTROLLER),
            spec=kubernetes.apps.v1.DeploymentSpecArgs(
                replicas=1,
                strategy=kubernetes.apps.v1.DeploymentStrategyArgs(type="Recreate"),
                revision_history_limit=3,
                selector=selector,
                template=pod,
            ),
            opts=options,
        )

    def _generated_token(self) -> pulumi.Output[str]:
        """A token made at the first `pulumi up` and kept in the state: later inputs are ignored."""
        stash = pulumi.Stash(
            names.API_TOKEN,
            input=pulumi.Output.secret(secrets.token_urlsafe(32)),
            opts=pulumi.ResourceOptions(parent=self, ignore_changes=["input"]),
        )
        return pulumi.Output.secret(stash.output).apply(str)
