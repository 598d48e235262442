"""What becomes of a task's run when its host goes away in the middle of it."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from nanoclaw_runtime.domain.tasks import TaskKind

pytestmark = pytest.mark.timeout(30)


async def due_now(house):
    past = (datetime.now(UTC) - timedelta(minutes=1)).isoformat()
    return await house.tasks.create("a", prompt="do it", kind=TaskKind.ONCE, value=past)


async def test_what_a_task_said_before_a_restart_is_in_its_log(house):
    task = await due_now(house)
    agent = await house.backend.agent(0)
    await agent.say("done")
    await house.answers()
    await house.restart()
    await agent.exit()
    while not (runs := await house.tasks.runs(task.id, 10)):
        await asyncio.sleep(0.005)
    assert [(run.outcome.value, run.result) for run in runs] == [("success", "done")]
