"""A chat of Telegram from end to end: a person writes, an agent works, the chat gets its answer once."""

import asyncio

import pytest

from nanoclaw_runtime.contract.config import Groups, GroupSpec
from nanoclaw_runtime.controller.status import GroupState
from tests.support.bot_api import BotApi
from tests.support.house import House, started


@pytest.fixture
async def network():
    async with BotApi() as network:
        yield network


@pytest.fixture
async def house(tmp_path, network):
    house = House(tmp_path, channels={"telegram": {"apiUrl": network.url}})
    house.groups = Groups(groups=[GroupSpec(folder="family", name="Family", jid="tg:-100")])
    async with house:
        yield house


async def asks(network, text="@andy_bot hello"):
    mention = {"type": "mention", "offset": 0, "length": len("@andy_bot")}
    await network.writes(text, chat=-100, title="Family", entities=[mention])


async def test_a_question_in_a_chat_is_answered_there_once(house, network):
    await network.writes("we are all here", chat=-100, title="Family")
    await asks(network)
    agent = await house.backend.agent(0)
    prompt = agent.stdin["prompt"]
    assert prompt.index("we are all here") < prompt.index(">@Andy @andy_bot hello<")
    await network.until(lambda: (-100, "typing") in network.actions)
    await agent.say("<internal>hm</internal>hi")
    await network.until(lambda: network.sent)
    await house.restart()
    await asks(network, "@andy_bot again")
    assert "@Andy @andy_bot again" in (await agent.take())[0]
    await agent.say("hi again")
    await network.until(lambda: len(network.sent) == 2)
    assert network.sent == [(-100, "hi"), (-100, "hi again")]


@pytest.mark.usefixtures("no_retry_by_itself")
async def test_a_session_that_broke_is_not_shown_to_be_writing(house, network):
    told = []
    house.host._networks.typing = lambda jid, *, on: told.append((jid, on))
    async with house.refusing("INSERT ON sessions", "1"):
        await asks(network)
        await house.until_state(GroupState.RETRYING, "family")
    assert told == [("tg:-100", True), ("tg:-100", False)]


async def test_a_chat_of_nobody_is_known_and_not_answered(house, network):
    await network.writes("anybody?", chat=-200, title="Strangers")
    await house.until(lambda: known(house))
    assert await house.controller.history("family") == []


async def known(house):
    return [chat.name for chat in await house.host.chats.list()] == ["Strangers"]


async def test_nothing_that_is_said_before_the_groups_are_known_again_is_lost(house, network):
    await asks(network)
    agent = await house.backend.agent(0)
    await house.until(lambda: started(house))
    await house.end()
    await asks(network, "@andy_bot and now?")
    await agent.say("hi")
    await house.begin(declared=False)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await house.answers()
    await house.declare()
    assert "@Andy @andy_bot and now?" in (await agent.take())[0]
    await network.until(lambda: network.sent == [(-100, "hi")])
