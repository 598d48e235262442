"""The command line without a cluster: what is shown, what the doctor concludes, what a mistake is told.

With a real API server between the command and the controller: `tests/apiserver/test_cli.py`.
"""

import io
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner

from nanoclaw_runtime.api import schemas
from nanoclaw_runtime.api.stream import encode
from nanoclaw_runtime.cli import doctor, logs, render
from nanoclaw_runtime.cli.commands import COMMANDS, app, common_first
from nanoclaw_runtime.cli.conversation import Heard, Turn, hear
from nanoclaw_runtime.cli.doctor import Finding, Verdict
from nanoclaw_runtime.cli.errors import CommandFailed
from nanoclaw_runtime.cli.installation import only_namespace, token_of
from nanoclaw_runtime.cli.stream import StreamReader
from nanoclaw_runtime.controller.status import Check, GroupState, GroupStatus, SessionState, SessionStatus, Warmth
from nanoclaw_runtime.domain.model import SessionKind
from nanoclaw_runtime.store.records import Event, EventType, Message, MessageState

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def shown(renderable) -> str:
    console = Console(file=io.StringIO(), width=200, color_system=None)
    console.print(renderable)
    return console.file.getvalue()


def event(kind: EventType, **payload) -> schemas.EventView:
    return schemas.EventView.of(Event(7, "main", kind, payload, NOW))


# Rendering


def test_groups_are_shown_with_their_place_in_the_queue():
    status = GroupStatus("team", "Te\x1b[31mam", "http:team", False, GroupState.QUEUED, None, 3, 2, NOW)
    text = shown(render.groups([schemas.GroupView.of(status)], NOW + timedelta(minutes=5)))
    assert "queued (2.)" in text
    assert "5 min" in text
    assert "\x1b" not in text


def test_groups_are_shown_with_their_parked_agent():
    status = GroupStatus("team", "Team", "http:team", False, GroupState.QUIET, None, 0, None, NOW, warm=Warmth.STARTING)
    text = shown(render.groups([schemas.GroupView.of(status)], NOW))
    assert "starting" in text.split("\n")[1].split()


def test_sessions_are_shown_with_their_age():
    status = SessionStatus("s1", "main", SessionKind.MESSAGES, SessionState.IDLE, NOW, 4, None)
    text = shown(render.sessions([schemas.SessionView.of(status)], NOW + timedelta(hours=3)))
    assert text.split("\n")[1].split() == ["s1", "main", "messages", "idle", "3", "h", "4", "-"]


def test_history_shows_text_as_text():
    message = Message(1, "main", None, "u1", "[bold]Ada", "[red]x[/red]", NOW, MessageState.DONE, "s1", 0, 1)
    text = shown(render.history([schemas.MessageView.of(message)], NOW))
    assert "[red]x[/red]" in text
    assert "done" in text


def test_json_is_what_the_api_says():
    status = GroupStatus("team", "Team", "http:team", False, GroupState.QUEUED, None, 3, 2, NOW)
    assert json.loads(render.dump([schemas.GroupView.of(status)])) == [
        {
            "folder": "team",
            "name": "Team",
            "jid": "http:team",
            "isMain": False,
            "state": "queued",
            "session": None,
            "waitingMessages": 3,
            "queuePosition": 2,
            "lastActivity": "2026-03-01T12:00:00Z",
            "estimatedWait": None,
            "origin": "declared",
            "priority": "normal",
            "warm": "none",
            "node": None,
        }
    ]


@pytest.mark.parametrize(
    ("seconds", "told"), [(0, "0 s"), (59, "59 s"), (60, "1 min"), (7199, "1 h"), (90_000, "1 d"), (-5, "0 s")]
)
def test_an_age_is_said_in_its_largest_unit(seconds, told):
    assert render.age(NOW, NOW + timedelta(seconds=seconds)) == told


EVENTS = [
    pytest.param(event(EventType.MESSAGE, message=1, senderName="Ada", text="hi"), "Ada: hi", id="message"),
    pytest.param(event(EventType.ANSWER, text="hello\nyou", messages=[1]), "assistant: hello\nyou", id="answer"),
    pytest.param(event(EventType.TELL, sender=None, text="look"), "assistant: look", id="tell"),
    pytest.param(event(EventType.TELL, sender="Researcher", text="look"), "Researcher: look", id="tell by name"),
    pytest.param(event(EventType.SESSION, session="s1", state="running"), "session s1 running", id="session"),
    pytest.param(event(EventType.SESSION, session="s1", state="failed", text="Oh."), "failed Oh.", id="failed session"),
    pytest.param(event(EventType.FAILURE, text="gave up", messages=[1]), "gave up", id="failure"),
    pytest.param(event(EventType.DONE, session="s1", messages=[1]), "done without an answer", id="done"),
    pytest.param(event(EventType.DONE, session=None, messages=[1]), "answered on another host", id="done elsewhere"),
]


@pytest.mark.parametrize(("found", "told"), EVENTS)
def test_every_event_is_a_line(found, told):
    assert told in shown(render.event(found))


def test_what_an_agent_says_cannot_steer_the_terminal():
    assert render.printable("a\x1b]0;x\x07b\n\tc\x9b1m") == "a\ufffd]0;x\ufffdb\n\tc\ufffd1m"


# Waiting for an answer


@pytest.mark.parametrize(
    ("found", "heard"),
    [
        pytest.param(event(EventType.ANSWER, text="hi", messages=[3, 4]), Heard(Turn.ANSWERED, "hi"), id="ours"),
        pytest.param(event(EventType.ANSWER, text="hi", messages=[5]), Heard(Turn.NOTHING), id="another's"),
        pytest.param(event(EventType.DONE, messages=[4]), Heard(Turn.ANSWERED), id="done in silence"),
        pytest.param(event(EventType.FAILURE, text="no", messages=[4]), Heard(Turn.FAILED, "no"), id="given up"),
        pytest.param(event(EventType.MESSAGE, message=4, text="x", senderName="A"), Heard(Turn.NOTHING), id="itself"),
    ],
)
def test_what_ends_the_wait_for_message_4(found, heard):
    assert hear(found, 4) == heard


def test_a_failed_session_is_no_end_of_the_wait():
    heard = hear(event(EventType.SESSION, session="s1", state="failed", text="It broke."), 4)
    assert heard == Heard(Turn.NOTE, "It broke. It is tried again.")


@given(texts=st.lists(st.text(), max_size=5), cut=st.integers(1, 40))
def test_a_stream_is_read_in_any_chunking(texts, cut):
    sent = [Event(number, "main", EventType.ANSWER, {"text": text}, NOW) for number, text in enumerate(texts)]
    wire = (": connected\nid: 0\n\n" + "".join(f"{encode(one)}: nothing new\n\n" for one in sent)).encode()
    reader = StreamReader()
    read = [found for start in range(0, len(wire), cut) for found in reader.feed(wire[start : start + cut])]
    assert read == [schemas.EventView.of(one) for one in sent]
    assert reader.position == (sent[-1].id if sent else 0)


# Where the installation is


def test_the_only_namespace_is_taken_and_several_are_asked_about():
    assert only_namespace({"team"}) == "team"
    assert only_namespace(set()) == "nanoclaw"
    with pytest.raises(CommandFailed, match="a, b; name one with --namespace"):
        only_namespace({"b", "a"})


@pytest.mark.parametrize("data", [{}, {"token": "%%"}, {"token": ""}, {"token": "IAo="}, {"token": "//4="}])
def test_a_secret_without_a_token_is_one_sentence(data):
    with pytest.raises(CommandFailed, match="has no token under 'token'"):
        token_of(data)


def test_a_token_is_read_without_its_line_end():
    assert token_of({"token": "aGk="}) == token_of({"token": "aGkK"}) == "hi"


@pytest.mark.parametrize(
    ("group", "session", "expected"),
    [
        (None, None, "app.kubernetes.io/name=nanoclaw,app.kubernetes.io/component=controller"),
        ("main", None, "app.kubernetes.io/name=nanoclaw,app.kubernetes.io/component=agent,nanoclaw.dev/group=main"),
        (None, "s1", "app.kubernetes.io/name=nanoclaw,app.kubernetes.io/component=agent,nanoclaw.dev/session=s1"),
    ],
)
def test_logs_are_those_of_the_pods_meant(group, session, expected):
    assert logs.selector(group, session) == expected


def test_of_several_pods_the_newest_is_read():
    pods = [{"metadata": {"name": n, "creationTimestamp": f"2026-03-0{n}T00:00:00Z"}} for n in (1, 3, 2)]
    assert logs.newest(pods)["metadata"]["name"] == 3
    assert logs.newest([]) is None


# The doctor


def pod(*, component="agent", **status):
    return {
        "metadata": {"name": f"{component}-1", "labels": {"app.kubernetes.io/component": component}},
        "status": status,
    }


def waiting(reason):
    return [{"name": "agent", "state": {"waiting": {"reason": reason, "message": "no such image"}}}]


def claim(phase):
    return {"metadata": {"name": f"claim-{phase}"}, "status": {"phase": phase}}


def warning(minutes, reason="Failed"):
    at = (NOW - timedelta(minutes=minutes)).isoformat().replace("+00:00", "Z")
    return {"lastTimestamp": at, "reason": reason, "message": "why", "involvedObject": {"name": "pod-1"}}


def deployed(replicas, available, **more):
    return {"spec": {"replicas": replicas}, "status": {"availableReplicas": available, **more}}


def members(wanted, available):
    return {"status": {"desiredNumberScheduled": wanted, "numberAvailable": available}}


LACKING = [{"type": "Available", "status": "False", "message": "quota"}]
UNSCHEDULED = [{"type": "PodScheduled", "status": "False", "message": "no node"}]

FINDINGS = [
    pytest.param(doctor.version("v1.36.3"), Verdict.GOOD, "v1.36.3", id="new API server"),
    pytest.param(doctor.version("v1.24.0-rke2"), Verdict.GOOD, "1.24", id="oldest API server"),
    pytest.param(doctor.version("v1.9.11"), Verdict.BAD, "1.9", id="too old"),
    pytest.param(doctor.version("custom"), Verdict.DOUBTFUL, "custom", id="version of nobody"),
    pytest.param(doctor.deployment(deployed(1, 1)), Verdict.GOOD, "1 of 1", id="available"),
    pytest.param(doctor.deployment(deployed(1, 0, conditions=LACKING)), Verdict.BAD, "quota", id="unavailable"),
    pytest.param(doctor.deployment(deployed(0, 0)), Verdict.BAD, "scaled to 0", id="switched off"),
    pytest.param(doctor.daemon_set(members(2, 2)), Verdict.GOOD, "on 2 of 2 nodes", id="on every node"),
    pytest.param(doctor.daemon_set(members(2, 1)), Verdict.BAD, "on 1 of 2 nodes", id="not on every node"),
    pytest.param(doctor.daemon_set(members(0, 0)), Verdict.BAD, "no node may run it", id="on no node"),
    pytest.param(doctor.pods([pod(phase="Running")]), Verdict.GOOD, "1 without", id="pods run"),
    pytest.param(doctor.pods([]), Verdict.BAD, "none", id="no pods"),
    pytest.param(
        doctor.pods([pod(component="controller", containerStatuses=waiting("ImagePullBackOff"))]),
        Verdict.BAD,
        "controller-1: ImagePullBackOff no such image",
        id="controller without image",
    ),
    pytest.param(doctor.pods([pod(phase="Failed", reason="Evicted")]), Verdict.DOUBTFUL, "Evicted", id="agent evicted"),
    pytest.param(doctor.pods([pod(conditions=UNSCHEDULED)]), Verdict.DOUBTFUL, "no node", id="agent without node"),
    pytest.param(
        doctor.pods([pod(containerStatuses=waiting("ContainerCreating"))]), Verdict.GOOD, "1", id="pod is being made"
    ),
    pytest.param(doctor.claims([claim("Bound")]), Verdict.GOOD, "1 bound", id="bound"),
    pytest.param(doctor.claims([claim("Bound"), claim("Pending")]), Verdict.DOUBTFUL, "claim-Pending", id="pending"),
    pytest.param(doctor.claims([claim("Lost"), claim("Pending")]), Verdict.BAD, "claim-Lost", id="lost"),
    pytest.param(doctor.claims([]), Verdict.BAD, "no claims", id="no claims"),
    pytest.param(doctor.rights({"a": True, "b": True}), Verdict.GOOD, "all 2", id="allowed"),
    pytest.param(doctor.rights({"get pods": False, "b": True}), Verdict.BAD, "get pods", id="not allowed"),
    pytest.param(doctor.warnings([warning(16)], NOW), Verdict.GOOD, "no warnings", id="old warnings"),
    pytest.param(
        doctor.warnings([warning(9, "Older"), warning(1, "Newer")], NOW),
        Verdict.DOUBTFUL,
        "Newer (pod-1): why; Older",
        id="recent",
    ),
    pytest.param(doctor.warnings([warning(1)] * 7, NOW), Verdict.DOUBTFUL, "Failed (pod-1): why", id="one reason"),
    pytest.param(
        doctor.warnings([warning(1, f"Reason{number}") for number in range(7)], NOW),
        Verdict.DOUBTFUL,
        "and 2 more",
        id="many reasons",
    ),
]


@pytest.mark.parametrize(("finding", "verdict", "evidence"), FINDINGS)
def test_a_finding_has_a_verdict_evidence_and_a_remedy_if_there_is_trouble(finding, verdict, evidence):
    assert finding.verdict is verdict
    assert evidence in finding.evidence
    assert bool(finding.remedy) is (verdict is not Verdict.GOOD)


def test_the_controllers_own_checks_are_findings():
    report = schemas.Readiness.of([Check("database", ok=True, detail="x"), Check("watch", ok=False, detail="stale")])
    assert [(found.check, found.verdict) for found in doctor.readiness(report)] == [
        ("controller: database", Verdict.GOOD),
        ("controller: watch", Verdict.BAD),
    ]


def test_only_a_failed_check_fails_the_report():
    doubtful = Finding(check="a", verdict=Verdict.DOUBTFUL, evidence="b", remedy="c")
    assert doctor.healthy([doubtful, doctor.skipped("x", "y")])
    assert not doctor.healthy([doubtful, doctor.failed("x", "y", "z")])


def test_the_report_is_a_table_and_json():
    found = [doctor.failed("pods", "[bold]evil", "look")]
    assert "✗  pods   [bold]evil  look" in shown(render.findings(found))
    assert json.loads(render.dump(found)) == [
        {"check": "pods", "verdict": "failed", "evidence": "[bold]evil", "remedy": "look"}
    ]


# The line


@pytest.mark.parametrize(
    ("line", "sorted_line"),
    [
        ("groups -o json", "-o json groups"),
        ("--context a groups --namespace=b", "--context a --namespace=b groups"),
        ("send main -- -n", "send main -- -n"),
        ("groups -n", "-n groups"),
        ("send main hi --follow", "send main hi --follow"),
    ],
)
def test_common_options_may_stand_anywhere(line, sorted_line):
    assert common_first(line.split()) == sorted_line.split()


@pytest.mark.parametrize(
    ("line", "told"),
    [
        pytest.param("send main", "TEXT", id="no text"),
        pytest.param("-o yaml groups", "yaml", id="unknown output"),
        pytest.param("nonsense", "nonsense", id="unknown command"),
        pytest.param("logs main --session s1", "not both", id="group and session"),
        pytest.param("send main x --timeout 0", "timeout", id="timeout of 0"),
        pytest.param("history main --limit 5000", "limit", id="too much history"),
        pytest.param("groups register team", "--name", id="no name for a group"),
        pytest.param("groups change team", "name something", id="nothing to change"),
        pytest.param("groups change team --priority top", "priority", id="unknown priority"),
        pytest.param("doctor --project /nowhere", "does not exist", id="no project"),
        pytest.param("--context a doctor --stack local", "--context", id="stack and context"),
        pytest.param("--kubeconfig a doctor --stack local", "--kubeconfig", id="stack and kubeconfig"),
        pytest.param("-n a doctor --stack local", "the stack says where", id="stack and namespace"),
        pytest.param("--url http://a doctor --stack local", "--url", id="stack and address"),
    ],
)
def test_a_mistake_on_the_line_exits_with_2(line, told):
    result = CliRunner().invoke(app, line.split())
    assert result.exit_code == 2
    assert told.lower() in result.output.lower()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_where_it_is_said_to_be(name):
    result = CliRunner().invoke(app, [name, "--help"])
    assert result.exit_code == 0
    assert f" {name} " in result.output.partition("\n")[0] + " "


@pytest.mark.parametrize(
    ("line", "unneeded"),
    [
        ("--help", {"pydantic", "rich", "httpx", "kubernetes", "fastapi", "sqlalchemy"}),
        ("--url http://127.0.0.1:1 groups", {"kubernetes", "aiohttp", "fastapi", "sqlalchemy"}),
        ("--url http://127.0.0.1:1 outbox", {"kubernetes", "aiohttp", "fastapi", "sqlalchemy"}),
        ("--kubeconfig /nowhere send main x", {"httpx", "fastapi", "sqlalchemy"}),
    ],
)
def test_a_command_does_not_wait_for_what_it_does_not_need(line, unneeded):
    script = (
        "import sys\n"
        "from nanoclaw_runtime.cli import main\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        "    print(*sys.modules, file=sys.stderr)\n"
    )
    ran = subprocess.run([sys.executable, "-c", script, *line.split()], capture_output=True, text=True, check=False)
    loaded = set(ran.stderr.split())
    assert "nanoclaw_runtime.cli" in loaded
    assert loaded & unneeded == set()


@pytest.mark.parametrize(
    "line",
    [
        *("groups", "sessions", "send main x", "doctor", "logs", "events", "history main"),
        *("groups register a --name A", "groups change a --no-trigger", "groups remove a"),
    ],
)
def test_without_a_cluster_every_command_says_so_in_one_sentence(line, tmp_path):
    result = CliRunner().invoke(app, ["--kubeconfig", str(tmp_path / "missing"), *line.split()])
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("nanoclaw: ")
    assert result.stderr.count("\n") == 1
