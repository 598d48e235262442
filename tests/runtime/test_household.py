"""Several groups and their tasks on one controller: who makes room, what runs when, what is told."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from nanoclaw_runtime.controller.status import GroupState, SessionState
from nanoclaw_runtime.domain.tasks import RunOutcome, TaskContext, TaskKind, TaskState
from nanoclaw_runtime.store.records import EventType, RecordedState
from tests.support.house import House


@pytest.fixture
async def house(tmp_path):
    async with House(tmp_path, max_concurrent_sessions=1, idle_protection=0) as house:
        yield house


async def due_now(house, prompt="do it", folder="a", context=TaskContext.ISOLATED, **more):
    value = {"kind": TaskKind.ONCE, "value": (datetime.now(UTC) - timedelta(minutes=1)).isoformat()} | more
    return await house.tasks.create(folder, prompt=prompt, context=context, **value)


async def runs(house, task):
    while not (found := await house.tasks.runs(task.id, 10)):
        await asyncio.sleep(0.005)
    return found


# Making room


async def test_an_idle_session_makes_room_for_a_group_that_waits(house):
    await house.send("hello", "a")
    first = await house.backend.agent(0)
    await first.say("hi")
    await house.answers()
    await house.send("hello", "b")
    await first.closed()
    await first.exit()
    second = await house.backend.agent(1)
    assert second.ref.folder == "b"


async def test_a_session_that_works_is_left_alone(house):
    await house.send("hello", "a")
    first = await house.backend.agent(0)
    accepted = await house.send("hello", "b")
    assert (accepted.status.state, accepted.status.queue_position) == (GroupState.QUEUED, 1)
    assert not (first.input / "_close").exists()
    assert [waiting.folder for waiting in house.controller.queue().waiting] == ["b"]
    await first.say("hi")
    await first.closed()


async def test_the_message_of_a_group_that_is_being_closed_is_answered_by_its_next_session(house):
    await house.send("hello", "a")
    first = await house.backend.agent(0)
    await first.say("hi")
    await house.answers()
    await house.send("hello", "b")
    await first.closed()
    await house.send("late", "a")
    await first.exit()
    second = await house.backend.agent(1)
    await second.say("here")
    await second.closed()
    await second.exit()
    third = await house.backend.agent(2)
    assert "late" in third.stdin["prompt"]


# Tasks


async def test_a_due_task_runs_in_a_session_of_its_own_and_is_logged(house):
    task = await due_now(house)
    agent = await house.backend.agent(0)
    assert (agent.stdin["prompt"], agent.stdin["isScheduledTask"], agent.stdin["chatJid"]) == ("do it", True, "http:a")
    assert "sessionId" not in agent.stdin
    await agent.say("done")
    assert await house.answers(folder="a") == ["done"]
    await agent.exit()
    (run,) = await runs(house, task)
    assert (run.outcome, run.result, run.session) == (RunOutcome.SUCCESS, "done", agent.ref.session)
    assert (await house.tasks.get(task.id)).state is TaskState.COMPLETED


async def test_a_task_of_the_group_goes_on_with_its_conversation_and_leaves_it_as_it_was(house):
    await house.send("hello", "a")
    first = await house.backend.agent(0)
    await first.say("hi", session="conversation")
    await house.answers()
    await due_now(house, context=TaskContext.GROUP)
    await first.closed()
    await first.exit()
    second = await house.backend.agent(1)
    assert second.stdin["sessionId"] == "conversation"
    await second.say("done", session="another")
    await second.exit()
    await house.answers(2)
    assert await house.store.agent_session("a") == "conversation"


async def test_a_task_waits_for_the_answer_its_group_is_working_on(house):
    await house.send("hello", "a")
    first = await house.backend.agent(0)
    task = await due_now(house)
    await first.say("hi")
    await first.closed()
    await first.exit()
    second = await house.backend.agent(1)
    assert second.stdin["isScheduledTask"]
    await second.say(None)
    await second.exit()
    (run,) = await runs(house, task)
    assert (run.outcome, run.result) == (RunOutcome.SUCCESS, None)


async def test_a_message_while_a_task_runs_is_answered_behind_it(house):
    await due_now(house)
    first = await house.backend.agent(0)
    await first.say("working")
    await house.answers()
    await house.send("hello", "a")
    assert list(first.input.glob("*.json")) == []
    await first.exit()
    second = await house.backend.agent(1)
    assert "hello" in second.stdin["prompt"]


async def test_a_failed_task_is_logged_and_not_tried_again(house):
    task = await due_now(house, kind=TaskKind.INTERVAL, value="3600000")
    await house.tasks.run_now(task.id)
    agent = await house.backend.agent(0)
    await agent.exit(1)
    (run,) = await runs(house, task)
    assert (run.outcome, run.error) == (RunOutcome.ERROR, "exit 1")
    assert (await house.tasks.get(task.id)).next_run > datetime.now(UTC) + timedelta(minutes=59)
    assert len(house.backend.agents) == 1


async def test_a_task_that_is_cancelled_before_its_turn_does_not_run(house):
    await house.send("hello", "b")
    first = await house.backend.agent(0)
    task = await due_now(house)
    await house.until_state(GroupState.QUEUED, "a")
    await house.tasks.cancel(task.id)
    await first.say("hi")
    await first.exit()
    await house.until_state(GroupState.QUIET, "a")
    assert len(house.backend.agents) == 1


async def test_tasks_that_were_missed_while_the_controller_was_away_run_once(house):
    task = await house.tasks.create("a", prompt="tick", kind=TaskKind.INTERVAL, value="1000")
    await house.end()
    await house.begin()
    await house.tasks.run_now(task.id)
    agent = await house.backend.agent(0)
    await house.tasks.update(task.id, kind=TaskKind.INTERVAL, value="3600000")
    await agent.say("tock")
    await agent.exit()
    await runs(house, task)
    assert len(house.backend.agents) == 1


async def test_a_running_task_is_followed_by_the_next_process_and_not_started_again(house):
    task = await due_now(house)
    agent = await house.backend.agent(0)
    await house.events(EventType.SESSION)
    await house.restart()
    await agent.say("done")
    await agent.exit()
    (run,) = await runs(house, task)
    assert run.outcome is RunOutcome.SUCCESS
    assert await house.all_answers() == ["done"]
    assert len(house.backend.agents) == 1


async def test_a_task_that_has_not_answered_is_still_at_work_for_the_next_process(house):
    await due_now(house)
    await house.backend.agent(0)
    await house.events(EventType.SESSION)
    await house.restart()
    await house.until(lambda: works(house))


async def works(house):
    return [session.state for session in house.controller.sessions()] == [SessionState.WORKING]


async def test_a_task_whose_agent_vanished_unanswered_while_the_controller_was_away_runs_again(house):
    await due_now(house)
    agent = await house.backend.agent(0)
    await house.events(EventType.SESSION)
    await house.end()
    await agent.exit(137)
    await house.begin()
    again = await house.backend.agent(1)
    assert again.stdin["prompt"] == "do it"


async def test_a_task_that_had_answered_when_its_agent_vanished_is_not_run_again(house):
    task = await due_now(house)
    agent = await house.backend.agent(0)
    await agent.say("done")
    await house.answers()
    await house.end()
    await agent.exit(137)
    await house.begin()
    (run,) = await runs(house, task)
    assert run.outcome is RunOutcome.SUCCESS
    assert len(house.backend.agents) == 1


# Generations


async def test_each_session_of_a_group_has_a_larger_generation(house):
    for number in range(3):
        await house.send("hello", "a")
        agent = await house.backend.agent(number)
        await agent.say("hi")
        await agent.exit()
        await house.answers(number + 1)
        await house.until_state(GroupState.QUIET, "a")
    records = await house.store.sessions(folder="a")
    assert [(record.generation, record.state) for record in records] == [
        (number, RecordedState.ENDED) for number in (3, 2, 1)
    ]


# What a sender is told


async def test_a_sender_is_told_place_and_expected_wait_once_something_is_known_to_judge_by(house):
    await house.send("hello", "a")
    first = await house.backend.agent(0)
    await house.send("hello", "b")
    accepted = await house.send("hello", "c")
    assert (accepted.status.queue_position, accepted.status.estimated_wait) == (2, None)
    await first.say("hi")
    await first.closed()
    await house.until(lambda: waits(house, "b"))


async def waits(house, folder):
    """Known as soon as a session is about to end."""
    return any(group.folder == folder and group.estimated_wait for group in house.controller.queue().waiting)
