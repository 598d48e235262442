"""The right to a SecurityContextConstraints, for installations on OpenShift that need another than `restricted-v2`.

A RoleBinding of the namespace to the role OpenShift has for each constraint, never a change of one that is there; or,
for the pattern `nodelocal`, a constraint of the stack's own. Pods name the constraint they want in an annotation; that
is said where the pods are made.
"""

from __future__ import annotations

from typing import Any

import pulumi
import pulumi_kubernetes as kubernetes

from nanoclaw_infra import workload
from nanoclaw_infra.namespace import Namespace
from nanoclaw_infra.settings.stack import StackSettings
from nanoclaw_runtime.contract import labels, names
from nanoclaw_runtime.contract.config import Platform

BINDING = "nanoclaw-scc"
API_VERSION = "security.openshift.io/v1"
KIND = "SecurityContextConstraints"


class SccBinding(pulumi.ComponentResource):
    """Lets the accounts of the installation use the stack's constraint, where the stack asks for that; or makes it."""

    bindings: list[pulumi.Resource]
    """Pods that come before it are refused."""

    def __init__(
        self, name: str, settings: StackSettings, namespace: Namespace, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("nanoclaw:openshift:SccBinding", name, {}, opts)
        self.bindings = []
        if settings.runtime.platform is Platform.OPENSHIFT and settings.openshift.bind:
            self.bindings.append(self._bound(settings, namespace))
        if settings.runtime.platform is Platform.OPENSHIFT and settings.openshift.make_scc:
            self.bindings.append(self._made(settings))
        self.register_outputs({})

    def _made(self, settings: StackSettings) -> pulumi.Resource:
        accounts = (names.CONTROLLER, names.AGENT_ACCOUNT)
        users = [f"system:serviceaccount:{settings.namespace.name}:{account}" for account in accounts]
        # The provider's class for custom resources knows of a spec alone.
        return pulumi.CustomResource(
            f"kubernetes:{API_VERSION}:{KIND}",
            settings.openshift.scc,
            constraint(settings.openshift.scc, users),
            pulumi.ResourceOptions(parent=self),
        )

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


_TOLD = (
    "Folders of nodes for NanoClaw's controllers and agents, as uid 1000. Any folder: a constraint cannot name them. "
    "Otherwise as restricted-v2."
)


def constraint(name: str, users: list[str]) -> dict[str, Any]:
    """The SecurityContextConstraints of the pattern `nodelocal`; its fields are at the top, there is no spec.

    The uid is the one the folders of the nodes belong to, whichever range the namespace has.
    """
    own = [{"min": workload.USER, "max": workload.USER}]
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {
            "name": name,
            "labels": labels.component(labels.PLATFORM),
            "annotations": {"kubernetes.io/description": _TOLD},
        },
        "users": users,  # pods have to ask for it: without a priority it is never preferred
        "groups": [],
        "allowHostDirVolumePlugin": True,
        "allowHostIPC": False,
        "allowHostNetwork": False,
        "allowHostPID": False,
        "allowHostPorts": False,
        "allowPrivilegedContainer": False,
        "allowPrivilegeEscalation": False,
        "defaultAllowPrivilegeEscalation": False,
        "allowedCapabilities": [],
        "defaultAddCapabilities": [],
        "requiredDropCapabilities": ["ALL"],
        "readOnlyRootFilesystem": True,
        "runAsUser": {"type": "MustRunAs", "uid": workload.USER},
        "fsGroup": {"type": "MustRunAs", "ranges": own},
        "supplementalGroups": {"type": "MustRunAs", "ranges": own},
        "seLinuxContext": {"type": "MustRunAs"},
        "seccompProfiles": ["runtime/default"],
        "volumes": ["configMap", "emptyDir", "hostPath", "persistentVolumeClaim", "projected", "secret"],
    }
