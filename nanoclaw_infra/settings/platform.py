"""What a stack asks of the platform around its workloads: constraints, priorities, admission, and custom resources."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from nanoclaw_infra.settings.base import Settings
from nanoclaw_runtime.contract.config import RESTRICTED_SCC, ObjectName


class OpenShiftSettings(Settings):
    """SecurityContextConstraints, on OpenShift. `restricted-v2` needs no rights of anybody."""

    scc: ObjectName = RESTRICTED_SCC
    """The one that all pods of the installation ask for."""
    bind: bool = False
    """Whether the accounts of the installation are given the right to use it; not needed for `restricted-v2`."""
    make_scc: bool = False
    """Whether the stack makes it, for the pattern `nodelocal`: folders of nodes, uid 1000, and nothing else beyond
    `restricted-v2`. Whoever may make pods as the controller's or the agents' account can then read and write, as uid
    1000, any folder of any node, because a constraint cannot name folders; only the guardrails can."""


class PrioritySettings(Settings):
    """PriorityClasses of the stack's own; cluster-wide objects, named for the namespace."""

    enabled: bool = False
    """Whether the stack makes them, for the controller and for the agents."""
    controller: int = Field(default=1_000, ge=0, le=1_000_000_000)
    """Above the agents: a full cluster gives up an agent before it gives up the controller. It may displace other pods
    below it, so no more than that takes."""
    agents: int = Field(default=0, ge=-1_000_000_000, le=1_000_000_000)
    """Of the agents' pods. Other workloads of the cluster have 0 unless somebody said otherwise."""


class GuardrailSettings(Settings):
    """ValidatingAdmissionPolicies: agents' pods only in our shape, and only made by Jobs and StatefulSets of the
    controller.

    Cluster-wide objects that apply to this namespace alone; Kubernetes 1.30 and OpenShift 4.17 have them.
    """

    enabled: bool = False
    """Whether the stack makes them."""
    failure_action: Literal["Deny", "Warn", "Audit"] = "Deny"
    """`Warn` and `Audit` let everything pass and tell, to try them first."""


class MonitoringSettings(Settings):
    """Objects for the Prometheus operator and Grafana. Their custom resources must be installed."""

    enabled: bool = False
    """Whether the stack makes them."""
    labels: dict[str, str] = Field(default_factory=dict)
    """On ServiceMonitor and PrometheusRule, where a Prometheus selects by labels: `{release: prometheus}`."""
    dashboard: bool = True
    """Whether a ConfigMap with a Grafana dashboard is made, labelled `grafana_dashboard: "1"`."""
    dashboard_labels: dict[str, str] = Field(default_factory=lambda: {"grafana_dashboard": "1"})
    """By which Grafana's sidecar finds it."""
    interval: int = Field(default=30, ge=5, le=600)
    """Seconds between two scrapes."""


class ExternalKey(Settings):
    """Where one credential is in an external store."""

    key: str = Field(min_length=1)
    """Name or path of the entry."""
    property: str | None = Field(default=None, alias="property")
    """Field in it, where it has several."""


class ExternalSecretSettings(Settings):
    """An ExternalSecret of the External Secrets operator, which keeps the Secret of credentials."""

    store: ObjectName
    """Name of the SecretStore or ClusterSecretStore."""
    store_kind: Literal["SecretStore", "ClusterSecretStore"] = "SecretStore"
    """Whether the store is of the namespace or of the cluster."""
    refresh: str = Field(default="1h", pattern=r"^\d+[smh]$")
    """How often the operator looks, as `30m`."""
    data: dict[str, ExternalKey] = Field(min_length=1)
    """Credential → where it is: `ANTHROPIC_API_KEY: {key: nanoclaw/anthropic}`."""


class CredentialsSettings(Settings):
    """Where the agents' credentials come from, unless they are encrypted in the stack file."""

    existing_secret: ObjectName | None = None
    """Name of a Secret that somebody else keeps in the namespace."""
    external: ExternalSecretSettings | None = None
    """An external store that the External Secrets operator reads."""
