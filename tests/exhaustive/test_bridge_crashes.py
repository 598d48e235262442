"""The container beside an agent dies at any step, and its controller with it or not: everything happens once."""

import asyncio
import contextlib
import json
import signal

import pytest

from nanoclaw_runtime.contract import bridge
from nanoclaw_runtime.domain.requests import RequestKind
from nanoclaw_runtime.ipc.requests import RequestFolder
from tests.support import bridge_points
from tests.support.bridged import PATIENCE, Bridged, kill, process, until

ATTEMPTS = ("one", "two", "three")


class Agent:
    """Takes what comes, in its order, and asks for something each time."""

    def __init__(self, place):
        self.place = place
        self.seen = []
        self._inputs = place.ipc / "inputs" / place.session

    async def run(self):
        while True:
            for file in sorted(self._inputs.glob("*.json")) if self._inputs.exists() else ():
                text = json.loads(file.read_text())["text"]
                file.unlink()
                self.seen.append(text)
                aside = self.place.ipc / "tasks/aside"
                aside.write_text(json.dumps({"asks": text}))
                aside.rename(self.place.ipc / f"tasks/{len(self.seen)}.json")
            await asyncio.sleep(0.02)


class Desk:
    """Carries out each request once, as the controller does: by its key."""

    def __init__(self, tree):
        self.done = {}
        self._folder = RequestFolder(tree, "main", RequestKind.TASK)

    async def run(self):
        while True:
            for name in self._folder.names():
                if (file := self._folder.read(name)) is not None:
                    self.done.setdefault(file.key, file.document["asks"])
                    self._folder.done(file)
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def busy(*parts):
    tasks = [asyncio.create_task(part.run()) for part in parts]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def recorded():
    """The store has it."""


@pytest.mark.parametrize("controller_too", [False, True], ids=["alone", "with its controller"])
@pytest.mark.parametrize("point", [name for name in bridge_points.POINTS if name != "last report said"])
async def test_a_death_at_any_step_loses_nothing_and_repeats_nothing(tmp_path, point, controller_too, monkeypatch):
    monkeypatch.setattr(bridge, "LAST_REPORT", PATIENCE)  # on a busy machine a pod is not back in seconds
    async with Bridged.open(tmp_path) as bridged:
        (bridged.tree / "project").mkdir(parents=True)
        (bridged.tree / "project/README.md").write_text("read me")
        place, box = bridged.place(), bridged.mailbox()
        await box.prepare()
        agent, desk = Agent(place), Desk(bridged.tree)
        async with busy(agent, desk):
            await box.send(ATTEMPTS[0], [1], recorded)
            dying = await process(place, "tests.support.bridge_points", **{bridge_points.VARIABLE: point})
            try:
                async with asyncio.timeout(60):
                    assert await dying.wait() == -signal.SIGKILL
            finally:
                await kill(dying)
            await box.send(ATTEMPTS[1], [2], recorded)
            if controller_too:
                await bridged.stop()
                await bridged.start()
            alive = await process(place)
            try:
                await until(place.ready.exists)
                await box.send(ATTEMPTS[2], [3], recorded)
                await until(lambda: len(agent.seen) >= 3 and len(desk.done) >= 3)
                await until(lambda: not list((place.ipc / "tasks").iterdir()))
                assert await box.pending() == set()
                alive.send_signal(signal.SIGTERM)
                async with asyncio.timeout(30):
                    assert await alive.wait() == 0
            finally:
                await kill(alive)
        assert agent.seen == list(ATTEMPTS)
        assert sorted(desk.done.values()) == sorted(ATTEMPTS)
        assert await box.pending() == set()


async def test_a_death_behind_the_last_report_changes_nothing(tmp_path):
    async with Bridged.open(tmp_path) as bridged:
        place, box = bridged.place(), bridged.mailbox()
        await box.prepare()
        dying = await process(place, "tests.support.bridge_points", **{bridge_points.VARIABLE: "last report said"})
        try:
            await until(place.ready.exists)
            await box.send("left", [1], recorded)
            await until(lambda: list((place.ipc / "inputs/s1").glob("*.json")))
            dying.send_signal(signal.SIGTERM)
            async with asyncio.timeout(30):
                await dying.wait()
        finally:
            await kill(dying)
        assert await box.pending() == {1}


async def test_a_sigterm_ends_it_at_once_where_there_is_no_controller(tmp_path):
    bridged = Bridged(tmp_path)
    bridged.port = 9  # nobody is there
    alone = await process(bridged.place())
    try:
        await until((bridged.place().ipc / "inputs/s1").exists)
        await asyncio.sleep(0.5)
        alone.send_signal(signal.SIGTERM)
        async with asyncio.timeout(30):  # or never
            assert await alone.wait() == 0
    finally:
        await kill(alone)
