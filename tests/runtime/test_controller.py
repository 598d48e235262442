"""Messages in, answers out: the controller on a real store and real folders, agents scripted."""

import asyncio
import shutil
from datetime import timedelta

import pytest

from nanoclaw_runtime.contract.config import ControllerConfig, Groups, GroupSpec
from nanoclaw_runtime.controller.status import GroupState
from nanoclaw_runtime.domain import schedule
from nanoclaw_runtime.domain.errors import Diagnosis, FailureKind, GroupUnknown, SessionUnknown
from nanoclaw_runtime.kube.errors import KubeError, Target
from nanoclaw_runtime.store.records import EventType, MessageState
from tests.support.house import House, started

pytestmark = pytest.mark.usefixtures("no_retry_by_itself")

REFUSED = Diagnosis(FailureKind.IMAGE, "no such image", "It cannot start.")


async def test_a_message_is_answered(house):
    accepted = await house.send("hello")
    agent = await house.backend.agent(0)
    assert ">hello</message>" in agent.stdin["prompt"]
    await agent.say("Hi Ann")
    assert await house.answers() == ["Hi Ann"]
    (message,) = await house.controller.history("main")
    assert (message.id, message.state) == (accepted.message.id, MessageState.DONE)


async def test_the_agent_gets_what_v1_gives_it(house):
    await house.send("hello")
    agent = await house.backend.agent(0)
    assert {key: agent.stdin[key] for key in ("groupFolder", "chatJid", "isMain", "assistantName", "secrets")} == {
        "groupFolder": "main",
        "chatJid": "http:main",
        "isMain": True,
        "assistantName": "Andy",
        "secrets": {"ANTHROPIC_API_KEY": "sk-secret"},
    }
    assert "sessionId" not in agent.stdin


async def test_the_folders_an_agent_mounts_are_there_before_it_starts(house, tmp_path):
    await house.send("hello")
    await house.backend.agent(0)
    for folder in ("groups/main/logs", "data/sessions/main/.claude", "data/ipc/main/input", "groups/global", "project"):
        assert (tmp_path / folder).is_dir(), folder


async def test_internal_thoughts_do_not_reach_the_chat(house):
    await house.send("hello")
    await (await house.backend.agent(0)).say("<internal>hm</internal>")
    await house.send("again")
    agent = house.backend.agents[0]
    await agent.take()
    await agent.say("<internal>hm</internal> Hi")
    assert await house.answers() == ["Hi"]


async def test_a_follow_up_goes_to_the_same_agent(house):
    await house.send("hello")
    agent = await house.backend.agent(0)
    await agent.say("one")
    await house.answers()
    await house.send("and now?")
    (text,) = await agent.take()
    assert ">and now?</message>" in text
    await agent.say("two")
    assert await house.answers(2) == ["one", "two"]
    assert len(house.backend.agents) == 1


async def test_messages_before_the_first_answer_wait_for_it(house):
    await house.send("one")
    agent = await house.backend.agent(0)
    await house.send("two")
    assert list(agent.input.iterdir()) == []
    await agent.say("1")
    (text,) = await agent.take()
    assert ">two</message>" in text


async def test_the_next_session_resumes_the_conversation(house):
    await house.send("hello")
    agent = await house.backend.agent(0)
    await agent.say("hi", session="claude-7")
    await house.answers()
    await agent.exit()
    await house.until_state(GroupState.QUIET)
    await house.send("again")
    assert (await house.backend.agent(1)).stdin["sessionId"] == "claude-7"


async def test_idle_closes_the_session_and_its_end_is_no_failure(tmp_path):
    async with House(tmp_path, idle_timeout=0.05) as house:
        await house.send("hello")
        agent = await house.backend.agent(0)
        await agent.say("hi")
        await agent.closed()
        await agent.exit()
        await house.until_state(GroupState.QUIET)
        started, ended = await house.events(EventType.SESSION, 2)
        assert (started["state"], ended["state"]) == ("running", "ended")


async def test_an_agent_that_ignores_the_close_is_ended_without_a_failure(tmp_path):
    async with House(tmp_path, idle_timeout=0.05, close_grace=0.05) as house:
        await house.send("hello")
        agent = await house.backend.agent(0)
        await agent.say("hi")
        await agent.gone()
        assert agent.stopped
        assert [event["state"] for event in await house.events(EventType.SESSION, 2)] == ["running", "ended"]


async def test_a_message_after_the_close_gets_a_session_of_its_own(tmp_path):
    async with House(tmp_path, idle_timeout=0.05) as house:
        await house.send("hello")
        agent = await house.backend.agent(0)
        await agent.say("hi")
        await agent.closed()
        await house.send("late")
        assert list(agent.input.iterdir()) == []
        await agent.exit()
        second = await house.backend.agent(1)
        assert ">late</message>" in second.stdin["prompt"]
        assert "hello" not in second.stdin["prompt"]


async def test_a_follow_up_the_agent_never_took_goes_to_the_next_session(house):
    await house.send("hello")
    agent = await house.backend.agent(0)
    await agent.say("hi")
    await house.answers()
    await house.send("unseen")
    while not list(agent.input.glob("*.json")):
        await asyncio.sleep(0.005)
    await agent.exit()
    second = await house.backend.agent(1)
    assert ">unseen</message>" in second.stdin["prompt"]
    assert list(second.input.iterdir()) == []


async def test_a_follow_up_taken_and_not_answered_in_a_crash_is_tried_again(house):
    await house.send("hello")
    agent = await house.backend.agent(0)
    await agent.say("hi")
    await house.answers()
    await house.send("important")
    await agent.take()
    await agent.exit(1)
    assert ">important</message>" in (await house.backend.agent(1)).stdin["prompt"]


async def test_six_groups_share_five_places(house):
    for folder in "abcde":
        await house.send("hello", folder)
    accepted = await house.send("hello")
    assert (accepted.status.state, accepted.status.queue_position) == (GroupState.QUEUED, 1)
    first = await house.backend.agent(4)
    assert len(house.backend.agents) == 5
    await first.say("hi")
    await first.exit()
    assert (await house.backend.agent(5)).ref.folder == "main"


async def test_a_failure_frees_the_place_and_is_tried_again(tmp_path):
    async with House(tmp_path, max_concurrent_sessions=1) as house:
        house.backend.refusals.append(REFUSED)
        await house.send("hello", "a")
        await house.until_state(GroupState.RETRYING, "a")
        await house.send("hello", "b")
        assert (await house.backend.agent(0)).ref.folder == "b"
        assert (await house.group("a")).waiting_messages == 1


async def test_what_failed_is_tried_again_by_itself(house, monkeypatch):
    monkeypatch.setattr(schedule, "FIRST_RETRY", timedelta(milliseconds=1))
    house.backend.refusals += [REFUSED, REFUSED]
    await house.send("hello")
    assert ">hello</message>" in (await house.backend.agent(0)).stdin["prompt"]


async def test_after_five_retries_the_chat_is_told_and_the_group_goes_on(house):
    for _ in range(6):  # a message during the back-off is a retry at once
        house.backend.refusals.append(REFUSED)
        await house.send("hello")
        await house.until(lambda: done_refusing(house))
    (failure,) = await house.events(EventType.FAILURE)
    assert failure["text"] == "It cannot start."
    assert len(failure["messages"]) == 6
    await house.until_state(GroupState.QUIET)
    await house.send("still there?")
    assert (await house.backend.agent(0)).stdin["prompt"].count("<message ") == 1


async def done_refusing(house):
    return not house.backend.refusals and (await house.group()).state is not GroupState.ACTIVE


async def test_an_exit_without_an_answer_is_a_failure(house):
    await house.send("hello")
    await (await house.backend.agent(0)).exit(0)
    await house.until_state(GroupState.RETRYING)
    (session,) = await house.store.sessions()
    assert "before it answered" in session.detail


async def test_the_agents_own_error_is_in_the_operators_sentence(house):
    await house.send("hello")
    agent = await house.backend.agent(0)
    await agent.complain("no credit left")
    await agent.exit(1)
    await house.until_state(GroupState.RETRYING)
    (session,) = await house.store.sessions()
    assert "no credit left" in session.detail


async def test_a_conversation_that_cannot_be_resumed_is_begun_anew(house):
    await house.send("hello")
    agent = await house.backend.agent(0)
    await agent.say("hi", session="claude-7")
    await agent.exit()
    await house.until_state(GroupState.QUIET)
    await house.send("again")
    stale = await house.backend.agent(1)
    await stale.say(None, session=None)
    await stale.complain("Claude Code process exited with code 1")
    await stale.exit(1)
    await house.until_state(GroupState.RETRYING)
    await house.send("please")
    fresh = await house.backend.agent(2)
    assert "sessionId" not in fresh.stdin
    assert ">again</message>" in fresh.stdin["prompt"]


@pytest.mark.parametrize("code", [pytest.param(137, id="killed"), pytest.param(255, id="node-restarted")])
async def test_an_agent_that_was_killed_takes_no_conversation_with_it(house, code):
    await house.send("hello")
    agent = await house.backend.agent(0)
    await agent.say("hi", session="claude-7")
    await agent.exit()
    await house.until_state(GroupState.QUIET)
    await house.send("again")
    await (await house.backend.agent(1)).exit(code)
    await house.until_state(GroupState.RETRYING)
    assert await house.store.agent_session("main") == "claude-7"


class Impatient(ControllerConfig):
    """Silence is short, where a stack cannot make it shorter than half a minute."""

    @property
    def silence_limit(self):
        return 0.05


async def test_a_silent_agent_is_ended_and_its_message_tried_again(tmp_path):
    async with House(tmp_path, settings=Impatient) as house:
        await house.send("hello")
        agent = await house.backend.agent(0)
        await agent.gone()
        await house.until_state(GroupState.RETRYING)
        (session,) = await house.store.sessions()
        assert session.failure_kind is FailureKind.SILENT


async def test_an_operator_stops_a_session_and_its_message_is_failed_visibly(tmp_path):
    async with House(tmp_path, close_grace=0.05) as house:
        await house.send("hello")
        agent = await house.backend.agent(0)
        await house.until(lambda: started(house))
        await house.controller.stop_session(agent.ref.session)
        await agent.gone()
        (failure,) = await house.events(EventType.FAILURE)
        assert "stopped" in failure["text"]
        await house.until_state(GroupState.QUIET)
        assert len(house.backend.agents) == 1


async def test_what_is_not_there_is_said(house):
    with pytest.raises(GroupUnknown, match="nobody"):
        await house.send("hello", "nobody")
    with pytest.raises(SessionUnknown, match="nothing"):
        await house.controller.stop_session("nothing")


async def test_without_the_trigger_a_message_is_context_for_the_next_with_it(house):
    accepted = await house.send("we were talking", "family")
    assert accepted.trigger == "@Andy"
    assert (await house.group("family")).state is GroupState.QUIET
    await house.send("@andy what do you say?", "family")
    prompt = (await house.backend.agent(0)).stdin["prompt"]
    assert prompt.index("we were talking") < prompt.index("@andy what do you say?")


async def test_a_message_sent_again_is_seen_to_even_if_its_first_sending_was_cut_off(house):
    await house.commit("hello", client_id="n1")
    accepted = await house.send("hello", client_id="n1")
    assert not accepted.created
    assert ">hello</message>" in (await house.backend.agent(0)).stdin["prompt"]


async def test_a_follow_up_that_could_not_be_recorded_is_the_last_of_its_session(house):
    await house.send("hello")
    agent = await house.backend.agent(0)
    await agent.say("hi")
    await house.answers()
    async with house.refusing("UPDATE ON messages", "NEW.turn > 0"):
        await house.send("again")
        await agent.closed()
    await agent.exit()
    assert ">again</message>" in (await house.backend.agent(1)).stdin["prompt"]


async def test_a_follow_up_that_cannot_be_written_does_not_wait_until_the_agent_is_idle(tmp_path):
    async with House(tmp_path, close_grace=0.05) as house:
        await house.send("hello")
        agent = await house.backend.agent(0)
        await agent.say("hi")
        await house.answers()
        shutil.rmtree(agent.input)
        await house.send("again")
        assert ">again</message>" in (await house.backend.agent(1)).stdin["prompt"]


async def test_a_follow_up_that_cannot_be_looked_for_does_not_wait_until_the_agent_is_idle(house):
    await house.send("hello")
    agent = await house.backend.agent(0)
    await agent.say("hi")
    await house.answers()
    stored = house.store.database.added
    sending = asyncio.create_task(house.send("again"))
    await stored.wait()
    await house.execute("ALTER TABLE messages RENAME TO hidden")
    await sending
    await agent.closed()
    await house.execute("ALTER TABLE hidden RENAME TO messages")
    await agent.exit()
    assert ">again</message>" in (await house.backend.agent(1)).stdin["prompt"]


async def test_a_mailbox_that_cannot_be_read_at_the_end_proves_nothing_answered(house):
    agent = await house.a_follow_up_lies_there()
    shutil.rmtree(agent.input)
    await agent.exit(0)
    assert ">unseen</message>" in (await house.backend.agent(1)).stdin["prompt"]


async def test_a_session_that_cannot_be_recorded_is_tried_again(house):
    async with house.refusing("INSERT ON sessions", "1"):
        await house.send("hello")
        await house.until_state(GroupState.RETRYING)
    await house.send("please")
    assert (await house.backend.agent(0)).stdin["prompt"].count("<message ") == 2


async def test_messages_whose_failure_cannot_be_told_are_tried_again(house):
    async with house.refusing("INSERT ON events", "NEW.type = 'failure'"):
        for _ in range(5):
            house.backend.refusals.append(REFUSED)
            await house.send("hello")
            await house.until(lambda: done_refusing(house))
        house.backend.refusals.append(REFUSED)
        await house.send("hello")
        agent = await house.backend.agent(0)
    assert agent.stdin["prompt"].count("<message ") == 6


async def test_an_agent_a_failed_start_left_behind_does_not_block_its_group(house):
    house.backend.refusals.append(REFUSED)
    house.backend.leaves_behind = True
    await house.send("hello")
    left = await house.backend.agent(0)
    await left.gone()
    await house.until_state(GroupState.RETRYING)
    await house.send("again")
    assert (await house.backend.agent(1)).stdin["prompt"].count("<message ") == 2


async def test_what_could_not_be_swept_away_goes_before_the_next_start_which_would_wait_for_it(house):
    """The cluster answers neither who undoes the start nor who sweeps behind it, and is back for the next try."""
    looked, running = asyncio.Event(), house.backend.running

    async def away():
        house.backend.running = running
        looked.set()
        raise KubeError(Target("list", "jobs"), "away")

    house.backend.running = away
    house.backend.refusals.append(REFUSED)
    house.backend.leaves_behind = True
    await house.send("hello")
    left = await house.backend.agent(0)
    await looked.wait()
    await house.send("again")
    assert (await house.backend.agent(1)).stdin["prompt"].count("<message ") == 2
    assert left.stopped
    assert len(await house.store.sessions()) == 2  # none failed in between


async def test_an_agent_of_another_group_is_not_swept_away_by_a_failure(house):
    await house.send("hello", "a")
    agent = await house.backend.agent(0)
    house.backend.refusals.append(REFUSED)
    await house.send("hello", "b")
    await house.until_state(GroupState.RETRYING, "b")
    await agent.say("hi")
    assert await house.answers(folder="a") == ["hi"]
    assert not agent.stopped


async def test_new_groups_are_served_without_a_restart(house):
    more = GroupSpec(folder="new", name="New", requires_trigger=False)
    await house.host.groups.declare(Groups(groups=[*house.groups.groups, more]))
    await house.send("hello", "new")
    assert (await house.backend.agent(0)).ref.folder == "new"
