"""Who may do what: the controller what the contract lists, the agents nothing.

What it may do is of its namespace, but for one thing: with the transport `bridge` it asks whose token an agent's pod
shows, and that belongs to no namespace.
"""

from __future__ import annotations

import pulumi
import pulumi_kubernetes as kubernetes

from nanoclaw_infra.namespace import Namespace
from nanoclaw_infra.settings.stack import StackSettings
from nanoclaw_infra.settings.told import told
from nanoclaw_runtime.contract import labels, names
from nanoclaw_runtime.contract.permissions import Rule, controller_cluster_rules, controller_rules


class Access(pulumi.ComponentResource):
    """The controller's account with its Role, and the agents' account without any."""

    controller_account: pulumi.Output[str]
    binding: kubernetes.rbac.v1.RoleBinding
    """The controller must not start before it has its rights."""

    def __init__(
        self, name: str, settings: StackSettings, namespace: Namespace, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("nanoclaw:access:Access", name, {}, opts)
        options = pulumi.ResourceOptions(parent=self, deleted_with=namespace.goes_with_it)
        ours = kubernetes.meta.v1.ObjectMetaArgs(
            name=names.CONTROLLER, namespace=namespace.name, labels=labels.component(labels.CONTROLLER)
        )
        account = kubernetes.core.v1.ServiceAccount(
            names.CONTROLLER,
            metadata=ours,
            automount_service_account_token=False,  # the Deployment asks for it; nothing else of ours may
            opts=options,
        )
        kubernetes.core.v1.ServiceAccount(
            names.AGENT_ACCOUNT,
            metadata=kubernetes.meta.v1.ObjectMetaArgs(
                name=names.AGENT_ACCOUNT, namespace=namespace.name, labels=labels.component(labels.AGENT)
            ),
            automount_service_account_token=False,
            opts=options,
        )
        role = kubernetes.rbac.v1.Role(
            names.CONTROLLER,
            metadata=ours,
            rules=[_rule(rule) for rule in controller_rules(told(settings))],
            opts=options,
        )
        self.controller_account = account.metadata.name
        self.binding = kubernetes.rbac.v1.RoleBinding(
            names.CONTROLLER,
            metadata=ours,
            role_ref=kubernetes.rbac.v1.RoleRefArgs(
                api_group="rbac.authorization.k8s.io",
                kind="Role",
                name=role.metadata.name,
            ),
            subjects=[
                kubernetes.rbac.v1.SubjectArgs(
                    kind="ServiceAccount", name=self.controller_account, namespace=namespace.name
                )
            ],
            opts=options,
        )
        self._beyond_the_namespace(settings, namespace)
        self.register_outputs({"controllerAccount": self.controller_account})

    def _beyond_the_namespace(self, settings: StackSettings, namespace: Namespace) -> None:
        """Only where the contract lists anything; cluster-wide, so the name carries the namespace."""
        rules = controller_cluster_rules(told(settings))
        if not rules:
            return
        ours = kubernetes.meta.v1.ObjectMetaArgs(
            name=f"{names.TOKEN_REVIEWER}-{settings.namespace.name}", labels=labels.component(labels.CONTROLLER)
        )
        options = pulumi.ResourceOptions(parent=self)
        role = kubernetes.rbac.v1.ClusterRole(
            names.TOKEN_REVIEWER, metadata=ours, rules=[_rule(rule) for rule in rules], opts=options
        )
        kubernetes.rbac.v1.ClusterRoleBinding(
            names.TOKEN_REVIEWER,
            metadata=ours,
            role_ref=kubernetes.rbac.v1.RoleRefArgs(
                api_group="rbac.authorization.k8s.io", kind="ClusterRole", name=role.metadata.name
            ),
            subjects=[
                kubernetes.rbac.v1.SubjectArgs(
                    kind="ServiceAccount", name=self.controller_account, namespace=namespace.name
                )
            ],
            opts=options,
        )


def _rule(rule: Rule) -> kubernetes.rbac.v1.PolicyRuleArgs:
    return kubernetes.rbac.v1.PolicyRuleArgs(
        api_groups=[rule.api_group],
        resources=list(rule.resources),
        verbs=list(rule.verbs),
        resource_names=list(rule.names) or None,
    )
