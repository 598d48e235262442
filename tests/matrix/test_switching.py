"""From one way to run agents to another and back: a session runs meanwhile, nothing is lost, everybody remembers.

By `pulumi up` of the same stack where the data stays in its claims; with `nanoclaw export` and `import` where it has
to move. Three groups live through each change: one whose agent is in mid turn, one whose agent is idle, one without.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from nanoclaw_dev.matrix import Cell, Verdict
from nanoclaw_runtime.contract import names
from nanoclaw_runtime.contract.config import Pattern, Transport
from nanoclaw_runtime.kube.client import KubeClient
from nanoclaw_runtime.store.records import RecordedState
from tests.matrix.columns import RUNTIME, Column
from tests.matrix.installations import up, up_on_nodes
from tests.matrix.place import OnCluster
from tests.matrix.scene import Scene, state_of
from tests.support.command_line import CommandLine
from tests.support.docker_host import DockerHost

pytestmark = [
    pytest.mark.matrix,
    pytest.mark.cluster,
    pytest.mark.engine,
    pytest.mark.docker,
    pytest.mark.timeout(300),
]

WORKS, IDLES, QUIET = GROUPS = ("main", "Idle_1", "quiet")
TURN = 12
"""Seconds of the turn that is in flight: longer than an `up` takes to get to the controller."""
DEADLINE, LONG_TURN = 3, 33
"""Seconds that a turn gets behind a change of transport, and of one that needs more: still no silence."""
OUTLIVED = "The assistant was interrupted and tries again."

JOB, STATEFULSET = Column(Pattern.JOB), Column(Pattern.STATEFULSET)
BRIDGED = Column(Pattern.JOB, Transport.BRIDGE)


def groups():
    return [{"folder": each, "name": each, "requiresTrigger": False} for each in GROUPS]


@pytest.fixture(scope="module")
def directions(record):
    """Direction → what became of it."""
    found = {}
    yield found
    record("switching", "whole change", found)


@pytest.fixture(scope="module")
def installation(nodes3, tmp_path_factory):
    settings = JOB.settings() | {
        "groups": [{"folder": each, "name": each, "requiresTrigger": False} for each in GROUPS]
    }
    made = up(nodes3, tmp_path_factory.mktemp("switching"), settings)
    yield made
    made.leave()


@pytest.fixture
async def place(installation):
    async with await KubeClient.connect(installation.cluster.kubeconfig) as client:
        yield OnCluster(installation, client)


@pytest.fixture
async def scenes(place):
    async with contextlib.AsyncExitStack() as stack:
        remote = await stack.enter_async_context(place.remote())
        yield {group: await stack.enter_async_context(Scene.of(remote, group)) for group in GROUPS}


@contextlib.contextmanager
def kept(directions, name):
    """The direction's cell, whether it held or not."""
    begun = time.monotonic()
    directions[name] = Cell(Verdict.FAIL, 0, "it did not hold")
    yield
    directions[name] = Cell(Verdict.PASS, time.monotonic() - begun)


def runtime(**changed):
    return lambda settings: settings | {"runtime": settings["runtime"] | changed}


def pattern_of_groups(pattern):
    return lambda settings: settings | {"groups": [each | {"pattern": pattern} for each in settings["groups"]]}


@dataclass(frozen=True)
class Change:
    name: str
    settings: Callable[[dict[str, Any]], dict[str, Any]]
    owner: str
    """Kind of what has the pods of agents behind it."""
    bridged: bool = False


CHANGES = [
    Change("job → statefulset", runtime(pattern="statefulset"), "StatefulSet"),
    Change("statefulset → job", runtime(pattern="job"), "Job"),
    Change("volume → bridge", runtime(transport="bridge"), "Job", bridged=True),
    Change("bridge → volume", runtime(transport="volume"), "Job"),
    Change("job → statefulset, of a group", pattern_of_groups("statefulset"), "StatefulSet"),
    Change("statefulset → job, of a group", pattern_of_groups("job"), "Job"),
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.name)
async def test_a_change_of_the_stack_keeps_every_message_and_every_memory(
    installation, place, scenes, directions, change
):
    claims = await uids_of_claims(place)
    with kept(directions, change.name):
        said = f"before {change.name}"
        idle = await scenes[IDLES].say(said)
        ended = await scenes[QUIET].say(said)
        await scenes[QUIET].over(ended.payload["session"])
        sent = await scenes[WORKS].send(f"sleep {TURN}; echo {said}")
        session = await scenes[WORKS].running(sent)
        await asyncio.to_thread(installation.change, change.settings)
        assert (await scenes[WORKS].answer(sent)).payload["session"] == session
        await scenes[WORKS].over(session)
        await scenes[IDLES].over(idle.payload["session"])
        for scene in scenes.values():
            answer = await scene.say("history")
            assert said in answer.payload["text"].splitlines()[-1]
            pod = await place.agent(answer.payload["session"])
            assert [each["kind"] for each in pod["metadata"]["ownerReferences"]] == [change.owner]
            assert (names.BRIDGE in containers(pod)) == change.bridged
            assert scene.faults() == []
    assert await uids_of_claims(place) == claims


@pytest.mark.parametrize("transport", [Transport.BRIDGE, Transport.VOLUME])
async def test_a_turn_that_outlives_the_deadline_of_a_change_is_told_once_and_begun_anew(
    installation, place, scenes, directions, transport
):
    scene, changed = scenes[WORKS], runtime(transport=str(transport), switchDeadline=DEADLINE)
    with kept(directions, f"another transport than {transport} → {transport}, behind switchDeadline"):
        before = await scene.say("before")
        await scene.over(before.payload["session"])  # else the long turn is a follow-up of it
        sent = await scene.send(f"sleep {LONG_TURN}; echo {transport} at last")
        session = await scene.running(sent)
        await asyncio.to_thread(installation.change, changed)
        late = await scene.send("echo too late")
        answers = [await scene.answer(each) for each in (sent, late)]
        assert {answer.payload["session"] for answer in answers} & {session} == set()
        [told] = [each for each in scene.events if each.id > sent.event and state_of(each) is RecordedState.FAILED]
        assert (told.payload["session"], told.payload["text"]) == (session, OUTLIVED)
        pod = await place.agent(answers[0].payload["session"])
        assert (names.BRIDGE in containers(pod)) == (transport is Transport.BRIDGE)
        await scene.over(answers[-1].payload["session"])
        assert scene.faults() == []


@pytest.fixture
async def on_docker(engine, echo_agent, tmp_path):
    async with DockerHost.on(engine, tmp_path, echo_agent) as host:
        host.settings["groups"] = groups()
        host.settings["runtime"] |= {"idleTimeout": RUNTIME["idleTimeout"], "closeGrace": RUNTIME["closeGrace"]}
        await host.start()
        yield host


@pytest.fixture(params=[("job", Transport.VOLUME), ("bridge", Transport.BRIDGE)], ids=lambda side: side[0])
async def side(request, installation):
    """The name of what the cluster's side is in the meantime."""
    name, transport = request.param
    await asyncio.to_thread(installation.change, runtime(transport=str(transport)))
    yield name
    await asyncio.to_thread(installation.change, runtime(transport=str(Transport.VOLUME)))


@pytest.mark.timeout(600)  # two changes of the stack, and a pod for each group on each way
async def test_a_household_moves_to_docker_and_back(installation, side, on_docker, directions, tmp_path):
    on_cluster = command_line(installation)
    with kept(directions, f"{side} → docker, by export and import"):
        await moves(on_cluster, on_docker, tmp_path / "there")
    with kept(directions, f"docker → {side}, by export and import"):
        await moves(on_docker, on_cluster, tmp_path / "back", "--replace")


@pytest.fixture(scope="module")
def on_nodes(nodes3, tmp_path_factory):
    settings = JOB.settings() | {"groups": groups()}
    made = up_on_nodes(nodes3, tmp_path_factory.mktemp("nodelocal"), settings)
    yield command_line(made)
    made.leave()


async def test_a_household_moves_to_the_disks_of_nodes_and_back(installation, on_nodes, directions, tmp_path):
    on_cluster = command_line(installation)
    await everybody_listens(on_nodes)
    with kept(directions, "job → nodelocal, by export and import"):
        await moves(on_cluster, on_nodes, tmp_path / "there", "--replace")
    with kept(directions, "nodelocal → job, by export and import"):
        await moves(on_nodes, on_cluster, tmp_path / "back", "--replace")


async def everybody_listens(terminal):
    """Return when each group has a node: members find each other after their Pods are ready."""
    for group in GROUPS:
        while (await terminal.run("send", group, "hello", "--follow"))[0]:
            await asyncio.sleep(0.5)


def command_line(installation):
    return CommandLine(KUBECONFIG=str(installation.cluster.kubeconfig), NANOCLAW_NAMESPACE=installation.namespace)


async def moves(source, target, folder, *options):
    """Everybody talks, one agent works on; the household moves when it has finished, and everybody remembers."""
    said = f"before the move to {folder.name}"
    for group in GROUPS:
        await source.say(group, said)
    await source.done("send", WORKS, f"sleep 3; write notes.txt {said}")
    while await source.sessions() or await target.sessions():
        await asyncio.sleep(0.2)
    await source.done("export", folder)
    assert (await target.told("import", folder, "--yes", *options))["done"]
    assert await target.say(WORKS, "read notes.txt") == said
    for group in GROUPS:
        assert said in await target.say(group, "history")


async def uids_of_claims(place):
    """Of the groups' claims: the same ones, with the same data, before and after."""
    found = await place.claims()
    return {claim["metadata"]["name"]: claim["metadata"]["uid"] for claim in found}


def containers(pod):
    return {each["name"] for each in [*pod["spec"]["containers"], *pod["spec"].get("initContainers", [])]}
