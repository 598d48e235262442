"""What NanoClaw's host gets wrong when something breaks around a session, and ours must not."""

import json

import pytest
import structlog

from nanoclaw_runtime.controller.status import GroupState
from nanoclaw_runtime.store.records import MessageState

pytestmark = pytest.mark.timeout(30)

SECRETS = ("swordfish-said", "swordfish-answered", "sk-secret")


async def test_an_output_that_cannot_be_recorded_does_not_keep_the_group(house):
    await house.send("hello")
    agent = await house.backend.agent(0)
    async with house.refusing("INSERT ON outputs", "1"):
        await agent.say("lost")
        await agent.gone()
        await house.until_state(GroupState.RETRYING)
    assert await house.all_answers() == []
    await house.send("again")
    second = await house.backend.agent(1)
    assert second.stdin["prompt"].index("hello") < second.stdin["prompt"].index("again")
    await second.say("found")
    assert await house.answers() == ["found"]


async def test_an_error_behind_an_answer_does_not_take_the_answer_back(house):
    await house.send("hello")
    agent = await house.backend.agent(0)
    await agent.say("hi")
    await house.answers()
    await agent.complain("no credit left")
    await agent.exit(1)
    await house.until_state(GroupState.QUIET)
    (message,) = await house.controller.history("main")
    assert message.state is MessageState.DONE
    assert len(house.backend.agents) == 1


async def test_no_log_quotes_a_message_an_answer_or_a_secret(house):
    said, answered, _key = SECRETS
    with structlog.testing.capture_logs() as logged:
        await house.send(said)
        agent = await house.backend.agent(0)
        await agent.say(answered)
        await house.answers()
        await house.send(f"{said} again")
        await agent.take()
        await agent.exit(1)
        second = await house.backend.agent(1)
        async with house.refusing("INSERT ON outputs", "1"):
            await second.say(answered)
            await house.until_state(GroupState.RETRYING)
    told = json.dumps(logged, default=str)
    assert "session broke" in told
    assert [secret for secret in SECRETS if secret in told] == []
