"""Agents whose volumes their controller does not mount: real pods, real tokens, a container beside each agent."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from nanoclaw_dev import engine_binaries
from nanoclaw_dev.trial import Installation
from nanoclaw_runtime.contract import bridge, labels, names
from nanoclaw_runtime.kube.resources import CLAIMS, PODS
from nanoclaw_runtime.store.records import EventType
from tests.support import cluster as support
from tests.support.command_line import CommandLine

pytestmark = [pytest.mark.cluster, pytest.mark.engine, pytest.mark.timeout(300)]

GROUPS = ("main", "team", "Late_1")
SETTINGS = {
    "runtime": {"transport": "bridge", "idleTimeout": 600, "closeGrace": 10},
    "storage": {"accessMode": "ReadWriteOncePod"},
    "groups": [{"folder": folder, "name": folder, "requiresTrigger": False} for folder in GROUPS],
}


@pytest.fixture(scope="module")
def installation(cluster, tmp_path_factory):
    binaries = engine_binaries.present()
    if binaries is None:
        support.unavailable("the Pulumi engine is not built: `make test` builds it")
    folder = tmp_path_factory.mktemp("bridge")
    made = Installation.up(cluster, binaries, folder, settings=SETTINGS, layout="per-group")
    yield made
    made.leave()


@pytest.fixture
async def chat(installation):
    async with installation.chat() as chat:
        yield chat


async def pod_of(chat, session):
    (pod,) = await chat.client.list(PODS, namespace=chat.namespace, labels=f"{labels.SESSION}={session}")
    return pod


async def controllers(chat):
    selector = ",".join(f"{key}={value}" for key, value in labels.component(labels.CONTROLLER).items())
    found = await chat.client.list(PODS, namespace=chat.namespace, labels=selector)
    return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]


def process_of(session: str) -> int:
    """The container beside the agent of this session, as the node sees it."""
    wanted = f"{bridge.ENV_SESSION}={session}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (process / "environ").read_bytes().split(b"\0"):
                return int(process.name)
        except OSError:
            continue
    raise AssertionError(f"no process of session {session}")


async def tells(chat, group, *, after):
    told = await chat.until(lambda event: event.type is EventType.TELL and event.group == group, after=after)
    return told.payload["text"]


async def test_the_controller_mounts_nothing_of_any_group_and_every_claim_is_for_one_pod(chat):
    (controller,) = await controllers(chat)
    volumes = controller["spec"]["volumes"]
    mounted = {each["persistentVolumeClaim"]["claimName"] for each in volumes if "persistentVolumeClaim" in each}
    assert mounted == {names.STORE_CLAIM, names.PROJECT_CLAIM, names.GLOBAL_CLAIM}
    for folder in GROUPS:
        claim = await chat.client.get(CLAIMS, names.folder_claim(folder), namespace=chat.namespace)
        assert claim["spec"]["accessModes"] == ["ReadWriteOncePod"]


async def test_an_agent_answers_takes_follow_ups_and_asks_its_host(chat):
    first = await chat.answer(await chat.send("team", "write notes.txt remember me"))
    sent = await chat.send("team", "tell from myself; read notes.txt; who")
    answer = await chat.answer(sent)
    assert answer.payload["session"] == first.payload["session"]
    assert "remember me" in answer.payload["text"]
    assert await tells(chat, "team", after=sent.event) == "from myself"


async def test_main_sees_its_tasks_and_schedules_more(chat):
    await chat.answer(await chat.send("main", "schedule cron 0 8 * * 1-5 | Read the news"))
    for _ in range(20):
        listed = await chat.answer(await chat.send("main", "list-tasks"))
        if "Read the news" in listed.payload["text"]:
            return
        await asyncio.sleep(0.5)
    raise AssertionError(listed.payload["text"])


async def test_a_session_that_ends_is_followed_by_one_that_finds_everything(chat):
    first = await chat.answer(await chat.send("Late_1", "write notes.txt kept"))
    await chat.remote.stop(first.payload["session"])
    await chat.over(first.payload["session"], after=first.id)
    second = await chat.answer(await chat.send("Late_1", "read notes.txt; history"))
    assert second.payload["session"] != first.payload["session"]
    assert second.payload["text"].startswith("kept")
    assert "write notes.txt kept" in second.payload["text"]


async def test_a_follow_up_reaches_the_agent_whose_controller_was_replaced(chat):
    first = await chat.answer(await chat.send("team", "hello"))
    session, before = first.payload["session"], await pod_of(chat, first.payload["session"])
    sent = await chat.send("team", "sleep 3; echo finished")
    (controller,) = await controllers(chat)
    await chat.client.delete(PODS, controller["metadata"]["name"], namespace=chat.namespace)
    answer = await chat.answer(sent)
    assert (answer.payload["session"], answer.payload["text"]) == (session, "slept 3 s\nfinished")
    later = await chat.answer(await chat.send("team", "echo afterwards"))
    assert (later.payload["session"], later.payload["text"]) == (session, "afterwards")
    assert (await pod_of(chat, session))["metadata"]["uid"] == before["metadata"]["uid"]


async def test_a_bridge_that_is_killed_comes_back_and_nothing_is_said_twice(chat):
    first = await chat.answer(await chat.send("team", "hello"))
    session = first.payload["session"]
    os.kill(process_of(session), signal.SIGKILL)
    answers = [await chat.answer(await chat.send("team", f"echo number {number}")) for number in range(3)]
    assert [each.payload["text"] for each in answers] == [f"number {number}" for number in range(3)]
    assert {each.payload["session"] for each in answers} == {session}
    async with asyncio.timeout(60):
        while (restarts := await restarts_of_bridge(chat, session)) == 0:  # a kubelet tells of it when it gets to it
            await asyncio.sleep(0.2)
    assert restarts >= 1  # one that is behind may start it twice


async def restarts_of_bridge(chat, session):
    (beside,) = (await pod_of(chat, session))["status"]["initContainerStatuses"]
    assert beside["name"] == names.BRIDGE
    return beside["restartCount"]


async def test_an_agents_container_sees_no_token(chat):
    answer = await chat.answer(await chat.send("team", "env"))
    pod = await pod_of(chat, answer.payload["session"])
    (agent,) = pod["spec"]["containers"]
    assert bridge.TOKEN_VOLUME not in {mount["name"] for mount in agent["volumeMounts"]}
    assert bridge.OWN_VOLUME not in {mount["name"] for mount in agent["volumeMounts"]}
    assert "NANOCLAW_BRIDGE" not in answer.payload["text"]


@pytest.fixture
def terminal(installation):
    return CommandLine(KUBECONFIG=str(installation.cluster.kubeconfig), NANOCLAW_NAMESPACE=installation.namespace)


async def test_a_household_moves_out_in_the_middle_of_a_turn_and_in_again_with_what_was_added(chat, terminal, tmp_path):
    out, large = tmp_path / "out", os.urandom(8 * 1024 * 1024)
    first = await chat.answer(await chat.send("team", "write notes.txt before the move"))
    sent = await chat.send("team", "sleep 10; echo finished")
    await terminal.done("export", out)
    assert (out / "groups/team/notes.txt").read_text().strip() == "before the move"
    answer = await chat.answer(sent)
    assert (answer.payload["session"], answer.payload["text"]) == (first.payload["session"], "slept 10 s\nfinished")
    (out / "groups/Late_1/large").write_bytes(large)
    (out / "groups/team/notes.txt").write_text("after the move")
    status, _, refusal = await terminal.run("import", out, "--yes", "--replace")
    assert (status, f"nanoclaw sessions stop {first.payload['session']}" in refusal) == (1, True)
    await nobody_works(chat, terminal)
    assert (await terminal.told("import", out, "--yes", "--replace"))["done"]
    await terminal.done("export", tmp_path / "again")
    assert (tmp_path / "again/groups/Late_1/large").read_bytes() == large
    parked = {pod["metadata"]["uid"] for pod in await agents(chat, "team")}
    said = await chat.answer(await chat.send("team", "read notes.txt; history"))
    assert said.payload["text"].startswith("after the move")
    assert "write notes.txt before the move" in said.payload["text"]
    assert {(await pod_of(chat, said.payload["session"]))["metadata"]["uid"]} == parked  # it had no input before


@pytest.mark.matrix
async def test_the_pods_that_were_there_for_a_move_alone_are_gone_soon(chat, terminal, tmp_path):
    await nobody_works(chat, terminal)
    await terminal.done("export", tmp_path / "out")
    assert await agents(chat, "main")
    async with asyncio.timeout(150):
        while [pod for folder in GROUPS for pod in await agents(chat, folder)]:
            await asyncio.sleep(1)


async def nobody_works(chat, terminal):
    for session in await terminal.sessions():
        await chat.remote.stop(session)
    while await terminal.sessions():
        await asyncio.sleep(0.5)


async def agents(chat, folder):
    """The group's pods that have not ended."""
    selector = f"{labels.GROUP}={names.slug(folder)}"
    found = await chat.client.list(PODS, namespace=chat.namespace, labels=selector)
    return [pod for pod in found if pod["status"]["phase"] in {"Pending", "Running"}]
