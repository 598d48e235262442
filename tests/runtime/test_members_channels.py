"""One chat network and several members: one of them reads, each of them writes."""

from __future__ import annotations

import pytest

from nanoclaw_runtime.contract.config import Groups, GroupSpec
from tests.support.bot_api import BotApi
from tests.support.house import House


@pytest.fixture
async def network():
    async with BotApi() as network:
        yield network


@pytest.fixture
async def house(tmp_path, network):
    house = House(tmp_path, channels={"telegram": {"apiUrl": network.url}})
    house.groups = Groups(groups=[GroupSpec(folder="here", name="Here", jid="tg:-100", requires_trigger=False)])
    house.elsewhere["tg:-200"] = "there"
    async with house:
        yield house


async def test_what_is_written_to_a_group_of_another_member_is_kept_for_it_once(house, network):
    await network.writes("hello there", chat=-200, title="There")

    async def kept():
        return bool(await house.store.waiting("there"))

    await house.until(kept)
    [message] = await house.store.waiting("there")
    assert (message.content, message.client_id.startswith("tg:-200/")) == ("hello there", True)
    assert house.backend.agents == []


async def test_a_member_whose_turn_it_is_not_reads_nothing_and_still_answers(tmp_path, network):
    house = House(tmp_path, channels={"telegram": {"apiUrl": network.url}})
    house.groups = Groups(groups=[GroupSpec(folder="here", name="Here", jid="tg:-100", requires_trigger=False)])
    house.turn = False
    async with house:
        await network.writes("for whoever reads", chat=-100, title="Here")
        await house.send("a question over HTTP", "here")
        agent = await house.backend.agent(0)
        assert "for whoever reads" not in agent.stdin["prompt"]
        await agent.say("an answer")
        await network.until(lambda: network.sent == [(-100, "an answer")])
        assert network.offsets == []
        house.turn = True
        assert any("for whoever reads" in text for text in await agent.take())
