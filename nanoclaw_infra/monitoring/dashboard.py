"""A Grafana dashboard as data: what goes through an installation, what waits, what fails, and what is left.

Valid for Grafana 9 and newer. Namespace and data source are variables of the dashboard, so one
copy serves several installations. Not here: limits, which are the alerts'.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from nanoclaw_runtime.contract import names

UID: Final = "nanoclaw"
"""One dashboard however many installations bring it: Grafana keeps the last, and they are alike."""

_HERE: Final = 'namespace="$namespace"'
_SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
_WIDTH, _HEIGHT, _COLUMNS = 8, 8, 3


@dataclass(frozen=True)
class Panel:
    title: str
    queries: Sequence[tuple[str, str]]
    """Legend and expression."""
    unit: str = "short"
    kind: str = "timeseries"
    stacked: bool = False
    about: str = ""


def _rate(metric: str, by: str = "") -> str:
    return f"sum{f' by ({by})' if by else ''} (rate({metric}{{{_HERE}}}[$__rate_interval]))"


def _quantile(share: float, metric: str) -> str:
    return f"histogram_quantile({share}, {_rate(f'{metric}_bucket', 'le')})"


def _volumes(metric: str) -> str:
    return f'kubelet_volume_stats_{metric}_bytes{{{_HERE},persistentvolumeclaim=~"{names.OWN_PREFIX}.*"}}'


PANELS: Final = (
    Panel(
        "Messages and answers",
        [
            ("messages", _rate("nanoclaw_messages_accepted_total")),
            ("answers", _rate("nanoclaw_answers_total")),
            ("given up", _rate("nanoclaw_messages_given_up_total")),
        ],
        "ops",
    ),
    Panel(
        "From message to agent",
        [
            ("p50", _quantile(0.5, "nanoclaw_input_seconds")),
            ("p99", _quantile(0.99, "nanoclaw_input_seconds")),
            ("the controller's share, p99", _quantile(0.99, "nanoclaw_own_seconds")),
        ],
        "s",
        about="Until the agent has the message; waiting for a place included.",
    ),
    Panel(
        "From message to agent, spread",
        [("{{le}}", f"sum by (le) (increase(nanoclaw_input_seconds_bucket{{{_HERE}}}[$__rate_interval]))")],
        "s",
        "heatmap",
    ),
    Panel(
        "Sessions", [("{{state}}", f"sum by (state) (nanoclaw_sessions{{{_HERE}}})")], stacked=True, about="By state."
    ),
    Panel(
        "Waiting for a place",
        [
            ("groups", f"sum(nanoclaw_groups_waiting{{{_HERE}}})"),
            ("groups whose node is gone", f"max(nanoclaw_groups_stranded{{{_HERE}}})"),
        ],
    ),
    Panel(
        "How long they wait",
        [
            ("longest now", f"max(nanoclaw_longest_wait_seconds{{{_HERE}}})"),
            ("p99 of those that got one", _quantile(0.99, "nanoclaw_wait_seconds")),
        ],
        "s",
    ),
    Panel(
        "Sessions that failed",
        [
            (
                "{{failure}}",
                f'sum by (failure) (increase(nanoclaw_sessions_ended_total{{{_HERE},failure!=""}}[5m])) > 0',
            )
        ],
        stacked=True,
        about="By diagnosis; the log has a sentence for each.",
    ),
    Panel(
        "Parked agents",
        [
            ("{{state}}", f"sum by (state) (nanoclaw_parked_agents{{{_HERE}}})"),
            ("sessions that began with one, in 5 min", f"sum(increase(nanoclaw_parking_hits_total{{{_HERE}}}[5m]))"),
            ("and without", f"sum(increase(nanoclaw_parking_misses_total{{{_HERE}}}[5m]))"),
            ("that could not be parked, in 5 min", f"sum(increase(nanoclaw_parking_failed_total{{{_HERE}}}[5m]))"),
        ],
        about="Started before their message; none where the stack parks none.",
    ),
    Panel(
        "Bridge",
        [
            ("streams", f"sum(nanoclaw_bridge_streams{{{_HERE}}})"),
            ("lost, in 5 min", f"sum(increase(nanoclaw_bridge_lost_total{{{_HERE}}}[5m]))"),
            ("refused, in 5 min", f"sum(increase(nanoclaw_bridge_refused_total{{{_HERE}}}[5m]))"),
        ],
        about="Only with the transport `bridge`: agents' pods whose files are carried.",
    ),
    Panel(
        "Signs of life",
        [
            ("watch of {{kind}}, age", f"max by (kind) (nanoclaw_watch_age_seconds{{{_HERE}}})"),
            ("session that resists its end", f"max(nanoclaw_session_overdue_seconds{{{_HERE}}})"),
            ("oldest text not delivered", f"max(nanoclaw_outbox_oldest_seconds{{{_HERE}}})"),
        ],
        "s",
    ),
    Panel(
        "Volumes, used",
        [
            (
                "{{persistentvolumeclaim}}",
                f"max by (persistentvolumeclaim) ({_volumes('used')} / {_volumes('capacity')})",
            )
        ],
        "percentunit",
    ),
    Panel(
        "Model, cost in a day",
        [("{{group}}", f"sum by (group) (increase(nanoclaw_gateway_cost_dollars_total{{{_HERE}}}[1d]))")],
        "currencyUSD",
        stacked=True,
        about="Only with the model gateway.",
    ),
    Panel(
        "Model, calls",
        [("{{status}}", _rate("nanoclaw_gateway_requests_total", "status"))],
        "reqps",
        stacked=True,
        about="Only with the model gateway.",
    ),
    Panel(
        "Model, first byte",
        [
            ("p50", _quantile(0.5, "nanoclaw_gateway_first_byte_seconds")),
            ("p99", _quantile(0.99, "nanoclaw_gateway_first_byte_seconds")),
        ],
        "s",
        about="Only with the model gateway.",
    ),
)


def dashboard() -> dict[str, Any]:
    """The model Grafana imports."""
    return {
        "uid": UID,
        "title": "NanoClaw",
        "tags": ["nanoclaw"],
        "schemaVersion": 37,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [_data_source(), _namespace()]},
        "panels": [_panel(number, panel) for number, panel in enumerate(PANELS)],
    }


def _data_source() -> dict[str, Any]:
    return {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}


def _namespace() -> dict[str, Any]:
    query = "label_values(nanoclaw_groups_waiting, namespace)"
    return {
        "name": "namespace",
        "label": "Namespace",
        "type": "query",
        "datasource": _SOURCE,
        "query": {"query": query, "refId": "namespace"},
        "definition": query,
        "refresh": 2,
        "sort": 1,
    }


def _panel(number: int, panel: Panel) -> dict[str, Any]:
    row, column = divmod(number, _COLUMNS)
    heatmap = panel.kind == "heatmap"
    return {
        "id": number + 1,
        "title": panel.title,
        "description": panel.about,
        "type": panel.kind,
        "datasource": _SOURCE,
        "gridPos": {"x": column * _WIDTH, "y": row * _HEIGHT, "w": _WIDTH, "h": _HEIGHT},
        "targets": [
            {
                "refId": chr(ord("A") + place),
                "datasource": _SOURCE,
                "expr": expression,
                "legendFormat": legend,
                "format": "heatmap" if heatmap else "time_series",
            }
            for place, (legend, expression) in enumerate(panel.queries)
        ],
        "fieldConfig": {"defaults": {} if heatmap else _defaults(panel), "overrides": []},
        "options": {"calculate": False, "yAxis": {"unit": panel.unit}} if heatmap else {},
    }


def _defaults(panel: Panel) -> dict[str, Any]:
    stacking = {"stacking": {"mode": "normal"}, "fillOpacity": 20} if panel.stacked else {}
    return {"unit": panel.unit, "min": 0, "custom": stacking}
