"""When somebody has to be told, as Prometheus rules: plain data, tried by promtool in the tests.

Every expression is bound to one namespace, because a Prometheus often looks after several
installations. Each alert says what is wrong in plain words, the next command to run, and where
docs/monitoring.md has more. Not here: how anybody is told.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from nanoclaw_runtime.contract import names
from nanoclaw_runtime.contract.gateway import GatewayConfig, Limits

CRITICAL: Final = "critical"
"""Somebody in a chat waits in vain."""
WARNING: Final = "warning"
"""It works, and will not for long."""

PAGE: Final = "docs/monitoring.md"

_BUDGET_SHARE: Final = 0.8


@dataclass(frozen=True)
class Alert:
    name: str
    severity: str
    expr: str
    lasts: str
    """For how long it has to be true, as Prometheus writes it."""
    summary: str
    description: str
    """What it means and the next step; `{{ }}` is Prometheus' own."""

    def rule(self) -> dict[str, Any]:
        return {
            "alert": self.name,
            "expr": self.expr,
            "for": self.lasts,
            "labels": {"severity": self.severity},
            "annotations": {
                "summary": self.summary,
                "description": self.description,
                "runbook": f"{PAGE}#{self.name.lower()}",
            },
        }


def alert_rules(namespace: str, *, start_timeout: float = 120, gateway: GatewayConfig | None = None) -> dict[str, Any]:
    """The `spec` of a PrometheusRule, which is also a rule file of Prometheus.

    `start_timeout` is the controller's; `gateway` is what the model gateway is told, where there is one.
    """
    groups = {
        "nanoclaw-controller": _controller(namespace),
        "nanoclaw-sessions": _sessions(namespace, start_timeout),
        "nanoclaw-agents": _agents(namespace),
        "nanoclaw-storage": _storage(namespace),
    }
    if gateway is not None:
        groups["nanoclaw-gateway"] = _gateway(namespace, gateway)
    return {"groups": [{"name": name, "rules": [each.rule() for each in alerts]} for name, alerts in groups.items()]}


def _controller(namespace: str) -> Iterator[Alert]:
    here, nanoclaw = f'namespace="{namespace}"', f"nanoclaw --namespace {namespace}"
    yield Alert(
        "NanoClawControllerDown",
        CRITICAL,
        _down(namespace, names.CONTROLLER),
        "5m",
        f"The NanoClaw controller in {namespace} does not answer",
        f"Messages are not accepted and agents are not started. `kubectl -n {namespace} get pods` shows the "
        "controller's pod; its events and log say why it does not run.",
    )
    yield Alert(
        "NanoClawControllerNotReady",
        CRITICAL,
        f"min by (namespace) (nanoclaw_ready{{{here}}}) == 0",
        "10m",
        f"The NanoClaw controller in {namespace} runs and is not ready",
        f"Nobody reaches it through its Service. `{nanoclaw} doctor` names the check that fails.",
    )
    yield Alert(
        "NanoClawWatchStale",
        CRITICAL,
        f"max by (namespace, kind) (nanoclaw_watch_age_seconds{{{here}}}) > 120",
        "5m",
        f"The NanoClaw controller in {namespace} has heard nothing of the cluster's {{{{ $labels.kind }}}}",
        f"It does not see what becomes of agents. Look whether the API server can be reached from the namespace: "
        f"`{nanoclaw} doctor`, and network policies.",
    )
    yield Alert(
        "NanoClawDatabaseErrors",
        CRITICAL,
        f"sum by (namespace) (increase(nanoclaw_database_errors_total{{{here}}}[15m])) > 0",
        "0m",
        f"The database of NanoClaw in {namespace} refuses",
        "Messages may be refused and are not lost. Mostly the volume is full or gone: "
        f"`kubectl -n {namespace} exec service/{names.CONTROLLER} -- df -h`, and `{nanoclaw} logs`.",
    )


def _sessions(namespace: str, start_timeout: float) -> Iterator[Alert]:
    here, nanoclaw = f'namespace="{namespace}"', f"nanoclaw --namespace {namespace}"
    yield Alert(
        "NanoClawSessionsFail",
        WARNING,
        f'sum by (namespace, failure) (increase(nanoclaw_sessions_ended_total{{{here},failure!~"|stopped"}}[30m])) > 2',
        "1m",
        f"Agents in {namespace} fail: {{{{ $labels.failure }}}}",
        f"{{{{ $value | humanize }}}} sessions in half an hour. `{nanoclaw} logs` has a sentence for each, with the "
        "object and the remedy.",
    )
    yield Alert(
        "NanoClawMessagesGivenUp",
        CRITICAL,
        f"sum by (namespace) (increase(nanoclaw_messages_given_up_total{{{here}}}[1h])) > 0",
        "0m",
        f"Messages in {namespace} were not answered",
        "All tries failed and the chat was told. "
        f"`{nanoclaw} events` shows which; once the cause is gone, sending another message tries again.",
    )
    yield Alert(
        "NanoClawQueueLong",
        WARNING,
        f"max by (namespace) (nanoclaw_longest_wait_seconds{{{here}}}) > 600",
        "5m",
        f"Groups in {namespace} wait long for a place",
        f"One has waited for {{{{ $value | humanizeDuration }}}}. `{nanoclaw} queue` shows who; raise "
        "runtime.maxConcurrentSessions where the cluster has room, or lower runtime.idleTimeout.",
    )
    yield Alert(
        "NanoClawSessionStuck",
        CRITICAL,
        f"max by (namespace) (nanoclaw_session_overdue_seconds{{{here}}}) > 120",
        "5m",
        f"An agent in {namespace} cannot be ended",
        "It was silent for too long or does not close, and its pod does not go; its group waits. Mostly its node does "
        f"not answer: `kubectl -n {namespace} get pods -o wide`, then `kubectl get nodes`.",
    )
    yield Alert(
        "NanoClawSessionNotStarting",
        WARNING,
        f'max by (namespace) (nanoclaw_session_silent_seconds{{{here},state="starting"}}) > {2 * start_timeout + 60:g}',
        "5m",
        f"An agent in {namespace} does not start",
        "Longer than a start may take, with a predecessor to wait for. "
        f"`kubectl -n {namespace} get pods,events` shows what its pod waits for.",
    )
    yield Alert(
        "NanoClawTextsStuck",
        WARNING,
        f"max by (namespace) (nanoclaw_outbox_oldest_seconds{{{here}}}) > 1800",
        "10m",
        f"Answers in {namespace} do not reach their chats",
        f"The oldest waits for {{{{ $value | humanizeDuration }}}}. `{nanoclaw} outbox` says what the network said.",
    )
    yield Alert(
        "NanoClawTextsGivenUp",
        WARNING,
        f"sum by (namespace) (increase(nanoclaw_texts_given_up_total{{{here}}}[1h])) > 0",
        "0m",
        f"Answers in {namespace} were given up",
        f"A chat network refused them. `{nanoclaw} outbox --state failed` says why, `{nanoclaw} outbox retry ID` tries "
        "again.",
    )


def _agents(namespace: str) -> Iterator[Alert]:
    """Where agents run, how they are reached and what they are started with; silent where a stack has none of it."""
    here, nanoclaw = f'namespace="{namespace}"', f"nanoclaw --namespace {namespace}"
    yield Alert(
        "NanoClawParkingFails",
        WARNING,
        f"sum by (namespace) (increase(nanoclaw_parking_failed_total{{{here}}}[30m])) > 3",
        "5m",
        f"Agents in {namespace} are not parked",
        "Messages are answered, and later than they could be. "
        f"`{nanoclaw} logs` says why: no room on the nodes, a quota, an image. Lower runtime.parking.pods where there "
        "is no room.",
    )
    yield Alert(
        "NanoClawBridgeBreaks",
        WARNING,
        f"sum by (namespace) (increase(nanoclaw_bridge_lost_total{{{here}}}[15m])) > 5",
        "5m",
        f"Agents in {namespace} lose their connection to the controller",
        "They come back and nothing is lost, but follow-ups wait meanwhile. Look at the nodes and the network between "
        f"them: `kubectl -n {namespace} get pods -o wide`, `{nanoclaw} logs`.",
    )
    yield Alert(
        "NanoClawGroupsStranded",
        CRITICAL,
        f"max by (namespace) (nanoclaw_groups_stranded{{{here}}}) > 0",
        "1m",
        f"Groups in {namespace} wait for a node that is gone",
        f"{{{{ $value }}}} of them, and their data is on its disk alone. `kubectl get nodes`, then `{nanoclaw} "
        "groups`; they go on by themselves when the node is back.",
    )


def _storage(namespace: str) -> Iterator[Alert]:
    ours = f'{{namespace="{namespace}",persistentvolumeclaim=~"{names.OWN_PREFIX}.*"}}'
    of_each = "by (namespace, persistentvolumeclaim)"
    free = f"kubelet_volume_stats_available_bytes{ours}"
    free_share = f"min {of_each} ({free} / kubelet_volume_stats_capacity_bytes{ours})"
    inodes = f"min {of_each} (kubelet_volume_stats_inodes_free{ours} / kubelet_volume_stats_inodes{ours})"
    claim = "{{ $labels.persistentvolumeclaim }}"
    enlarge = (
        f"`kubectl -n {namespace} get pvc {claim}`; raise its size in the stack (storage.sizes, groupSizes) and "
        "run `pulumi up`, or remove what is not needed."
    )
    yield Alert(
        "NanoClawVolumeNearlyFull",
        CRITICAL,
        f"{free_share} < 0.1 or {inodes} < 0.1",
        "10m",
        f"The volume {claim} in {namespace} is nearly full",
        f"{{{{ $value | humanizePercentage }}}} of its space or of its files is left. {enlarge}",
    )
    yield Alert(
        "NanoClawVolumeFillsUp",
        WARNING,
        f"min {of_each} (predict_linear({free}[6h], 86400)) < 0 and {free_share} < 0.4",
        "1h",
        f"The volume {claim} in {namespace} will be full within a day",
        f"If it goes on as in the last six hours. {enlarge}",
    )


def _gateway(namespace: str, told: GatewayConfig) -> Iterator[Alert]:
    here, nanoclaw = f'namespace="{namespace}"', f"nanoclaw --namespace {namespace}"
    requests, logs = (
        f"nanoclaw_gateway_requests_total{{{here}",
        f"kubectl -n {namespace} logs deployment/{names.GATEWAY}",
    )
    yield Alert(
        "NanoClawGatewayDown",
        CRITICAL,
        _down(namespace, names.GATEWAY),
        "5m",
        f"The model gateway in {namespace} does not answer",
        f"No agent reaches the model. `kubectl -n {namespace} describe pods` and `{logs}` say why.",
    )
    yield Alert(
        "NanoClawGatewayErrors",
        WARNING,
        f'sum by (namespace) (rate({requests},status=~"5..|401|403"}}[10m])) '
        f"/ sum by (namespace) (rate({requests}}}[10m])) > 0.1",
        "10m",
        f"The model refuses calls from {namespace}",
        f"{{{{ $value | humanizePercentage }}}} of the calls fail. `{logs}` tells whether the key is refused, or the "
        "model's service has trouble.",
    )
    yield Alert(
        "NanoClawGatewayLimited",
        WARNING,
        f"sum by (namespace, group, limit) (increase(nanoclaw_gateway_limited_total{{{here}}}[15m])) > 10",
        "5m",
        f"Group {{{{ $labels.group }}}} in {namespace} is at its limit {{{{ $labels.limit }}}}",
        "Its agent is told to wait. Look at what it does with "
        f"`{nanoclaw} history {{{{ $labels.group }}}}`, or raise gateway.serves.limits in the stack.",
    )
    yield Alert(
        "NanoClawGatewayUsageNotRecorded",
        WARNING,
        f"sum by (namespace) (increase(nanoclaw_gateway_ledger_errors_total{{{here}}}[1h])) > 0",
        "0m",
        f"The model gateway in {namespace} cannot write down what groups use",
        f"After a restart a day's budget would begin anew. Mostly its volume is full: `{logs}`.",
    )
    if budgets := " or ".join(_budget(here, matcher, limit) for matcher, limit in _daily_limits(told)):
        yield Alert(
            "NanoClawGatewayBudgetNearlyUsed",
            WARNING,
            budgets,
            "0m",
            f"Group {{{{ $labels.group }}}} in {namespace} has nearly used what a day may cost",
            "{{ $value | humanize }} US dollars in 24 hours, above four fifths of its limit. At the limit its agent is "
            "refused until midnight UTC; raise gateway.serves.groupLimits in the stack if that must not be.",
        )


def _down(namespace: str, service: str) -> str:
    target = f'up{{namespace="{namespace}",job="{service}"}}'
    return f"{target} == 0 or absent({target})"


def _daily_limits(told: GatewayConfig) -> Iterator[tuple[str, float]]:
    """Matcher of the groups a limit is for, and the limit in US dollars."""
    own: dict[str, Limits] = dict(sorted(told.group_limits.items()))
    if told.limits.cost_per_day is not None:
        yield (f'group!~"{"|".join(own)}"' if own else 'group!=""'), told.limits.cost_per_day
    for folder, limits in own.items():
        if limits.cost_per_day is not None:
            yield f'group="{folder}"', limits.cost_per_day


def _budget(here: str, matcher: str, limit: float) -> str:
    """Over a day that ends now, which is never less than what counts since midnight."""
    spent = f"sum by (namespace, group) (increase(nanoclaw_gateway_cost_dollars_total{{{here},{matcher}}}[1d]))"
    return f"{spent} > {_BUDGET_SHARE * limit:g}"
