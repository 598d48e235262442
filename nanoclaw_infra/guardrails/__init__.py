"""Admission policies: agents' pods only in our shape, and only made by Jobs and StatefulSets of the controller.

They hold even a controller that was tricked or taken over to the folders of the group it works for, and they hold in
a namespace that Pod Security does not restrict. The objects are cluster-wide, named for the namespace and bound to it
alone. A new agent image reaches the policy and the controller one after the other: a session that starts in between
is refused, and tried again by the queue.
"""

from __future__ import annotations

import pulumi
import pulumi_kubernetes as kubernetes

from nanoclaw_infra.guardrails.admission import Admission, Rule
from nanoclaw_infra.guardrails.expressions import text
from nanoclaw_infra.guardrails.rules import admissions
from nanoclaw_infra.namespace import Namespace
from nanoclaw_infra.settings.stack import StackSettings
from nanoclaw_infra.settings.told import told
from nanoclaw_runtime.contract import labels


class Guardrails(pulumi.ComponentResource):
    """ValidatingAdmissionPolicies with their bindings, where the stack asks for them."""

    bindings: list[pulumi.Resource]
    """What is refused before these are there is refused by nobody."""

    def __init__(
        self, name: str, settings: StackSettings, namespace: Namespace, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("nanoclaw:guardrails:Guardrails", name, {}, opts)
        options = pulumi.ResourceOptions(parent=self)
        self.bindings = []
        wanted = admissions(told(settings), settings.namespace.name) if settings.guardrails.enabled else ()
        for admission in wanted:
            metadata = kubernetes.meta.v1.ObjectMetaArgs(
                name=policy_name(admission, settings.namespace.name),
                labels=labels.component(labels.PLATFORM),
                annotations={"kubernetes.io/description": admission.told},
            )
            policy = kubernetes.admissionregistration.v1.ValidatingAdmissionPolicy(
                admission.name, metadata=metadata, spec=_policy(admission), opts=options
            )
            binding = kubernetes.admissionregistration.v1.ValidatingAdmissionPolicyBinding(
                admission.name,
                metadata=metadata,
                spec=_binding(policy, settings, namespace),
                opts=options,
            )
            self.bindings.append(binding)
        self.register_outputs({})


def policy_name(admission: Admission, namespace: str) -> str:
    """Of policy and binding, which are cluster-wide; no namespace has a dot in its name."""
    return f"nanoclaw-{admission.name}.{namespace}"


def _policy(admission: Admission) -> kubernetes.admissionregistration.v1.ValidatingAdmissionPolicySpecArgs:
    v1 = kubernetes.admissionregistration.v1
    return v1.ValidatingAdmissionPolicySpecArgs(
        failure_policy="Fail",
        match_constraints=v1.MatchResourcesArgs(
            resource_rules=[
                v1.NamedRuleWithOperationsArgs(
                    api_groups=[group],
                    api_versions=["v1"],
                    operations=list(admission.operations),
                    resources=[resource],
                    scope="Namespaced",
                )
                for group, resource in admission.kinds
            ]
        ),
        match_conditions=[v1.MatchConditionArgs(name="an-agents", expression=admission.applies)],
        variables=[v1.VariableArgs(name=name, expression=value) for name, value in admission.variables.items()] or None,
        validations=[_validation(rule) for rule in admission.rules],
    )


def _validation(rule: Rule) -> kubernetes.admissionregistration.v1.ValidationArgs:
    return kubernetes.admissionregistration.v1.ValidationArgs(
        expression=rule.expression,
        message=rule.message,
        message_expression=f"{text(rule.message)} + ' (' + {rule.found} + ')'" if rule.found else None,
        reason="Forbidden",
    )


def _binding(
    policy: kubernetes.admissionregistration.v1.ValidatingAdmissionPolicy,
    settings: StackSettings,
    namespace: Namespace,
) -> kubernetes.admissionregistration.v1.ValidatingAdmissionPolicyBindingSpecArgs:
    v1 = kubernetes.admissionregistration.v1
    return v1.ValidatingAdmissionPolicyBindingSpecArgs(
        policy_name=policy.metadata.name,
        validation_actions=[settings.guardrails.failure_action],
        match_resources=v1.MatchResourcesArgs(
            namespace_selector=kubernetes.meta.v1.LabelSelectorArgs(
                match_labels={"kubernetes.io/metadata.name": namespace.name}
            )
        ),
    )
