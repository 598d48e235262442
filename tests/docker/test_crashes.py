"""A host that is killed at the worst moments, with real agents: no message is lost, none is answered twice.

What may happen is that an agent does its work again: it is its answer that is published once.
"""

from __future__ import annotations

import pytest

from tests.support.bot_api import BotApi
from tests.support.host_process import CHAT, HostProcess, finished, published, running, texts

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]

WORKS, IDLES = 600, 0.2
"""Seconds until the agent of a group is asked to end."""

TEXTS = ("to the point", "while it is held", "behind the crash")


@pytest.fixture
async def make_host(engine, tmp_path, echo_agent):
    made = []

    def make(**runtime):
        made.append(HostProcess(engine, tmp_path, echo_agent, **runtime))
        return made[-1]

    yield make
    for host in made:
        await host.close()


@pytest.mark.parametrize(
    ("point", "before", "idle"),
    [
        pytest.param("session recorded", [], WORKS, id="session recorded"),
        pytest.param("container asked for", [], WORKS, id="container created"),
        pytest.param("input handed over", [], WORKS, id="input handed over"),
        pytest.param("session running", [], WORKS, id="session running"),
        pytest.param("answer recorded", [], WORKS, id="answer recorded"),
        pytest.param("follow-up written", ["hello"], WORKS, id="follow-up written"),
        pytest.param("follow-up recorded", ["hello"], WORKS, id="follow-up recorded"),
        pytest.param("close begun", [], IDLES, id="before the close"),
        pytest.param("close written", [], IDLES, id="behind the close"),
        pytest.param("session ended", [], IDLES, id="session ended"),
    ],
)
async def test_every_message_is_answered_once(make_host, point, before, idle):
    host = make_host(idleTimeout=idle)
    await host.start()
    sent = [await host.send(text) for text in before]
    await host.over(*sent)
    host.arm(point)
    sent.append(await host.send(TEXTS[0]))
    await host.held(point)
    if point == "container asked for":
        await host.container_runs()
    sent.append(await host.send(TEXTS[1]))
    await host.kill()
    await host.start()
    sent.append(await host.send(TEXTS[2]))
    events = await host.over(*sent)
    assert sorted(finished(events)) == sent
    assert len(set(published(events))) == len(published(events))
    assert [sum(text in answer for answer in texts(events)) for text in TEXTS] == [1, 1, 1]


@pytest.mark.parametrize("point", ["close begun", "close written"])
async def test_messages_that_race_with_the_idle_close_are_answered_once(make_host, point):
    host = make_host(idleTimeout=IDLES)
    await host.start()
    host.arm(point)
    sent = [await host.send("one")]
    await host.held(point)
    sent.append(await host.send("two"))
    host.release(point)
    events = await host.over(*sent)
    assert sorted(finished(events)) == sent
    first, second = published(events)
    assert first[0] != second[0]


@pytest.mark.parametrize("point", ["answer recorded", "run not logged"])
async def test_a_task_that_has_answered_is_not_run_again(make_host, point):
    host = make_host()
    await host.start()
    host.arm(point)
    task = await host.post("groups/main/tasks", prompt="tick", kind="once", value="2020-01-01T00:00:00")
    await host.events_until(published)
    if point == "run not logged":
        await host.stop_sessions()
    await host.held(point)
    await host.kill()
    await host.start()
    await host.stop_sessions()
    message = await host.send("behind the crash")
    events = await host.over(message)
    assert len(published(events)) == 2
    (run,) = (await host.get(f"tasks/{task['id']}/runs"))["runs"]
    assert (run["outcome"], run["result"]) == ("success", "Echo (scheduled): tick")


async def test_what_an_agent_asks_for_is_done_once(make_host):
    host = make_host()
    await host.start()
    host.arm("request carried out")
    sent = [await host.send("tell dinner is ready; schedule interval 3600000 | water the plants")]
    await host.held("request carried out")
    await host.events_until(running)  # or it would be another agent that asks, in another session
    assert host.requests()
    await host.kill()
    await host.start()
    await host.until(lambda: not host.requests())
    sent.append(await host.send("behind the crash"))
    events = await host.over(*sent)
    assert [event["payload"]["text"] for event in events if event["type"] == "tell"] == ["dinner is ready"]
    assert [task["prompt"] for task in (await host.get("tasks"))["tasks"]] == ["water the plants"]


async def test_an_answer_for_a_chat_network_is_sent_after_a_crash(make_host):
    async with BotApi() as network:
        host = make_host(channels={"telegram": {"apiUrl": network.url}})
        await host.start()
        network.holds("sendMessage")
        await network.writes("hello", chat=CHAT)
        await network.until(lambda: "sendMessage" in network.calls)
        await host.kill()
        assert network.sent == []
        await host.start()
        await network.until(lambda: network.sent)
        await network.writes("again", chat=CHAT)
        await network.until(lambda: len(network.sent) > 1)
        assert network.sent == [(CHAT, "Echo: hello"), (CHAT, "Echo: again")]


async def test_a_follow_up_its_agent_took_before_its_host_knew_is_answered_once(make_host):
    host = make_host()
    await host.start()
    sent = [await host.send("hello")]
    await host.over(*sent)
    host.arm("follow-up delivered")
    sent.append(await host.send("to the point"))
    await host.held("follow-up delivered")
    await host.until(lambda: not list(host.tree.glob("data/ipc/main/inputs/*/*.json")))
    await host.kill()
    await host.start()
    sent.append(await host.send("behind the crash"))
    events = await host.over(*sent)
    assert sum("to the point" in text for text in texts(events)) == 1
