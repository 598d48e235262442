"""A controller on a real store and real folders, with scripted agents: what the controller's tests live in."""

import asyncio
import contextlib
from datetime import UTC, datetime

import pytest

from nanoclaw_runtime.channels.configured import configured
from nanoclaw_runtime.contract.config import AgentSettings, ControllerConfig, Groups, GroupSpec
from nanoclaw_runtime.controller.host import Host, Means
from nanoclaw_runtime.controller.status import SessionState
from nanoclaw_runtime.controller.volumes import OneTree
from nanoclaw_runtime.store.records import EventType
from nanoclaw_runtime.telemetry import Metrics
from tests.support import stores
from tests.support.bot_api import TOKEN
from tests.support.fake_backend import FakeBackend


class House:
    """A controller with its surroundings; `restart` is a crash of the process and its return."""

    def __init__(self, tmp_path, settings=ControllerConfig, **config):
        self.tmp_path = tmp_path
        self.backend = FakeBackend(tmp_path)
        self.turn = True  # to ask the networks for what comes in
        self.elsewhere = {}  # chats of other hosts' groups
        self.more = {}  # what its host is given beyond the usual
        self.config = settings(agent=AgentSettings(image="agent:1"), **config)
        self.groups = Groups(
            groups=[
                GroupSpec(folder=folder, name=folder.title(), requires_trigger=False)
                for folder in ("main", "a", "b", "c", "d", "e")
            ]
            + [GroupSpec(folder="family", name="Family")]
        )

    async def __aenter__(self):
        await self.begin()
        return self

    async def __aexit__(self, *_):
        await self.end()

    async def begin(self, *, declared=True):
        self.store = await stores.opened(self.tmp_path)
        means = Means(
            config=self.config,
            backend=self.backend,
            store=self.store,
            tree=self.tmp_path,
            credentials=lambda _folder: {"ANTHROPIC_API_KEY": "sk-secret"},
            metrics=Metrics(),
            volumes=OneTree(),
            channels=configured(
                self.config.channels,
                lambda _: TOKEN,
                assistant_name=self.config.assistant_name,
                turn=lambda: self.turn,
            ),
            folder_elsewhere=self.elsewhere.get,
            **self.more,
        )
        self.host = Host(means)
        self.controller, self.tasks = self.host.controller, self.host.tasks
        self._life = asyncio.create_task(self.host.run())
        if declared:
            await self.declare()

    async def declare(self):
        """The groups of the stack become known, and everything begins."""
        await self.host.groups.declare(self.groups)
        await self.until(lambda: all_ok(self.controller))

    async def end(self):
        self._life.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._life
        await self.store.close()

    async def restart(self):
        await self.end()
        await self.begin()

    async def return_broken(self):
        """Return after the process ended by itself."""
        with pytest.raises(ExceptionGroup):
            await self._life
        await self.store.close()
        await self.begin()

    async def send(self, text, folder="main", **more):
        return await self.controller.accept(folder, text, sender="ann", sender_name="Ann", **more)

    async def commit(self, text, folder="main", **more):
        """A message as a process leaves it that dies before it does anything about it."""
        sent = {"sender": "ann", "sender_name": "Ann", "at": datetime.now(UTC)} | more
        message, _ = await self.store.add_message(folder, text, **sent)
        return message

    @contextlib.asynccontextmanager
    async def refusing(self, statement, condition):
        """A database that refuses some statements, as it does when its disk is full."""
        trigger = f"CREATE TRIGGER full BEFORE {statement} WHEN {condition} BEGIN SELECT RAISE(ABORT, 'full'); END"
        await self.execute(trigger)
        yield
        await self.execute("DROP TRIGGER full")

    async def execute(self, sql):
        await self.store.database.transaction(lambda connection: connection.exec_driver_sql(sql))

    async def a_follow_up_lies_there(self, text="unseen"):
        """An agent has answered once, and a second message is in its mailbox."""
        await self.send("hello")
        agent = await self.backend.agent(0)
        await agent.say("hi")
        await self.answers()
        await self.send(text)
        while not list(agent.input.glob("*.json")):  # by then it is recorded, too
            await asyncio.sleep(0.005)
        return agent

    async def events(self, kind, count=1, folder=None):
        found = []
        async with contextlib.aclosing(self.store.follow(after=0, folder=folder)) as events:
            async for event in events:
                found += [event.payload] if event.type is kind else []
                if len(found) == count:
                    break
        return found

    async def answers(self, count=1, folder=None):
        return [answer["text"] for answer in await self.events(EventType.ANSWER, count, folder)]

    async def all_answers(self):
        events = await self.store.events(after=0, folder=None)
        return [event.payload["text"] for event in events if event.type is EventType.ANSWER]

    async def group(self, folder="main"):
        return next(group for group in await self.controller.groups() if group.folder == folder)

    async def until(self, condition):
        while not await condition():
            await asyncio.sleep(0.005)

    async def until_state(self, state, folder="main"):
        async def reached():
            return (await self.group(folder)).state is state

        await self.until(reached)


async def all_ok(controller):
    return all(check.ok for check in await controller.checks())


async def started(house):
    return any(session.state is not SessionState.STARTING for session in house.controller.sessions())
