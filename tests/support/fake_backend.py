"""A backend at our own seam: agents are scripted by the test, their mailboxes are real folders."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from nanoclaw_runtime.backends.base import no_room
from nanoclaw_runtime.contract.config import Transport
from nanoclaw_runtime.contract.layout import session_input_dir
from nanoclaw_runtime.contract.wire import ContainerOutput, OutputStatus
from nanoclaw_runtime.domain.errors import Diagnosis, FailureKind, SessionFailed
from nanoclaw_runtime.domain.model import AgentOutput, SessionPlan, SessionRef, SessionSpec
from nanoclaw_runtime.manifests.identity import fingerprint

EXITED = "exited"


@dataclass
class FakeAgent:
    """One agent. What it said stays, as in a pod's log, so it can be followed again."""

    ref: SessionRef
    stdin: dict[str, object]
    tree: Path
    said: list[ContainerOutput] = field(default_factory=list)
    parked: str | None = None
    transport: Transport = Transport.VOLUME
    created: datetime | None = None
    exit_code: int | None = None
    stopped: bool = False
    undead: int = 0
    """How many stops fail, as on a node that does not answer."""
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def say(self, result: str | None, session: str | None = "claude-1") -> None:
        await self._tell(ContainerOutput(status=OutputStatus.SUCCESS, result=result, new_session_id=session))

    async def complain(self, error: str) -> None:
        await self._tell(ContainerOutput(status=OutputStatus.ERROR, result=None, error=error))

    async def exit(self, code: int = 0) -> None:
        async with self._news:
            self.exit_code = code
            self._news.notify_all()

    async def take(self) -> list[str]:
        """Wait for follow-ups and take them, as an agent does."""
        while not (files := sorted(self.input.glob("*.json"))):
            await asyncio.sleep(0.005)
        texts = [json.loads(path.read_text())["text"] for path in files]
        for path in files:
            path.unlink()
        return texts

    async def closed(self) -> None:
        """Wait until it is asked to end."""
        while not (self.input / "_close").exists():
            await asyncio.sleep(0.005)
        (self.input / "_close").unlink()

    async def gone(self) -> None:
        async with self._news:
            await self._news.wait_for(lambda: self.exit_code is not None)

    @property
    def input(self) -> Path:
        return self.tree / session_input_dir(self.ref.folder, self.ref.session)

    async def outputs(self, skip: int = 0) -> AsyncGenerator[AgentOutput]:
        ordinal = skip
        while True:
            async with self._news:
                await self._news.wait_for(lambda seen=ordinal: len(self.said) > seen or self.exit_code is not None)
            while ordinal < len(self.said):
                yield AgentOutput(ordinal, self.said[ordinal])
                ordinal += 1
            if self.exit_code is not None and ordinal == len(self.said):
                break
        if self.exit_code:
            kind = FailureKind.STOPPED if self.stopped else FailureKind.EXIT
            ended = Diagnosis(kind, f"exit {self.exit_code}", "It failed.", self.exit_code)
            raise SessionFailed(self.ref.session, ended)

    async def stop(self, *, grace: timedelta) -> None:
        self.stopped = True
        if self.undead:
            self.undead -= 1
            raise SessionFailed(self.ref.session, Diagnosis(FailureKind.NODE_LOST, "it stays", "It stays."))
        if self.exit_code is None:
            await self.exit(137)

    async def _tell(self, output: ContainerOutput) -> None:
        async with self._news:
            self.said.append(output)
            self._news.notify_all()


class FakeBackend:
    """Remembers every agent it started; `refusals` are raised instead of starting.

    With `leaves_behind` a refused start could not be undone: its agent exists, without its input.
    With `keeps_ended` agents that have ended are still shown to who looks for those that run.
    With `parks` agents are parked on demand; `parked` has those that no session has taken.
    """

    def __init__(self, tree: Path, *, parks: bool = False) -> None:
        self.tree = tree
        self.parks = parks
        self.agents: list[FakeAgent] = []
        self.parked: dict[str, FakeAgent] = {}
        self.unfed: set[str] = set()
        """Parked agents that were found again, and are known never to have had an input."""
        self.refusals: list[Diagnosis] = []
        self.asked: list[SessionPlan] = []
        """What was to be parked."""
        self.park_refusals: list[Diagnosis] = []
        """Raised instead of parking."""
        self.compiling: set[str] = set()
        """Folders whose parked agents do not wait for their input yet."""
        self.park_room = asyncio.Event()
        """While it is not set, parking does not return, as with a slow API server."""
        self.park_room.set()
        self.leaves_behind = False
        self.keeps_ended = False
        self.make_room = no_room
        self.room = asyncio.Event()
        """While it is not set, starts wait, as for a node with room."""
        self.room.set()
        self._started = asyncio.Condition()

    async def start(self, spec: SessionSpec) -> FakeAgent:
        ref = spec.plan.ref
        stdin = await spec.stdin
        await self.room.wait()
        if self.refusals:
            if self.leaves_behind:
                await self.add(FakeAgent(ref, {}, self.tree))
            raise SessionFailed(ref.session, self.refusals.pop(0))
        agent = self.parked.pop(ref.session, None)
        if agent is None or agent.exit_code is not None or agent.parked != fingerprint(spec.plan):
            self._nobody_in(ref.folder)
            agent = FakeAgent(ref, {}, self.tree)
        agent.ref, agent.stdin = ref, json.loads(stdin)
        await self.add(agent)
        return agent

    async def prepare(self, plan: SessionPlan) -> FakeAgent | None:
        self.asked.append(plan)
        if not self.parks:
            return None
        await self.park_room.wait()
        if self.park_refusals:
            raise SessionFailed(plan.ref.session, self.park_refusals.pop(0))
        self._nobody_in(plan.ref.folder)
        agent = FakeAgent(plan.ref, {}, self.tree, parked=fingerprint(plan))
        assert agent.input.is_dir() is (plan.config.transport is Transport.VOLUME)
        self.parked[plan.ref.session] = agent
        return agent

    def waits(self, session: str) -> bool | None:
        agent = self.parked.get(session)
        if agent is None or agent.exit_code is not None:
            return None
        return agent.ref.folder not in self.compiling

    async def once_parked(self) -> set[str]:
        others = [*self.parked.values(), *(agent for agent in self.agents if agent.parked is not None)]
        return {agent.ref.session for agent in others if agent.exit_code is None}

    def never_fed(self, session: str) -> None:
        self.unfed.add(session)

    def _nobody_in(self, folder: str) -> None:
        """The real ones wait for a predecessor to be gone; nobody should have to here."""
        others = [*self.agents, *self.parked.values()]
        assert not [agent for agent in others if agent.exit_code is None and agent.ref.folder == folder]

    async def add(self, agent: FakeAgent) -> None:
        async with self._started:
            self.agents.append(agent)
            self._started.notify_all()

    async def running(self) -> list[FakeAgent]:
        others = [agent for agent in self.parked.values() if agent.exit_code is None]
        return [agent for agent in self.agents if self.keeps_ended or agent.exit_code is None] + others

    async def agent(self, number: int) -> FakeAgent:
        """The agent started as number `number`, from 0, as soon as it is."""
        async with self._started:
            await self._started.wait_for(lambda: len(self.agents) > number)
        return self.agents[number]
