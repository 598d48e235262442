"""What a controller that comes back finds again, and what one that is stopped leaves behind."""

import asyncio

import pytest

from nanoclaw_runtime.contract.config import Groups, GroupSpec, ParkingSettings, Transport
from nanoclaw_runtime.controller.status import GroupState
from nanoclaw_runtime.domain.errors import Diagnosis, FailureKind, SessionFailed
from nanoclaw_runtime.domain.model import SessionRef
from nanoclaw_runtime.store.records import EventType, MessageState, RecordedState
from tests.support.fake_backend import FakeAgent
from tests.support.house import House, started

pytestmark = pytest.mark.usefixtures("no_retry_by_itself")

LOST = Diagnosis(FailureKind.NODE_LOST, "the node does not answer", "It cannot start.")


async def test_a_restarted_controller_finishes_a_running_answer_once(house):
    await house.send("hello")
    agent = await house.backend.agent(0)
    await agent.say("one")
    await house.answers()
    await house.send("more")
    await agent.take()
    await house.end()
    await agent.say("two")
    await house.begin()
    assert await house.answers(2) == ["one", "two"]
    assert (await house.group()).session == agent.ref.session
    await house.send("and more")
    await agent.take()
    await agent.say("three")
    assert await house.answers(3) == ["one", "two", "three"]
    await agent.exit()
    await house.until_state(GroupState.QUIET)
    assert await house.all_answers() == ["one", "two", "three"]
    assert len(house.backend.agents) == 1


async def test_a_session_that_vanished_with_the_controller_is_run_again(house):
    await house.send("hello")
    agent = await house.backend.agent(0)
    await house.until(lambda: started(house))
    await house.end()
    await agent.exit(137)
    await house.begin()
    assert ">hello</message>" in (await house.backend.agent(1)).stdin["prompt"]


async def test_a_message_accepted_before_a_crash_is_answered_after_it(tmp_path):
    async with House(tmp_path, max_concurrent_sessions=1) as house:
        await house.send("hello", "a")
        agent = await house.backend.agent(0)
        await house.until(lambda: started(house))
        await house.send("waiting", "b")
        await house.restart()
        await agent.say("hi")
        await agent.exit()
        assert (await house.backend.agent(1)).ref.folder == "b"


async def test_a_controller_that_is_stopped_while_it_starts_an_agent_starts_one_again(house):
    house.backend.room.clear()
    accepted = await house.send("hello")
    await house.until(lambda: given(house, accepted.message.id))
    await house.end()
    house.backend.room.set()
    await house.begin()
    assert ">hello</message>" in (await house.backend.agent(0)).stdin["prompt"]


async def test_a_start_that_failed_before_its_input_was_ready_leaves_nothing_at_work_in_a_process_that_ends(house):
    failed = asyncio.Event()

    async def start(spec):
        failed.set()
        raise SessionFailed(spec.plan.ref.session, LOST)

    house.backend.start = start
    async with house.host._snapshots._turns["main"]:
        await house.send("hello")
        await failed.wait()
        await house.end()
        await asyncio.sleep(0)
        assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("ready ")]
    del house.backend.start
    await house.begin()
    assert ">hello</message>" in (await house.backend.agent(0)).stdin["prompt"]


async def given(house, message):
    return any(known.id == message and known.session for known in await house.controller.history("main"))


async def test_an_agent_that_may_not_have_its_input_is_replaced(house):
    message = await house.commit("hello")
    unfed = FakeAgent(SessionRef("main", "s1"), {}, house.tmp_path)
    await house.store.begin_session(unfed.ref, [message.id], at=message.created)
    await house.backend.add(unfed)
    await house.restart()
    assert ">hello</message>" in (await house.backend.agent(1)).stdin["prompt"]
    assert unfed.stopped


async def test_an_agent_nobody_knows_is_cleaned_up(house):
    await house.send("hello")
    agent = await house.backend.agent(0)
    await house.until(lambda: started(house))
    await house.store.end_session(agent.ref.session, failure=None, at=(await house.send("x")).message.created)
    await house.restart()
    await agent.gone()
    assert agent.stopped


async def test_a_message_from_before_a_crash_goes_to_the_adopted_session(house):
    await house.send("hello")
    agent = await house.backend.agent(0)
    await agent.say("hi")
    await house.answers()
    await house.commit("nobody was told of me")
    await house.restart()
    (text,) = await agent.take()
    assert ">nobody was told of me</message>" in text


async def test_a_message_of_a_group_that_is_declared_late_goes_to_its_adopted_session(house):
    await house.send("hello")
    agent = await house.backend.agent(0)
    await agent.say("hi")
    await house.answers()
    await house.commit("still here?")
    declared, house.groups = house.groups, Groups(groups=[GroupSpec(folder="other", name="Other")])
    await house.restart()
    await house.host.groups.declare(declared)
    (text,) = await agent.take()
    assert ">still here?</message>" in text


async def test_an_output_that_answers_nothing_is_no_progress_after_a_restart_either(house):
    accepted = await house.send("hello")
    agent = await house.backend.agent(0)
    await agent.say(None, session=None)
    await house.until(lambda: one_output(house))
    await house.restart()
    await agent.exit(0)
    await house.until_state(GroupState.RETRYING)
    (message,) = await house.controller.history("main")
    assert (message.id, message.state) == (accepted.message.id, MessageState.WAITING)


async def one_output(house):
    return [session.outputs for session in house.controller.sessions()] == [1]


async def test_an_adopted_session_tells_what_it_was_before(house):
    await house.send("hello")
    await (await house.backend.agent(0)).say("hi")
    await house.answers()
    await house.restart()
    (status,), (record,) = house.controller.sessions(), await house.store.sessions()
    assert (status.started, status.outputs, status.last_output) == (record.created, 1, record.last_output)


async def test_a_message_accepted_during_the_shutdown_is_for_the_next_process(house):
    house._life.cancel()
    await asyncio.wait({house._life})
    await house.send("hello")
    await house.restart()
    assert ">hello</message>" in (await house.backend.agent(0)).stdin["prompt"]


async def test_a_follow_up_nobody_took_survives_a_controller_that_broke_when_it_took_it_back(house):
    house.backend.keeps_ended = True
    agent = await house.a_follow_up_lies_there()
    async with house.refusing("UPDATE ON messages", "NEW.state = 'waiting'"):
        await agent.exit()
        await asyncio.wait({house._life})
    await house.return_broken()
    assert ">unseen</message>" in (await house.backend.agent(1)).stdin["prompt"]


async def test_a_message_that_comes_while_a_broken_controller_ends_is_accepted_for_the_next_one(tmp_path):
    house = House(tmp_path, parking=ParkingSettings(pods=1))
    house.backend.parks, prepare = True, house.backend.prepare
    asked, ends, undone = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def slow(_plan):
        """As a pod whose making is being undone."""
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            house.backend.prepare = prepare
            ends.set()
            await undone.wait()

    house.backend.prepare = slow
    async with house:
        await house.send("hello")
        agent = await house.backend.agent(0)
        await agent.say("hi")
        await agent.exit()
        await asked.wait()
        await house.send("hello", "a")
        agent = await house.backend.agent(1)
        async with house.refusing("UPDATE ON messages", "NEW.state = 'waiting'"):
            await agent.exit(1)
            await ends.wait()
        try:
            await house.send("still there?", "b")
        finally:
            undone.set()
        await house.return_broken()
        await house.backend.agent(3)
        assert sorted(agent.ref.folder for agent in house.backend.agents[2:]) == ["a", "b"]


async def test_a_session_that_outlives_a_change_of_transport_is_told_once_and_its_message_waits_again(tmp_path):
    async with House(tmp_path, switch_deadline=0) as house:
        accepted = await house.send("hello")
        agent = await house.backend.agent(0)
        await house.until(lambda: started(house))
        agent.transport = Transport.BRIDGE
        await house.restart()
        *_, told = await house.events(EventType.SESSION, 2)
        assert (told["state"], told["text"]) == (RecordedState.FAILED, "The assistant was interrupted and tries again.")
        [record] = await house.store.sessions(folder="main")
        assert "raise switchDeadline" in record.detail
        assert [waits.id for waits in await house.store.waiting("main")] == [accepted.message.id]
