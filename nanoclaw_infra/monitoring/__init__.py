"""Who is scraped, who is told when, and a dashboard: objects for the Prometheus operator and for Grafana.

The custom resources have no typed arguments; their specs are plain data. That the cluster has them
is asked before (`discovery`). Not here: Prometheus itself, and the way in for it (`network`).
"""

from __future__ import annotations

import json
from typing import Any

import pulumi
import pulumi_kubernetes as kubernetes

from nanoclaw_infra.discovery import PROMETHEUS_RULES, SERVICE_MONITORS, CustomKind, Served
from nanoclaw_infra.monitoring.alerts import alert_rules
from nanoclaw_infra.monitoring.dashboard import dashboard
from nanoclaw_infra.namespace import Namespace
from nanoclaw_infra.settings.stack import StackSettings
from nanoclaw_runtime.contract import gateway, labels, names

_RULES = "nanoclaw"
_DASHBOARD = "nanoclaw-dashboard"


class Monitoring(pulumi.ComponentResource):
    """ServiceMonitors, alert rules and a dashboard; nothing when the stack wants no monitoring."""

    def __init__(
        self,
        name: str,
        settings: StackSettings,
        namespace: Namespace,
        served: Served,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("nanoclaw:monitoring:Monitoring", name, {}, opts)
        self._namespace, self._served = namespace, served
        self._labels = settings.monitoring.labels
        self._options = pulumi.ResourceOptions(parent=self, deleted_with=namespace.goes_with_it)
        if settings.monitoring.enabled:
            self._declare(settings)
        self.register_outputs({})

    def _declare(self, settings: StackSettings) -> None:
        interval = settings.monitoring.interval
        controller = service_monitor_spec(labels.CONTROLLER, names.API_PORT_NAME, interval)
        self._custom(SERVICE_MONITORS, names.CONTROLLER, controller)
        if settings.gateway.enabled:
            spec = service_monitor_spec(labels.GATEWAY, gateway.OPERATIONS_PORT_NAME, interval)
            self._custom(SERVICE_MONITORS, names.GATEWAY, spec)
        rules = alert_rules(
            settings.namespace.name,
            start_timeout=settings.runtime.start_timeout,
            gateway=settings.gateway.serves if settings.gateway.enabled else None,
        )
        self._custom(PROMETHEUS_RULES, _RULES, rules)
        if settings.monitoring.dashboard:
            kubernetes.core.v1.ConfigMap(
                _DASHBOARD,
                metadata=self._metadata(_DASHBOARD, settings.monitoring.dashboard_labels),
                data={"nanoclaw.json": json.dumps(dashboard(), indent=1)},
                opts=self._options,
            )

    def _custom(self, kind: CustomKind, name: str, spec: dict[str, Any]) -> None:
        kubernetes.apiextensions.CustomResource(
            f"{name}-{kind.kind.lower()}",
            api_version=self._served.api_version(kind),
            kind=kind.kind,
            metadata=self._metadata(name, self._labels),
            spec=spec,
            opts=self._options,
        )

    def _metadata(self, name: str, more: dict[str, str]) -> kubernetes.meta.v1.ObjectMetaArgs:
        return kubernetes.meta.v1.ObjectMetaArgs(
            name=name, namespace=self._namespace.name, labels=labels.component(labels.MONITORING) | more
        )


def service_monitor_spec(component: str, port: str, interval: int) -> dict[str, Any]:
    """Scrape the pods behind the Service of one component, on the pods' port of that name, every `interval` seconds."""
    return {
        "selector": {"matchLabels": labels.component(component)},
        "endpoints": [{"targetPort": port, "path": "/metrics", "interval": f"{interval}s"}],
    }
