"""The commands that add, change and remove groups, from the line to a real host and back."""

import json

import pytest
from structlog.testing import capture_logs
from typer.testing import CliRunner

from nanoclaw_runtime.cli.commands import app
from nanoclaw_runtime.contract.config import Pattern, Warm
from tests.support.served import TOKEN, ServedHost


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    # Both sides are one process here, and the host's log must not be read as what a command prints.
    with capture_logs(), ServedHost(folder, registration=True, close_grace=0.01) as served:
        yield served


@pytest.fixture
def nanoclaw(served):
    def invoke(*line):
        result = CliRunner().invoke(app, ["--url", served.url, *line], env={"NANOCLAW_TOKEN": TOKEN})
        return result.exit_code, result.stdout, result.stderr

    return invoke


def test_a_group_lives_and_goes(nanoclaw):
    assert nanoclaw("groups", "register", "team", "--name", "Team", "--jid", "tg:7", "--no-trigger") == (
        0,
        "group team is registered\n",
        "",
    )
    assert nanoclaw("groups", "change", "team", "--priority", "high") == (0, "group team is changed\n", "")
    _, shown, _ = nanoclaw("-o", "json", "groups")
    team = next(group for group in json.loads(shown) if group["folder"] == "team")
    assert (team["jid"], team["priority"], team["origin"]) == ("tg:7", "high", "registered")
    _, table, _ = nanoclaw("groups")
    assert "Team" in table

    code, told, _ = nanoclaw("groups", "remove", "team")
    assert (code, told) == (0, "group team is removed; its files and its history stay\n")
    assert "Team" not in nanoclaw("groups")[1]


def test_what_is_registered_is_json_for_scripts(nanoclaw):
    code, shown, _ = nanoclaw("-o", "json", "groups", "register", "club", "--name", "Club")
    assert code == 0
    assert json.loads(shown).items() >= {"folder": "club", "jid": "http:club", "requiresTrigger": True}.items()


def test_a_group_is_registered_with_where_and_when_its_agents_start(served, nanoclaw):
    code, _, told = nanoclaw(
        "groups", "register", "warm", "--name", "Warm", "--pattern", "statefulset", "--warm", "always"
    )
    assert code == 0, told
    kept = served.house.host.groups.by_folder("warm")
    assert (kept.pattern, kept.warm) == (Pattern.STATEFULSET, Warm.ALWAYS)


def test_a_busy_group_needs_force(served, nanoclaw):
    nanoclaw("groups", "register", "busy", "--name", "Busy", "--no-trigger")
    served.do(lambda house: house.send("hello", "busy"))
    served.do(lambda house: house.backend.agent(0))

    code, _, told = nanoclaw("groups", "remove", "busy")
    assert code == 1
    assert told.startswith("nanoclaw: session ")
    assert nanoclaw("groups", "remove", "busy", "--force")[0] == 0


def test_a_refusal_is_one_sentence(nanoclaw):
    assert nanoclaw("groups", "change", "main", "--name", "x") == (
        1,
        "",
        "nanoclaw: group 'main' is declared in the stack; change it there and run `pulumi up`\n",
    )
