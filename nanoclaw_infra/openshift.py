"""The right to a SecurityContextConstraints, for installations on OpenShift that need another than `restricted-v2`.

A RoleBinding of the namespace to the role OpenShift has for each constraint, never a change of the constraint itself.
Pods name the constraint they want in an annotation; that is said where the pods are made.
"""

from __future__ import annotations

import pulumi
import pulumi_kubernetes as kubernetes

from nanoclaw_infra.namespace import Namespace
from nanoclaw_infra.settings.stack import StackSettings
from nanoclaw_runtime.contract import labels, names
from nanoclaw_runtime.contract.config import Platform

BINDING = "nanoclaw-scc"


class SccBinding(pulumi.ComponentResource):
    """Lets the accounts of the installation use the stack's constraint, where the stack asks for that."""

    bindings: list[pulumi.Resource]
    """Pods that come before it are refused."""

    def __init__(
        self, name: str, settings: StackSettings, namespace: Namespace, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("nanoclaw:openshift:SccBinding", name, {}, opts)
        self.bindings = []
        if settings.runtime.platform is Platform.OPENSHIFT and settings.openshift.bind:
            self.bindings.append(self._bound(settings, namespace))
        self.register_outputs({})

    def _bound(self, settings: StackSettings, namespace: Namespace) -> pulumi.Resource:
        accounts = [names.CONTROLLER, names.AGENT_ACCOUNT, *([names.GATEWAY] if settings.gateway.enabled else [])]
        return kubernetes.rbac.v1.RoleBinding(
            BINDING,
            metadata=kubernetes.meta.v1.ObjectMetaArgs(
                name=BINDING, namespace=namespace.name, labels=labels.component(labels.PLATFORM)
            ),
            role_ref=kubernetes.rbac.v1.RoleRefArgs(
                api_group="rbac.authorization.k8s.io",
                kind="ClusterRole",
                name=f"system:openshift:scc:{settings.openshift.scc}",
            ),
            subjects=[
                kubernetes.rbac.v1.SubjectArgs(kind="ServiceAccount", name=account, namespace=namespace.name)
                for account in accounts
            ],
            opts=pulumi.ResourceOptions(parent=self, deleted_with=namespace.goes_with_it),
        )
