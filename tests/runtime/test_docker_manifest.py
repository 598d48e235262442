"""The `docker run` of a session, and what the engine's words mean, without an engine."""

import csv
from dataclasses import replace
from itertools import pairwise
from pathlib import PurePosixPath

import pytest

from nanoclaw_runtime.backends import docker_diagnosis as diagnosis
from nanoclaw_runtime.backends.docker_client import ContainerUnknown, DockerFailed, EngineAway, State, failure
from nanoclaw_runtime.contract.mounts import ExtraMount
from nanoclaw_runtime.domain.errors import FailureKind
from nanoclaw_runtime.manifests.docker import DockerHost, agent_run
from tests.support.plans import plan

HOST = DockerHost(PurePosixPath("/srv/nanoclaw"), uid=1000, gid=1000)


def values(arguments: list[str], option: str) -> list[str]:
    return [value for name, value in pairwise(arguments) if name == option]


def binds(arguments: list[str]) -> list[list[str]]:
    return list(csv.reader(values(arguments, "--mount")))


def test_the_image_is_the_last_word_and_its_entry_point_is_kept():
    arguments = agent_run(plan("main", "s1"), HOST)
    assert arguments[:2] == ["run", "--interactive"]
    assert arguments[-1] == "registry.example/agent:1"
    assert "--rm" not in arguments
    assert "--entrypoint" not in arguments


def test_main_sees_the_project_and_the_others_the_shared_memory():
    targets = {
        folder: {fields[2]: fields[3:] for fields in binds(agent_run(plan(folder, "s1"), HOST))}
        for folder in ("main", "team")
    }
    assert targets["main"]["target=/workspace/project"] == ["readonly"]
    assert targets["team"]["target=/workspace/global"] == ["readonly"]
    assert "target=/workspace/project" not in targets["team"]
    assert targets["team"]["target=/workspace/group"] == []


def test_folders_of_the_host_are_mounted_behind_the_standard_ones():
    wanted = ExtraMount("/workspace/extra/no,tes", host_path='/srv/a "b", c')
    arguments = agent_run(replace(plan("team", "s1"), extra=(wanted,)), HOST)
    assert binds(arguments)[-1] == ["type=bind", 'source=/srv/a "b", c', "target=/workspace/extra/no,tes", "readonly"]


def test_home_and_time_zone_are_always_set():
    arguments = agent_run(plan("team", "s1", env={"LOG_LEVEL": "debug"}, timezone="Europe/Berlin"), HOST)
    assert values(arguments, "--env") == ["HOME=/home/node", "LOG_LEVEL=debug", "TZ=Europe/Berlin"]


def test_limits_are_said_in_bytes_cpus_and_processes():
    arguments = agent_run(plan("team", "s1"), HOST)
    assert values(arguments, "--memory") == values(arguments, "--memory-swap") == [str(2**30)]
    assert values(arguments, "--cpus") == ["1"]
    assert values(arguments, "--pids-limit") == ["4096"]


def test_the_network_is_the_engines_unless_one_is_named():
    assert "--network" not in agent_run(plan("team", "s1"), HOST)
    assert values(agent_run(plan("team", "s1"), replace(HOST, network="none")), "--network") == ["none"]


def test_different_trees_are_different_installations():
    other = replace(HOST, tree=PurePosixPath("/srv/other"))
    assert HOST.selector != other.selector


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        pytest.param("Unable to find image 'a:1' locally", FailureKind.IMAGE, id="no image"),
        pytest.param("Error response from daemon: No such image: a:1", FailureKind.IMAGE, id="never pulled"),
        pytest.param("docker: invalid reference format", FailureKind.IMAGE, id="no name"),
        pytest.param('Conflict. The name "/x" is already in use by container "1"', FailureKind.REFUSED, id="name"),
        pytest.param("bind source path does not exist: /x", FailureKind.VOLUME, id="folder"),
        pytest.param("network nonesuch not found", FailureKind.REFUSED, id="network"),
        pytest.param('OCI runtime create failed: exec: "/x": no such file', FailureKind.IMAGE, id="entry point"),
        pytest.param("Cannot connect to the Docker daemon at unix:///x", FailureKind.API, id="engine away"),
        pytest.param("something new", FailureKind.REFUSED, id="anything else"),
    ],
)
def test_a_refusal_is_told_by_what_the_engine_said(said, kind):
    found = diagnosis.refused("nanoclaw-main-s1", failure(f"{said}\n\nRun 'docker run --help' for more information\n"))
    assert found.kind is kind
    assert said in found.operator
    assert "--help" not in found.operator
    assert "docker" not in found.chat.lower()


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        pytest.param("Error response from daemon: No such container: x", ContainerUnknown, id="unknown"),
        pytest.param("permission denied while trying to connect to the Docker daemon", EngineAway, id="not allowed"),
        pytest.param("", DockerFailed, id="silent"),
    ],
)
def test_what_a_client_says_becomes_an_error(said, kind):
    assert type(failure(said)) is kind


@pytest.mark.parametrize(
    ("code", "out_of_memory", "stopped", "kind"),
    [
        pytest.param(0, False, False, None, id="well"),
        pytest.param(3, False, False, FailureKind.EXIT, id="failed"),
        pytest.param(137, True, False, FailureKind.OUT_OF_MEMORY, id="memory"),
        pytest.param(137, False, False, FailureKind.STOPPED, id="killed"),
        pytest.param(137, False, True, FailureKind.STOPPED, id="stopped"),
    ],
)
def test_an_ending_is_told_by_code_and_cause(code, out_of_memory, stopped, kind):
    found = diagnosis.ending("c", State("exited", code, out_of_memory), "last words", stopped=stopped)
    assert (found and found.kind) == kind
