"""Who has to call the assistant by its name, and what it is told when somebody does."""

import pytest

from nanoclaw_runtime.contract.config import Groups, GroupSpec
from nanoclaw_runtime.controller.status import GroupState

pytestmark = pytest.mark.timeout(30)

TABLE = [
    pytest.param("main", {}, True, id="main"),
    pytest.param("main", {"requires_trigger": True}, True, id="main that asks for it"),
    pytest.param("family", {}, False, id="a group that says nothing"),
    pytest.param("family", {"requires_trigger": True}, False, id="a group that asks for it"),
    pytest.param("family", {"requires_trigger": False}, True, id="a group that waives it"),
]


async def declare(house, folder, settings):
    await house.host.groups.declare(Groups(groups=[GroupSpec(folder=folder, name="Group", **settings)]))


@pytest.mark.parametrize(("folder", "settings", "answered"), TABLE)
async def test_who_is_answered_without_being_called(house, folder, settings, answered):
    await declare(house, folder, settings)
    accepted = await house.send("hello", folder)
    assert accepted.trigger == (None if answered else "@Andy")
    assert accepted.status.state is (GroupState.ACTIVE if answered else GroupState.QUIET)


@pytest.mark.parametrize(("folder", "settings", "_answered"), TABLE)
async def test_everybody_is_answered_who_calls(house, folder, settings, _answered):
    await declare(house, folder, settings)
    accepted = await house.send("@andy, hello", folder)
    assert (accepted.trigger, accepted.status.state) == (None, GroupState.ACTIVE)


async def test_what_was_said_between_two_calls_is_told_with_the_second(house):
    await house.send("@Andy one", "family")
    agent = await house.backend.agent(0)
    await agent.say("1")
    await house.answers()
    await house.send("not for you", "family")
    assert list(agent.input.iterdir()) == []
    await house.send("@Andy two", "family")
    (text,) = await agent.take()
    assert text.index("not for you") < text.index("@Andy two")
    assert "@Andy one" not in text


async def test_what_nobody_called_for_before_a_restart_is_left_waiting(house):
    await house.send("not for you", "family")
    await house.restart()
    await house.send("@Andy hello", "family")
    agent = await house.backend.agent(0)
    assert agent.stdin["prompt"].index("not for you") < agent.stdin["prompt"].index("@Andy hello")
    assert len(house.backend.agents) == 1
