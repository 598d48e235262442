"""A host that is killed at the worst moments, with real agents: no message is lost, none is answered twice.

What may happen is that an agent does its work again: it is its answer that is published once.
"""

from __future__ import annotations

import pytest

from nanoclaw_dev import images
from nanoclaw_dev.progress import Progress
from tests.support.host_process import HostProcess, finished, published

pytestmark = [pytest.mark.docker, pytest.mark.timeout(120)]

WORKS, IDLES = 600, 0.2
"""Seconds until the agent of a group is asked to end."""


@pytest.fixture(scope="session")
def echo_agent(engine):
    """The reference agent's image on the engine."""
    _, agent = images.build_images(Progress())
    engine.load(agent.archive)
    return agent.reference


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
    if sent:
        await host.over(*sent)
    host.arm(point)
    sent.append(await host.send("to the point"))
    await host.held(point)
    if point == "container asked for":
        await host.container_runs()
    sent.append(await host.send("while it is held"))
    await host.kill()
    await host.start()
    sent.append(await host.send("behind the crash"))
    events = await host.over(*sent)
    assert sorted(finished(events)) == sent
    assert len(set(published(events))) == len(published(events))
