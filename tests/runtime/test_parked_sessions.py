"""Sessions of a whole host that begin in parked agents."""

import asyncio

import pytest

from nanoclaw_runtime.contract.config import Groups, ParkingSettings
from nanoclaw_runtime.controller.status import GroupState, Warmth
from nanoclaw_runtime.domain.errors import Diagnosis, FailureKind
from nanoclaw_runtime.domain.model import SessionRef
from tests.support.fake_backend import FakeAgent
from tests.support.house import House


@pytest.fixture
async def house(tmp_path):
    house = House(tmp_path, parking=ParkingSettings(pods=2))
    house.backend.parks = True
    async with house:
        yield house


async def until_warm(house, folder="main", warmth=Warmth.WAITING):
    async def reached():
        return (await house.group(folder)).warm is warmth

    await house.until(reached)


async def answered(house, number, said):
    """The agent of this number answers, and ends."""
    agent = await house.backend.agent(number)
    await agent.say(said)
    await agent.exit()
    return agent


async def once_used(house):
    """Main was used, its session is over, and an agent is parked for it."""
    await house.send("hello")
    first = await answered(house, 0, "one")
    await until_warm(house)
    return first


async def test_the_second_session_begins_in_the_agent_that_was_parked(house):
    first = await once_used(house)
    (session,) = house.backend.parked
    assert not first.parked
    await house.send("again")
    second = await answered(house, 1, "two")
    assert (second.ref.session, await house.answers(2)) == (session, ["one", "two"])
    assert "again" in second.stdin["prompt"]


async def test_follow_ups_reach_an_agent_that_was_parked(house):
    await once_used(house)
    await house.send("again")
    agent = await house.backend.agent(1)
    await agent.say("two")
    await house.answers(2)
    await house.send("and more")
    assert "and more" in (await agent.take())[0]


async def test_what_was_parked_is_taken_after_a_restart(house):
    await once_used(house)
    (session,) = house.backend.parked
    await house.restart()
    await until_warm(house)
    assert house.backend.unfed == {session}
    await house.send("again")
    agent = await answered(house, 1, "two")
    assert agent.ref.session == session
    assert await house.answers(2) == ["one", "two"]


async def test_a_session_that_began_in_a_parked_agent_is_adopted_after_a_restart(house):
    await once_used(house)
    await house.send("again")
    agent = await house.backend.agent(1)
    while not house.controller.sessions() or house.controller.sessions()[0].state != "working":
        await asyncio.sleep(0.005)
    await house.restart()
    assert house.backend.unfed == set()
    await agent.say("two")
    assert await house.answers(2) == ["one", "two"]
    assert not agent.stopped


async def test_what_is_left_of_a_session_that_was_parked_once_is_not_taken_for_a_parked_agent(house):
    house.backend.keeps_ended = True
    await once_used(house)
    await house.send("again")
    await answered(house, 1, "two")
    await house.answers(2)
    await until_warm(house)
    (session,) = house.backend.parked
    await house.restart()
    await until_warm(house)
    assert list(house.backend.parked) == [session]
    await house.send("once more")
    third = await answered(house, 2, "three")
    assert (third.ref.session, await house.answers(3)) == (session, ["one", "two", "three"])


@pytest.mark.usefixtures("no_retry_by_itself")
async def test_a_session_that_fails_leaves_agents_of_other_groups_alone(house):
    await once_used(house)
    (session,) = house.backend.parked
    await house.send("hello", folder="a")
    agent = await house.backend.agent(1)
    await agent.exit(1)
    await house.until_state(GroupState.RETRYING, "a")
    await house.controller.sweep("a")
    assert (await house.group()).warm is Warmth.WAITING
    assert session in house.backend.parked


async def test_what_a_failed_parking_left_behind_bars_no_later_one(house):
    """As when the cluster did not answer while it was to be taken away again."""
    stray = FakeAgent(SessionRef("main", "stray"), {}, house.tmp_path, parked="somehow")
    refused = Diagnosis(FailureKind.START_TIMEOUT, "pod of session stray still runs", "Busy.")
    house.backend.park_refusals.append(refused)
    await house.send("hello")
    agent = await house.backend.agent(0)
    house.backend.parked["stray"] = stray
    await agent.say("one")
    await agent.exit()
    async with asyncio.timeout(20):
        await stray.gone()


class Slow(FakeAgent):
    """Goes only when it may."""

    async def stop(self, *, grace):
        self.stopped = True
        await self.may_go.wait()
        await super().stop(grace=grace)


async def test_a_session_that_begins_while_leftovers_are_cleared_away_keeps_its_agent(house):
    await once_used(house)
    stray = Slow(SessionRef("main", "stray"), {}, house.tmp_path)
    stray.may_go = asyncio.Event()
    house.backend.agents.insert(0, stray)
    sweeping = asyncio.create_task(house.controller.sweep("main"))

    async def being_cleared():
        return stray.stopped

    await house.until(being_cleared)
    await house.send("again")
    agent = await house.backend.agent(2)
    stray.may_go.set()
    await sweeping
    assert not agent.stopped
    await agent.say("two")
    assert await house.answers(2) == ["one", "two"]


async def test_no_session_begins_for_a_group_that_went_while_its_agent_was_being_parked(house):
    """As with a group that gets another node: its message is that node's then, and its agent nobody's."""
    house.backend.park_room.clear()
    await house.send("hello")
    await answered(house, 0, "one")

    async def being_parked():
        return bool(house.backend.asked)

    await house.until(being_parked)
    await house.send("again")
    await until_warm(house, warmth=Warmth.NONE)  # a session waits for it
    groups = house.groups
    await house.host.groups.declare(Groups(groups=[each for each in groups.groups if each.folder != "main"]))
    house.backend.park_room.set()

    async def nothing_left():
        return not await house.backend.running() and not house.controller.busy("main")

    await house.until(nothing_left)
    assert [message.content for message in await house.store.waiting("main")] == ["again"]
    assert len(await house.store.sessions()) == 1
    await house.host.groups.declare(groups)
    await answered(house, 1, "two")
    assert await house.answers(2) == ["one", "two"]
