"""Every alert fires when it should and not otherwise, evaluated by Prometheus' own promtool."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass, replace

import pytest
import yaml

from nanoclaw_dev import modules
from nanoclaw_dev.paths import CHECKOUT
from nanoclaw_infra.monitoring.alerts import alert_rules
from nanoclaw_infra.monitoring.dashboard import PANELS, dashboard
from nanoclaw_runtime.contract import gateway, names
from nanoclaw_runtime.contract.gateway import GatewayConfig
from nanoclaw_runtime.gateway.metrics import GatewayMetrics
from nanoclaw_runtime.telemetry import Metrics
from tests.infra.recording import configuration, manifests, record, settings
from tests.support.cluster import unavailable

OURS = "team-chat"
GATEWAY = GatewayConfig.model_validate(
    {
        "limits": {"costPerDay": 10},
        "groupLimits": {"rich": {"costPerDay": 100}, "free": {}},
        "prices": {"claude-": {"input": 3, "output": 15}},
    }
)
RULES = alert_rules(OURS, start_timeout=120, gateway=GATEWAY)
ALERTS = {rule["alert"]: rule for group in RULES["groups"] for rule in group["rules"]}

GIB = 1024**3


@pytest.fixture(scope="session")
def promtool():
    if not modules.PROMTOOL.built():
        unavailable("promtool is not built: `make test` builds it")
    return modules.PROMTOOL.place() / "promtool"


def series(metric, values, namespace=OURS, **more):
    matched = ",".join(f'{name}="{value}"' for name, value in {"namespace": namespace, **more}.items())
    return {"series": f"{metric}{{{matched}}}", "values": values}


def volume(metric, values, **more):
    return series(f"kubelet_volume_stats_{metric}", values, persistentvolumeclaim="nanoclaw-group-main", **more)


CONTROLLER = {"job": "nanoclaw-controller"}
CLAIM = {"namespace": OURS, "persistentvolumeclaim": "nanoclaw-group-main"}
HERE = {"namespace": OURS}
BIG = volume("capacity_bytes", f"{10 * GIB}x1000")


@dataclass(frozen=True)
class Case:
    """What is measured, and the alert it is about at a moment."""

    alert: str
    given: tuple[dict[str, str], ...]
    at: str
    labels: dict[str, str]
    title: str

    def __str__(self):
        return f"{self.alert}-{self.title}"


def case(alert, *given, at="20m", labels=HERE, title=""):
    return Case(alert, given, at, labels, title)


FIRING = [
    case("NanoClawControllerDown", series("up", "1 0x30", **CONTROLLER), labels=HERE | CONTROLLER, title="no answer"),
    case(
        "NanoClawControllerDown", series("up", "1x30", "other", **CONTROLLER), labels=HERE | CONTROLLER, title="no pod"
    ),
    case("NanoClawControllerNotReady", series("nanoclaw_ready", "1 0x30")),
    case(
        "NanoClawWatchStale",
        series("nanoclaw_watch_age_seconds", "0+60x30", kind="pods"),
        labels=HERE | {"kind": "pods"},
    ),
    case("NanoClawDatabaseErrors", series("nanoclaw_database_errors_total", "0x10 1x30")),
    case(
        "NanoClawSessionsFail",
        series("nanoclaw_sessions_ended_total", "0x5 6x30", failure="image"),
        labels=HERE | {"failure": "image"},
    ),
    case("NanoClawMessagesGivenUp", series("nanoclaw_messages_given_up_total", "0x15 1x30")),
    case("NanoClawQueueLong", series("nanoclaw_longest_wait_seconds", "0+60x30")),
    case("NanoClawSessionStuck", series("nanoclaw_session_overdue_seconds", "0+60x30")),
    case("NanoClawSessionNotStarting", series("nanoclaw_session_silent_seconds", "0+60x30", state="starting")),
    case("NanoClawParkingFails", series("nanoclaw_parking_failed_total", "0+1x30")),
    case("NanoClawBridgeBreaks", series("nanoclaw_bridge_lost_total", "0+1x30")),
    case("NanoClawGroupsStranded", series("nanoclaw_groups_stranded", "0x10 2x30")),
    case("NanoClawTextsStuck", series("nanoclaw_outbox_oldest_seconds", "0+60x100"), at="1h"),
    case("NanoClawTextsGivenUp", series("nanoclaw_texts_given_up_total", "0x15 1x30")),
    case("NanoClawVolumeNearlyFull", volume("available_bytes", f"{GIB // 2}x30"), BIG, labels=CLAIM, title="no space"),
    case(
        "NanoClawVolumeNearlyFull",
        volume("inodes_free", "9x30"),
        volume("inodes", "100x30"),
        labels=CLAIM,
        title="no inodes",
    ),
    case(
        "NanoClawVolumeFillsUp",
        volume("available_bytes", f"{8 * GIB}-{GIB // 100}x1000"),
        BIG,
        at="9h",
        labels=CLAIM,
    ),
    case(
        "NanoClawGatewayDown",
        series("up", "0x30", job="nanoclaw-gateway"),
        labels=HERE | {"job": "nanoclaw-gateway"},
    ),
    case(
        "NanoClawGatewayErrors",
        series("nanoclaw_gateway_requests_total", "0+9x40", group="main", status="200"),
        series("nanoclaw_gateway_requests_total", "0+2x40", group="main", status="529"),
        at="30m",
        title="overloaded",
    ),
    case(
        "NanoClawGatewayErrors",
        series("nanoclaw_gateway_requests_total", "0+2x40", group="main", status="401"),
        at="30m",
        title="key refused",
    ),
    case(
        "NanoClawGatewayLimited",
        series("nanoclaw_gateway_limited_total", "0+3x30", group="main", limit="requests"),
        labels=HERE | {"group": "main", "limit": "requests"},
    ),
    case("NanoClawGatewayUsageNotRecorded", series("nanoclaw_gateway_ledger_errors_total", "0x15 1x30")),
    case(
        "NanoClawGatewayBudgetNearlyUsed",
        series("nanoclaw_gateway_cost_dollars_total", "0+0.05x200", group="main"),
        at="3h",
        labels=HERE | {"group": "main"},
        title="everybody's limit",
    ),
    case(
        "NanoClawGatewayBudgetNearlyUsed",
        series("nanoclaw_gateway_cost_dollars_total", "0+0.5x200", group="rich"),
        at="3h",
        labels=HERE | {"group": "rich"},
        title="a limit of its own",
    ),
]

SILENT = [
    case("NanoClawControllerDown", series("up", "1 1 0 0 1x30", **CONTROLLER), title="a new pod took over"),
    case("NanoClawControllerNotReady", series("nanoclaw_ready", "0 0 0 1x30"), title="it starts"),
    case("NanoClawWatchStale", series("nanoclaw_watch_age_seconds", "20x30", kind="pods"), title="quiet minutes"),
    case("NanoClawDatabaseErrors", series("nanoclaw_database_errors_total", "7x30"), title="long ago"),
    case(
        "NanoClawSessionsFail",
        series("nanoclaw_sessions_ended_total", "0 2x30", failure="image"),
        series("nanoclaw_sessions_ended_total", "0+9x30", failure=""),
        series("nanoclaw_sessions_ended_total", "0+9x30", failure="stopped"),
        title="tried again with success, ended well, stopped",
    ),
    case("NanoClawMessagesGivenUp", series("nanoclaw_messages_given_up_total", "3x30"), title="long ago"),
    case("NanoClawQueueLong", series("nanoclaw_longest_wait_seconds", "0+60x8 0x30"), title="it got a place"),
    case("NanoClawSessionStuck", series("nanoclaw_session_overdue_seconds", "0 60 0x30"), title="it went"),
    case(
        "NanoClawSessionNotStarting",
        series("nanoclaw_session_silent_seconds", "0+60x30", state="working"),
        series("nanoclaw_session_silent_seconds", "0+60x4 0x30", state="starting"),
        title="it works",
    ),
    case("NanoClawParkingFails", series("nanoclaw_parking_failed_total", "0 2x30"), title="a full moment"),
    case("NanoClawBridgeBreaks", series("nanoclaw_bridge_lost_total", "0 4x30"), title="a node that went"),
    case("NanoClawGroupsStranded", series("nanoclaw_groups_stranded", "0 2 2 0x30"), title="the node is back"),
    case("NanoClawTextsStuck", series("nanoclaw_outbox_oldest_seconds", "0+60x20 0x80"), at="1h", title="delivered"),
    case("NanoClawTextsGivenUp", series("nanoclaw_texts_given_up_total", "2x30"), title="long ago"),
    case("NanoClawVolumeNearlyFull", volume("available_bytes", f"{2 * GIB}x30"), BIG, title="there is room"),
    case(
        "NanoClawVolumeNearlyFull",
        series("kubelet_volume_stats_available_bytes", "0x30", persistentvolumeclaim="database-of-others"),
        series("kubelet_volume_stats_capacity_bytes", "9x30", persistentvolumeclaim="database-of-others"),
        title="somebody else's claim",
    ),
    case("NanoClawVolumeFillsUp", volume("available_bytes", f"{3 * GIB}x1000"), BIG, at="9h", title="steady"),
    case(
        "NanoClawVolumeFillsUp",
        volume("available_bytes", f"{10 * GIB}-{GIB // 100}x300"),
        BIG,
        at="4h",
        title="much room yet",
    ),
    case("NanoClawGatewayDown", series("up", "1x30", job="nanoclaw-gateway"), title="up"),
    case(
        "NanoClawGatewayErrors",
        series("nanoclaw_gateway_requests_total", "0+20x40", group="main", status="200"),
        series("nanoclaw_gateway_requests_total", "0+1x40", group="main", status="500"),
        series("nanoclaw_gateway_requests_total", "0+5x40", group="main", status="429"),
        at="30m",
        title="a few",
    ),
    case(
        "NanoClawGatewayLimited",
        series("nanoclaw_gateway_limited_total", "0 3x30", group="main", limit="requests"),
        title="a moment",
    ),
    case("NanoClawGatewayUsageNotRecorded", series("nanoclaw_gateway_ledger_errors_total", "2x30"), title="long ago"),
    case(
        "NanoClawGatewayBudgetNearlyUsed",
        series("nanoclaw_gateway_cost_dollars_total", "0+0.03x200", group="main"),
        series("nanoclaw_gateway_cost_dollars_total", "0+0.3x200", group="rich"),
        series("nanoclaw_gateway_cost_dollars_total", "0+9x200", group="free"),
        at="3h",
        title="below, and without a limit",
    ),
]


def evaluate(promtool, folder, tests):
    """Exit status and everything promtool says."""
    (folder / "rules.yaml").write_text(yaml.safe_dump(RULES))
    document = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests}
    (folder / "tests.yaml").write_text(yaml.safe_dump(document))
    command = [promtool, "test", "rules", folder / "tests.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def expecting(each, *, fires=True):
    """A test of promtool: at that moment the alert fires once, with its labels, or not at all."""
    active = f'ALERTS{{alertname="{each.alert}",alertstate="firing"}}'
    samples = []
    if fires:
        severity = ALERTS[each.alert]["labels"]["severity"]
        found = {"alertname": each.alert, "alertstate": "firing", "severity": severity, **each.labels}
        matched = ",".join(f'{name}="{value}"' for name, value in found.items())
        samples = [{"labels": f"ALERTS{{{matched}}}", "value": 1}]
    asked = {"expr": active, "eval_time": each.at, "exp_samples": samples}
    return {"interval": "1m", "input_series": list(each.given), "promql_expr_test": [asked]}


@pytest.mark.apiserver
@pytest.mark.parametrize("each", FIRING, ids=str)
def test_an_alert_fires(promtool, tmp_path, each):
    code, told = evaluate(promtool, tmp_path, [expecting(each)])
    assert code == 0, told


@pytest.mark.apiserver
@pytest.mark.parametrize("each", SILENT, ids=str)
def test_an_alert_stays_silent(promtool, tmp_path, each):
    code, told = evaluate(promtool, tmp_path, [expecting(each, fires=False)])
    assert code == 0, told


@pytest.mark.apiserver
@pytest.mark.parametrize("each", FIRING, ids=str)
def test_what_happens_in_another_namespace_is_no_alert_of_ours(promtool, tmp_path, each):
    elsewhere = tuple(given | {"series": given["series"].replace(OURS, "elsewhere")} for given in each.given)
    well = (series("up", "1x1000", job=each.labels["job"]),) if "job" in each.labels else ()
    code, told = evaluate(promtool, tmp_path, [expecting(replace(each, given=elsewhere + well), fires=False)])
    assert code == 0, told


@pytest.mark.apiserver
def test_the_texts_of_all_alerts_can_be_read(promtool, tmp_path):
    tests = []
    for each in FIRING:
        asked = {"eval_time": each.at, "alertname": each.alert, "exp_alerts": []}
        tests.append({"interval": "1m", "input_series": list(each.given), "alert_rule_test": [asked]})
    _, told = evaluate(promtool, tmp_path, tests)
    assert told.count("description=") == len(FIRING), "every one is shown"
    for broken in ("error expanding", "no value", "%!"):
        assert broken not in told


@pytest.mark.apiserver
def test_the_rules_are_rules_to_prometheus(promtool, tmp_path):
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump(RULES))
    done = subprocess.run(
        [promtool, "check", "rules", "--lint=all", "--lint-fatal", file], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.apiserver
@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.title)
def test_a_panel_asks_what_prometheus_understands(promtool, panel):
    for _, expression in panel.queries:
        asked = expression.replace("$__rate_interval", "5m").replace("$namespace", OURS)
        command = [promtool, "promql", "format", "--experimental", asked]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_every_alert_is_tried_both_ways():
    for cases in (FIRING, SILENT):
        assert {each.alert for each in cases} == ALERTS.keys()


def test_every_alert_has_a_section_of_the_page_its_annotation_names():
    headings = {
        line.removeprefix("### ").lower()
        for line in (CHECKOUT / "docs" / "monitoring.md").read_text().splitlines()
        if line.startswith("### ")
    }
    assert {rule["annotations"]["runbook"] for rule in ALERTS.values()} == {
        f"docs/monitoring.md#{heading}" for heading in headings
    }


def families():
    """Everything that the controller and the gateway measure."""
    return [family for metrics in (Metrics(), GatewayMetrics()) for family in metrics.registry.collect()]


def test_what_is_asked_of_the_controller_and_the_gateway_is_measured_there():
    told = json.dumps([RULES, dashboard()])
    asked = set(re.findall(r"\bnanoclaw_[a-z_]+", told))
    suffixes = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}
    measured = {family.name + suffix for family in families() for suffix in suffixes[family.type]}
    assert asked <= measured


def test_the_page_has_every_metric_and_no_other():
    told = set(re.findall(r"`(nanoclaw_[a-z_]+)[`{]", (CHECKOUT / "docs" / "monitoring.md").read_text()))
    assert told == {family.name + "_total" * (family.type == "counter") for family in families()}


def test_without_a_gateway_there_is_no_alert_for_it():
    assert "gateway" not in json.dumps(alert_rules(OURS)).lower()


def test_without_a_daily_limit_no_budget_can_be_used_up():
    assert "BudgetNearlyUsed" not in json.dumps(alert_rules(OURS, gateway=GatewayConfig()))


def monitored(**changes):
    changed = settings("local") | {"monitoring": {"enabled": True, "labels": {"release": "prometheus"}} | changes}
    found = manifests(record("local", configuration("local", {"nanoclaw:settings": changed})))
    return {(each["kind"], each["metadata"].get("name", "")): each for each in found}


def test_a_monitored_stack_is_found_by_the_prometheus_that_selects_by_its_labels():
    found = monitored(interval=15)
    monitor, rules = found["ServiceMonitor", "nanoclaw-controller"], found["PrometheusRule", "nanoclaw"]
    assert monitor["metadata"]["labels"]["release"] == rules["metadata"]["labels"]["release"] == "prometheus"
    assert monitor["spec"]["endpoints"] == [{"targetPort": "http", "path": "/metrics", "interval": "15s"}]
    assert rules["spec"] == alert_rules("nanoclaw", start_timeout=120)
    assert ("ServiceMonitor", "nanoclaw-gateway") not in found


def test_the_service_of_the_controller_is_the_one_that_is_scraped():
    found = monitored()
    wanted = found["ServiceMonitor", "nanoclaw-controller"]["spec"]["selector"]["matchLabels"]
    services = [name for (kind, name), each in found.items() if kind == "Service"]
    assert services == ["nanoclaw-controller"]
    assert wanted.items() <= found["Service", "nanoclaw-controller"]["metadata"]["labels"].items()
    ports = {
        port["name"]
        for container in found["Deployment", "nanoclaw-controller"]["spec"]["template"]["spec"]["containers"]
        for port in container["ports"]
    }
    assert found["ServiceMonitor", "nanoclaw-controller"]["spec"]["endpoints"][0]["targetPort"] in ports


def test_the_gateway_is_scraped_where_agents_do_not_get():
    declared = manifests(record("production", configuration("production")))
    found = {(each["kind"], each["metadata"].get("name")): each for each in declared}
    (endpoint,) = found["ServiceMonitor", names.GATEWAY]["spec"]["endpoints"]
    (container,) = found["Deployment", names.GATEWAY]["spec"]["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports[endpoint["targetPort"]] == gateway.OPERATIONS_PORT
    service = found["Service", names.GATEWAY]["metadata"]["labels"]
    assert found["ServiceMonitor", names.GATEWAY]["spec"]["selector"]["matchLabels"].items() <= service.items()
    told = json.dumps(found["PrometheusRule", "nanoclaw"]["spec"])
    assert "NanoClawGatewayBudgetNearlyUsed" in told


def test_grafana_finds_the_dashboard_by_its_label_and_can_read_it():
    board = monitored(dashboardLabels={"dashboards": "yes"})["ConfigMap", "nanoclaw-dashboard"]
    assert board["metadata"]["labels"]["dashboards"] == "yes"
    (text,) = board["data"].values()
    assert json.loads(text) == dashboard()


def test_panels_lie_side_by_side_and_not_upon_each_other():
    taken = set()
    for panel in dashboard()["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert max(x for x, _ in cells) < 24
        assert not cells & taken
        taken |= cells


def test_the_dashboard_can_be_left_out():
    assert ("ConfigMap", "nanoclaw-dashboard") not in monitored(dashboard=False)


def test_a_stack_that_does_not_ask_has_none_of_it():
    kinds = {each["kind"] for each in manifests(record("local", configuration("local")))}
    assert not kinds & {"ServiceMonitor", "PrometheusRule"}
