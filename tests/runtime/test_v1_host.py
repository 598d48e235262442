"""What a host finds when it comes back, where the place its agents run in does not do as it is told."""

import asyncio

import pytest

from nanoclaw_runtime.domain.errors import Diagnosis, FailureKind, SessionFailed
from nanoclaw_runtime.domain.model import SessionRef
from tests.support.fake_backend import FakeAgent, FakeBackend
from tests.support.house import House

pytestmark = pytest.mark.timeout(30)

AWAY = Diagnosis(FailureKind.API, "nobody answers", "The assistant could not be reached.")


class Stubborn(FakeAgent):
    """Cannot be stopped."""

    async def stop(self, *, grace):
        raise SessionFailed(self.ref.session, AWAY)


class Foggy(FakeBackend):
    """In fog it does not see what runs."""

    fog = False

    async def running(self):
        if self.fog:
            raise SessionFailed("", AWAY)
        return await super().running()


async def test_an_agent_that_cannot_be_stopped_does_not_hold_up_the_others(house):
    first, stubborn, last = [
        kind(SessionRef(folder, "s1"), {}, house.tmp_path)
        for folder, kind in (("a", FakeAgent), ("b", Stubborn), ("c", FakeAgent))
    ]
    for agent in (first, stubborn, last):
        await house.backend.add(agent)
    await house.restart()
    await asyncio.gather(first.gone(), last.gone())
    await house.send("hello")
    assert (await house.backend.agent(3)).ref.folder == "main"


async def test_a_host_that_cannot_see_what_runs_does_not_start_beside_it(tmp_path):
    house = House(tmp_path)
    house.backend = Foggy(tmp_path)
    async with house:
        house._life.cancel()
        await asyncio.wait({house._life})
        house.backend.fog = True
        await house.send("hello")
        with pytest.raises(ExceptionGroup):
            await house.controller.run()
        assert house.backend.agents == []
        house.backend.fog = False
        await house.restart()
        assert ">hello</message>" in (await house.backend.agent(0)).stdin["prompt"]
