"""What a stack's settings ask of its cluster, for `nanoclaw doctor --stack`, which finds `read` by its entry point.

Facts about the settings alone; `tests/infra/test_needs.py` holds them against what the components declare. Not here:
what a cluster has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from nanoclaw_infra.discovery import EXTERNAL_SECRETS, SERVICE_MONITORS
from nanoclaw_infra.namespace import pod_security
from nanoclaw_infra.settings.declared import claim_needs, declared_claims, workloads
from nanoclaw_infra.settings.file import read_stack
from nanoclaw_infra.settings.network import API_SERVER_PORTS
from nanoclaw_infra.settings.refusals import StackRefused
from nanoclaw_infra.settings.stack import StackSettings
from nanoclaw_infra.settings.storage import ONE_NODE, StorageClassSettings
from nanoclaw_infra.settings.told import AGENT_PRIORITY, CONTROLLER_PRIORITY, priority_class, told
from nanoclaw_runtime.contract.config import Pattern, Platform, Scheduling
from nanoclaw_runtime.contract.needs import (
    ApiServerNeed,
    CustomKinds,
    Feature,
    Kind,
    Needs,
    SecretNeed,
    StackUnusable,
)

CHECKOUT: Final = Path(__file__).resolve().parents[1]
"""Where `Pulumi.yaml` and the stack files are, unless another folder is named."""
_PROMETHEUS: Final = SERVICE_MONITORS.group
_EXTERNAL_SECRETS: Final = EXTERNAL_SECRETS.group

_ALWAYS: Final = (
    Kind("ServiceAccount", "serviceaccounts"),
    Kind("ConfigMap", "configmaps"),
    Kind("Secret", "secrets"),
    Kind("Service", "services"),
    Kind("Role", "roles", "rbac.authorization.k8s.io"),
    Kind("RoleBinding", "rolebindings", "rbac.authorization.k8s.io"),
)
_ATTACH: Final = Feature(
    "closing an agent's input on the open connection",
    (1, 30),
    "",
    "it is closed by dropping the connection, and answers are read from the pod's log",
    essential=False,
)
_GUARDRAILS: Final = Feature(
    "ValidatingAdmissionPolicy",
    (1, 30),
    "guardrails.enabled",
    "`pulumi up` fails: there is no such kind",
    essential=True,
)
_ONE_POD: Final = Feature(
    "the access mode ReadWriteOncePod", (1, 27), "storage.accessModes", "such claims are refused", essential=True
)
_BESIDE: Final = Feature(
    "containers that run beside an agent from before its start",
    (1, 29),
    "runtime.transport",
    "agents never start: the container beside them is waited for like one that ends",
    essential=True,
)
_OPENSHIFT: Final = Feature("restricted-v2 for every account", (1, 25), "", "pods are refused", essential=True)


def read(stack: str, project: Path | None, environ: Mapping[str, str]) -> Needs:
    """The needs of the stack in `project`: the current folder, or else this checkout. Raises StackUnusable."""
    if project is None:
        project = Path.cwd() if (Path.cwd() / "Pulumi.yaml").is_file() else CHECKOUT
    try:
        return needs(stack, read_stack(stack, project, environ))
    except StackRefused as refused:
        raise StackUnusable(str(refused)) from None


def needs(stack: str, settings: StackSettings) -> Needs:
    made = settings.storage.make_class
    return Needs(
        stack=stack,
        kubeconfig=Path(settings.cluster.kubeconfig).expanduser(),
        context=settings.cluster.context,
        namespace=settings.namespace.name,
        makes_namespace=settings.namespace.create,
        pod_security=pod_security(settings.runtime),
        protects_data=settings.protect_data,
        config=told(settings),
        groups=settings.groups.groups,
        kinds=(*_ALWAYS, *_kinds(settings)),
        features=tuple(_features(settings)),
        claims=tuple(claim_needs(settings)),
        workloads=tuple(workloads(settings)),
        custom=tuple(_custom(settings)),
        secrets=tuple(_secrets(settings)),
        binds_constraint=settings.openshift.bind,
        made_class=None if made is None else _storage_class(made),
        made_priorities=_priorities(settings),
        one_node_provisioners=ONE_NODE,
        api_server=_api_server(settings) if settings.network.enabled else None,
        dns_namespace=settings.network.dns_namespace if settings.network.enabled else None,
    )


def _api_server(settings: StackSettings) -> ApiServerNeed:
    named = settings.network.api_server
    return ApiServerNeed((), API_SERVER_PORTS) if named is None else ApiServerNeed(named.cidrs, named.ports)


def _kinds(settings: StackSettings) -> Iterator[Kind]:
    nodelocal = settings.runtime.pattern is Pattern.NODELOCAL
    guardrails, custom = settings.guardrails.enabled, {each.group for each in _custom(settings)}
    wanted = {
        Kind("Namespace", "namespaces", namespaced=False): settings.namespace.create,
        Kind("ResourceQuota", "resourcequotas"): bool(settings.namespace.quota),
        Kind("LimitRange", "limitranges"): settings.namespace.container_limits is not None,
        Kind("PersistentVolumeClaim", "persistentvolumeclaims"): bool(declared_claims(settings)),
        Kind("StorageClass", "storageclasses", "storage.k8s.io", namespaced=False): bool(settings.storage.make_class),
        Kind("DaemonSet", "daemonsets", "apps"): nodelocal,
        Kind("Deployment", "deployments", "apps"): not nodelocal or settings.gateway.enabled,
        Kind("PodDisruptionBudget", "poddisruptionbudgets", "policy"): not nodelocal or settings.gateway.enabled,
        Kind("NetworkPolicy", "networkpolicies", "networking.k8s.io"): settings.network.enabled,
        Kind("PriorityClass", "priorityclasses", "scheduling.k8s.io", namespaced=False): settings.priorities.enabled,
        **{
            Kind(kind, plural, "rbac.authorization.k8s.io", namespaced=False): settings.runtime.bridged
            for kind, plural in (("ClusterRole", "clusterroles"), ("ClusterRoleBinding", "clusterrolebindings"))
        },
        **{
            Kind(kind, plural, "admissionregistration.k8s.io", namespaced=False): guardrails
            for kind, plural in (
                ("ValidatingAdmissionPolicy", "validatingadmissionpolicies"),
                ("ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings"),
            )
        },
        Kind(
            "SecurityContextConstraints", "securitycontextconstraints", "security.openshift.io", namespaced=False
        ): settings.openshift.make_scc,
        Kind("ServiceMonitor", "servicemonitors", _PROMETHEUS): _PROMETHEUS in custom,
        Kind("PrometheusRule", "prometheusrules", _PROMETHEUS): _PROMETHEUS in custom,
        Kind("ExternalSecret", "externalsecrets", _EXTERNAL_SECRETS): _EXTERNAL_SECRETS in custom,
    }
    return (kind for kind, asked in wanted.items() if asked)


def _features(settings: StackSettings) -> Iterator[Feature]:
    yield _ATTACH
    if settings.guardrails.enabled:
        yield _GUARDRAILS
    if any(settings.storage.mode(claim.purpose) == "ReadWriteOncePod" for claim in declared_claims(settings)):
        yield _ONE_POD
    if settings.runtime.bridged:
        yield _BESIDE
    if settings.runtime.platform is Platform.OPENSHIFT:
        yield _OPENSHIFT


def _priorities(settings: StackSettings) -> tuple[str, ...]:
    if not settings.priorities.enabled:
        return ()
    return tuple(priority_class(settings, role) for role in (CONTROLLER_PRIORITY, AGENT_PRIORITY))


def _custom(settings: StackSettings) -> Iterator[CustomKinds]:
    if settings.monitoring.enabled:
        yield CustomKinds(
            _PROMETHEUS,
            SERVICE_MONITORS.versions,
            ("servicemonitors", "prometheusrules"),
            "monitoring.enabled",
            SERVICE_MONITORS.operator,
        )
    if (external := settings.credentials.external) is not None:
        # The stores are cluster-wide or of the namespace; either kind comes with the operator.
        plural = "clustersecretstores" if external.store_kind == "ClusterSecretStore" else "secretstores"
        yield CustomKinds(
            _EXTERNAL_SECRETS,
            EXTERNAL_SECRETS.versions,
            ("externalsecrets", plural),
            "credentials.external",
            EXTERNAL_SECRETS.operator,
        )


def _secrets(settings: StackSettings) -> Iterator[SecretNeed]:
    if settings.credentials.existing_secret is not None:
        yield SecretNeed(settings.credentials.existing_secret, "credentials.existingSecret")
    places = {
        "runtime.agent": settings.runtime.agent.scheduling,
        "controller": settings.controller.scheduling,
        "gateway": settings.gateway.scheduling if settings.gateway.enabled else Scheduling(),
    }
    told_of: dict[str, str] = {}
    for place, scheduling in places.items():
        for name in scheduling.image_pull_secrets:
            told_of.setdefault(name, f"{place}.scheduling.imagePullSecrets")
    for name, setting in told_of.items():
        yield SecretNeed(name, setting)


def _storage_class(made: StorageClassSettings) -> dict[str, Any]:
    return {
        "metadata": {"name": made.name},
        "provisioner": made.provisioner,
        "reclaimPolicy": made.reclaim_policy,
        "volumeBindingMode": made.binding,
        "allowVolumeExpansion": made.expandable,
    }
