"""A Docker host's own files: what its stack file may say, who may have its tree, where its secrets come from."""

import contextlib
import os
import re

import pytest
import structlog

from nanoclaw_dev.paths import CHECKOUT
from nanoclaw_runtime.contract import wire
from nanoclaw_runtime.contract.config import Pattern
from nanoclaw_runtime.domain.errors import SettingsInvalid
from nanoclaw_runtime.host.place import HostPlace
from nanoclaw_runtime.host.stack_file import StackFile, watch_groups

PLAIN = """
runtime: {agent: {image: "agent:1"}, timezone: Europe/Berlin}
groups:
  - {folder: main, name: Main}
"""

STACK = """
config:
  pulumi:disable-default-providers: [kubernetes]
  nanoclaw:platform: openshift
  nanoclaw:layout: per-type
  nanoclaw:credentials: {ANTHROPIC_API_KEY: {secure: v1:abc}}
  nanoclaw:settings:
    namespace: {name: nanoclaw-dev}
    controller: {image: "registry.example/nanoclaw/runtime:1"}
    runtime: {agent: {image: "agent:1"}, pattern: job, timezone: Europe/Berlin}
    groups:
      - {folder: main, name: Main}
encryptionsalt: v1:xyz
"""


def read(text, **environ):
    return StackFile.parse("here.yaml", text, environ)


@pytest.mark.parametrize("text", [pytest.param(PLAIN, id="plain"), pytest.param(STACK, id="of a cluster")])
def test_a_stack_file_and_a_plain_one_say_the_same(text):
    found = read(text)
    assert found.config.pattern is Pattern.DOCKER
    assert found.config.timezone == "Europe/Berlin"
    assert [group.folder for group in found.groups.groups] == ["main"]


def test_the_stacks_of_this_project_serve_a_docker_host():
    for name in ("local", "dev"):
        found = read((CHECKOUT / f"stacks/Pulumi.{name}.yaml").read_text(), NANOCLAW_AGENT_IMAGE="agent:1")
        assert found.groups.groups[0].folder == "main"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        pytest.param("config: [", "here.yaml is no YAML", id="no YAML"),
        pytest.param("runtime: {since: 2026-02-30}", "here.yaml is no YAML", id="no day"),
        pytest.param("", "here.yaml has no settings", id="empty"),
        pytest.param("groups: []", "here.yaml has no map `runtime`", id="no runtime"),
        pytest.param("runtime: {agent: {}}", "runtime.agent.image: Field required", id="no image"),
        pytest.param('runtime: {agent: {image: "a:1"}, idle: 3}', "runtime.idle: Extra inputs", id="unknown field"),
        pytest.param(
            'runtime: {agent: {image: "a:1"}}\ngroups: [{folder: "a b", name: A}]',
            "groups[0].folder: 'a b'",
            id="group",
        ),
        pytest.param('runtime: {agent: {image: "$NOWHERE"}}', "NOWHERE is not set", id="unset variable"),
    ],
)
def test_a_mistake_is_told_with_its_place(text, told):
    with pytest.raises(SettingsInvalid) as refused:
        read(text)
    assert told in str(refused.value)


def test_every_mistake_is_told_at_once():
    with pytest.raises(SettingsInvalid) as refused:
        read('runtime: {agent: {image: "a:1"}, timezone: Nowhere}\ngroups: [{folder: x}]')
    assert str(refused.value).count("\n  - ") == 2


TEAM = "  - {folder: team, name: Team}\n"
WORK = "  - {folder: work, name: Work}\n"


class AllSeen(Exception):
    """There are no more texts to look at."""


async def watched(file, *texts):
    """The folders as they become known, in a file that has another of these texts at each look; None is none."""
    coming, found = list(texts), []

    async def sleep(_seconds):
        if not coming:
            raise AllSeen
        if (text := coming.pop(0)) is None:
            file.unlink(missing_ok=True)
        else:
            file.write_text(text)
            os.utime(file, (0, 0))  # so that nobody can tell by its time that it is another

    await sleep(0)
    with contextlib.suppress(AllSeen):
        async for groups in watch_groups(file, {}, sleep=sleep):
            found.append([group.folder for group in groups.groups])  # noqa: PERF401 - those before the end count
    return found


async def test_changed_groups_are_seen_and_mistakes_leave_the_last_ones(tmp_path):
    broken, more = "groups: [", PLAIN + TEAM
    with structlog.testing.capture_logs() as logs:
        found = await watched(tmp_path / "here.yaml", PLAIN, broken, broken, broken, None, None, more, more, more)
    assert found == [["main"], ["main", "team"]]
    assert [re.findall("is no YAML|cannot be read", log["problem"]) for log in logs] == [
        ["is no YAML"],
        ["cannot be read"],
    ]


async def test_a_change_of_the_same_size_at_the_same_moment_is_seen(tmp_path):
    first, second = PLAIN + TEAM, PLAIN + WORK
    assert len(first) == len(second)
    found = await watched(tmp_path / "here.yaml", first, second, second)
    assert found == [["main", "team"], ["main", "work"]]


async def test_the_beginning_of_a_file_that_is_being_written_is_not_taken_for_the_whole(tmp_path):
    whole = PLAIN + TEAM + WORK
    found = await watched(tmp_path / "here.yaml", PLAIN + TEAM, PLAIN, whole, whole)
    assert found == [["main", "team"], ["main", "team", "work"]]


@pytest.fixture
def place(tmp_path):
    return HostPlace(tmp_path / "tree", None, {})


def test_a_tree_has_one_controller_at_a_time(place):
    with place.taken(), pytest.raises(SettingsInvalid, match="works on"), place.taken():
        pass
    with place.taken():
        assert (place.tree / "groups" / "global").is_dir()


def test_the_token_is_made_once_and_for_its_owner_alone(place):
    with place.taken():
        token = place.api_token()
    with place.taken():
        assert place.api_token() == token
    assert len(token) > 30
    assert place.token_file.stat().st_mode & 0o777 == 0o600


def test_an_empty_token_never_lets_anybody_in(place):
    with place.taken():
        place.token_file.write_text("\n")
        with pytest.raises(SettingsInvalid, match="has no token"):
            place.api_token()


def test_a_tree_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(SettingsInvalid, match="name another with --tree"),
        HostPlace(tmp_path / "file", None, {}).taken(),
    ):
        pass


def test_credentials_come_from_the_environment_or_from_files(tmp_path):
    environ = {"ANTHROPIC_API_KEY": "from the environment", "HOME": "/x", wire.TELEGRAM_TOKEN_KEY: "bot"}
    place = HostPlace(tmp_path, None, environ)
    assert place.credentials() == {"ANTHROPIC_API_KEY": "from the environment"}
    assert place.channel_secret(wire.TELEGRAM_TOKEN_KEY) == "bot"
    (tmp_path / "CLAUDE_CODE_OAUTH_TOKEN").write_text("from a file\n")
    place = HostPlace(tmp_path, tmp_path, environ)
    assert place.credentials() == {"CLAUDE_CODE_OAUTH_TOKEN": "from a file"}
    assert place.channel_secret(wire.TELEGRAM_TOKEN_KEY) is None
