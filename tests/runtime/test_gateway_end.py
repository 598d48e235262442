"""What becomes of calls under way when the gateway ends, and for how long it may go on ending."""

import asyncio
import contextlib
import selectors
import sqlite3

import aiohttp
import pytest

from nanoclaw_infra.gateway import STOP_GRACE
from nanoclaw_runtime.gateway.server import DRAIN, Ports, gateway
from tests.runtime.test_gateway import Gateway
from tests.support.model_api import ModelApi


class Hurried(selectors.DefaultSelector):
    """Passes over what a loop would wait for; nobody but this process may be at the other end of its sockets."""

    passed = 0.0

    def select(self, timeout=None):
        found = super().select(0 if timeout == 0 else 0.05)
        if not found and timeout:
            self.passed += timeout
        return found


class HurriedLoop(asyncio.SelectorEventLoop):
    """Its time goes on by what was not waited for."""

    def __init__(self):
        self.selector = Hurried()
        super().__init__(self.selector)

    def time(self):
        return super().time() + self.selector.passed


@pytest.fixture
def hurried():
    with asyncio.Runner(loop_factory=HurriedLoop) as runner:
        yield runner


async def ended(folder, *, answered):
    """A gateway that ends with a call under way: how long it took, what the agent has, and what is written down."""
    loop = asyncio.get_running_loop()
    async with ModelApi() as api, aiohttp.ClientSession() as agent:
        made = Gateway(folder, api.url, {})
        made.client = agent
        async with gateway(made.settings, lambda: made.now, host="127.0.0.1", ports=Ports(0, 0)) as ports:
            made.url = f"http://127.0.0.1:{ports.agents}"
            asking = asyncio.create_task(made.ask("hold", stream=True, usage=(1, 2)))
            await api.holding.wait()
            begun = loop.time()
            if answered:
                loop.call_soon(api.go.set)  # while the gateway ends
        took = loop.time() - begun
        (answer,) = await asyncio.gather(asking, return_exceptions=True)
        api.go.set()
    with contextlib.closing(sqlite3.connect(made.settings.database)) as ledger:
        return took, answer, ledger.execute("SELECT calls, input FROM usage").fetchall()


def test_a_call_that_is_answered_meanwhile_is_finished_and_written_down(hurried, tmp_path):
    took, (status, body), written = hurried.run(ended(tmp_path, answered=True))
    assert (status, b"message_stop" in body) == (200, True)
    assert (written, took < DRAIN) == ([(1, 1)], True)


def test_a_call_that_is_not_answered_is_cut_off_and_written_down_before_the_pod_is_killed(hurried, tmp_path):
    took, answer, written = hurried.run(ended(tmp_path, answered=False))
    assert isinstance(answer, aiohttp.ClientPayloadError)
    assert (written, took < STOP_GRACE) == ([(1, 1)], True)
