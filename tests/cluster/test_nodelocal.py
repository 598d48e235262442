"""A controller on each of three nodes: whoever is asked, the right one answers; and what losing a node means."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess

import httpx
import pytest

from nanoclaw_runtime.api.schemas import TOKEN_HEADER, AcceptedView
from nanoclaw_runtime.cli.errors import NotReachable, Refused
from nanoclaw_runtime.contract import labels, names
from nanoclaw_runtime.controller.status import SessionState
from nanoclaw_runtime.kube.resources import CONFIG_MAPS, JOBS, PODS
from nanoclaw_runtime.members.record import KEY, parsed
from nanoclaw_runtime.store.records import EventType
from tests.matrix.installations import node_root, open_nodes, up
from tests.matrix.place import OnNodes

pytestmark = [pytest.mark.cluster, pytest.mark.engine, pytest.mark.timeout(400), pytest.mark.wide]

GROUPS = ("main", "a", "b", "c", "d", "e")
GUESTS = ("guest", "visitor", "tourist")
"""May begin anew elsewhere."""
GONE_AFTER = 15
PATIENCE = 120


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("nodelocal")


@pytest.fixture(scope="module")
def installation(nodes3, folder):
    settings = {
        "runtime": {
            "pattern": "nodelocal",
            "nodeRoot": node_root(folder),
            "nodelocal": {"goneAfter": GONE_AFTER},
            "idleTimeout": 3,
            "closeGrace": 5,
        },
        "groups": [{"folder": group, "name": group, "requiresTrigger": False} for group in GROUPS]
        + [{"folder": guest, "name": guest, "requiresTrigger": False, "ephemeral": True} for guest in GUESTS],
    }
    made = up(nodes3, folder, settings | open_nodes(nodes3, folder))
    yield made
    made.leave()


@pytest.fixture
async def chat(installation):
    async with installation.chat() as chat:
        yield chat


@pytest.fixture
async def members(chat):
    """The API of each member by its node, reached without the Service."""
    token = await chat.remote.transport.token()
    async with httpx.AsyncClient(headers={TOKEN_HEADER: token}, trust_env=False, timeout=30) as caller:
        yield Members(chat, caller)


class Members:
    def __init__(self, chat, caller):
        self.chat, self.caller = chat, caller

    async def pods(self):
        pods = await self.chat.client.list(PODS, namespace=self.chat.namespace, labels=labels.CONTROLLER_SELECTOR)
        return {pod["spec"]["nodeName"]: pod for pod in pods if "deletionTimestamp" not in pod["metadata"]}

    async def url(self, node, path):
        pod = (await self.pods())[node]
        return f"http://{pod['status']['podIP']}:{names.API_PORT}/v1{path}"

    async def get(self, node, path):
        return await self.caller.get(await self.url(node, path))

    async def send(self, node, group, text):
        return await self.caller.post(await self.url(node, f"/groups/{group}/messages"), json={"text": text})

    async def until(self, condition):
        async with asyncio.timeout(PATIENCE):
            while not await condition():
                await asyncio.sleep(0.5)


async def record(chat):
    found = await chat.client.get(CONFIG_MAPS, names.ASSIGNMENTS_CONFIG, namespace=chat.namespace)
    return parsed({KEY: found["data"][KEY]})


async def node_of(chat, group):
    return (await record(chat)).groups[group].node


async def heard(chat, group, sent, matches):
    """The first event of the group behind a message that matches; each node's controller numbers its own."""
    while True:
        try:
            async with contextlib.aclosing(chat.remote.events(group, after=sent.event)) as events:
                async for event in events:
                    if matches(event):
                        return event
        except (NotReachable, Refused):  # a member that is away for the moment
            await asyncio.sleep(0.5)


async def answer_to(chat, group, sent):
    answer = await heard(
        chat, group, sent, lambda event: event.type is EventType.ANSWER and sent.id in event.payload["messages"]
    )
    return answer.payload["text"]


async def at_work(chat, group):
    """Return when an agent has what was sent, one that was started for it or one that was there."""
    async with asyncio.timeout(PATIENCE):
        while not any(
            session.folder == group and session.state is SessionState.WORKING
            for session in await chat.remote.sessions()
        ):
            await asyncio.sleep(0.1)


async def answered(chat, group, text):
    return await answer_to(chat, group, await chat.send(group, text))


async def jobs(chat, group):
    found = await chat.client.list(JOBS, namespace=chat.namespace, labels=f"{labels.GROUP}={group}")
    return [job for job in found if "deletionTimestamp" not in job["metadata"]]


async def test_each_node_has_a_member_and_an_even_share_of_the_groups(nodes3, chat, members):
    assert set(await members.pods()) == {node.name for node in nodes3.nodes}
    groups = (await record(chat)).groups
    assert set(groups) == {*GROUPS, *GUESTS}
    load = [sum(each.node == node.name for each in groups.values()) for node in nodes3.nodes]
    assert load == [3, 3, 3]


async def test_a_message_to_any_member_is_answered_on_the_groups_own_node(nodes3, chat, members):
    for node in nodes3.nodes:
        for group in GROUPS[:3]:
            accepted = await members.send(node.name, group, f"write from-{node.name}.txt hello")
            assert accepted.status_code == 202, accepted.text
            await answer_to(chat, group, AcceptedView.model_validate(accepted.json()))
    for group in GROUPS[:3]:
        home = await node_of(chat, group)
        reads = "; ".join(f"read from-{node.name}.txt" for node in nodes3.nodes)
        assert (await answered(chat, group, reads)).count("hello") == 3
        pods = await chat.client.list(PODS, namespace=chat.namespace, labels=f"{labels.GROUP}={group}")
        assert {pod["spec"]["nodeName"] for pod in pods} == {home}
        pulled = [node for node in nodes3.nodes if (node.place.folder / relative(chat) / "groups" / group).exists()]
        assert [node.name for node in pulled] == [home]


def relative(chat):
    return f"kubelet/{chat.namespace}"


async def test_every_member_shows_all_groups_and_where_they_are(nodes3, chat, members):
    groups = (await record(chat)).groups
    for node in nodes3.nodes:
        shown = (await members.get(node.name, "/groups")).json()
        assert {group["folder"]: group["node"] for group in shown["groups"]} == {
            folder: each.node for folder, each in groups.items()
        }
        assert "missing" not in shown


async def test_a_member_that_is_killed_comes_back_to_its_agents_and_keeps_its_groups(installation, chat):
    before = (await record(chat)).groups
    sent = await chat.send("a", "sleep 5; echo survived")
    await at_work(chat, "a")
    await OnNodes(installation, chat.client).kill_controller("a")
    assert (await answer_to(chat, "a", sent)).endswith("survived")
    assert (await record(chat)).groups == before


async def test_a_lost_node_keeps_its_groups_and_gives_away_only_those_that_may_begin_anew(nodes3, chat, members):
    before = (await record(chat)).groups
    guest = GUESTS[0]
    lost = nodes3.node(before[guest].node)
    others = [node.name for node in nodes3.nodes if node is not lost]
    stays = next(group for group in GROUPS if before[group].node == lost.name)
    elsewhere = next(group for group in GROUPS if before[group].node != lost.name)
    assert await answered(chat, guest, "write diary.txt day one") is not None
    assert await answered(chat, stays, "write diary.txt day one") is not None
    await chat.send(guest, "sleep 20; echo late")
    await at_work(chat, guest)
    try:
        await asyncio.to_thread(lost.power_off)

        async def given_away():
            return (await node_of(chat, guest)) in others

        await members.until(given_away)
        after = (await record(chat)).groups
        assert {folder for folder in before if after[folder] != before[folder]} <= set(GUESTS)
        assert after[guest].generation == before[guest].generation + 1
        for node in others:
            refused = await members.send(node, stays, "hello")
            assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
            assert f"group {stays!r} is on node {lost.name!r}" in refused.json()["detail"]
            shown = (await members.get(node, "/groups")).json()
            assert [each["node"] for each in shown["missing"]] == [lost.name]

        async def taken_up():
            return (await members.send(others[0], guest, "echo new home")).status_code == 202

        await members.until(taken_up)
        text = await answered(chat, guest, "read diary.txt; echo new home")
        assert "day one" not in text
        assert "new home" in text
        assert await answered(chat, elsewhere, "echo fine") == "fine"
    finally:
        await asyncio.to_thread(lost.power_on)
        await asyncio.to_thread(lost.await_open)

    async def back():
        answer = await members.get(others[0], f"/groups/{stays}")
        return answer.status_code == 200

    await members.until(back)
    assert "day one" in await answered(chat, stays, "read diary.txt")
    # The group that moved stays where it is now, and its old node serves it no more.
    assert (await record(chat)).groups == after
    assert "new home" in await answered(chat, guest, "echo new home")

    # What it had accepted and not answered is handed over, once.
    async def handed_over():
        texts = [message.text for message in await chat.remote.history(guest, after=0, limit=100)]
        return texts.count("sleep 20; echo late") == 1

    await members.until(handed_over)
    assert {job["metadata"]["annotations"][labels.NODE] for job in await jobs(chat, guest)} <= {
        lost.name,
        after[guest].node,
    }
    running = [job for job in await jobs(chat, guest) if job["status"].get("active")]
    assert {job["metadata"]["annotations"][labels.NODE] for job in running} <= {after[guest].node}


async def test_the_commands_work_as_with_one_controller(installation, nodes3, chat, members):
    def nanoclaw(*arguments):
        command = [".venv/bin/nanoclaw", "--kubeconfig", str(nodes3.kubeconfig), "--namespace", chat.namespace]
        return subprocess.run([*command, *arguments], capture_output=True, text=True, check=True).stdout

    run = asyncio.to_thread
    for group in GROUPS[:4]:  # on all three nodes
        assert (await run(nanoclaw, "send", group, "echo hi", "--follow")).strip().endswith("hi")
    assert {each["folder"] for each in json.loads(await run(nanoclaw, "groups", "-o", "json"))} == {*GROUPS, *GUESTS}
    assert json.loads(await run(nanoclaw, "queue", "-o", "json"))["waiting"] == []
    task = json.loads(await run(nanoclaw, "tasks", "add", "b", "echo later", "--cron", "0 4 1 1 *", "-o", "json"))
    assert task["id"] in await run(nanoclaw, "tasks", "-o", "json")
    await run(nanoclaw, "tasks", "cancel", task["id"])
