"""A controller whose agents' pods are at the other end of a real bridge: scripted agents, the container's own code."""

from __future__ import annotations

import asyncio
import contextlib

import aiohttp

from nanoclaw_runtime.api.server import listen, serve_on
from nanoclaw_runtime.contract.config import Transport
from tests.support.bridged import Bridged, Pod
from tests.support.fake_backend import FakeBackend
from tests.support.house import House
from tests.support.served import TOKEN, whole_api


class PodBackend(FakeBackend):
    """Each agent, parked or not, has a pod of its own for as long as it lives. `slow` keeps pods from beginning."""

    def __init__(self, bridged: Bridged) -> None:
        super().__init__(bridged.tree, parks=True)
        self.bridged = bridged
        self.pods: dict[str, Pod] = {}
        self.running_pods = asyncio.Event()
        self.running_pods.set()
        self._lives: set[asyncio.Task[None]] = set()

    async def prepare(self, plan):
        agent = await super().prepare(plan)
        self._with_pod(agent)
        return agent

    async def start(self, spec):
        agent = await super().start(spec)
        self._with_pod(agent)
        return agent

    def _with_pod(self, agent) -> None:
        if agent.ref.session not in self.pods:
            agent.transport = Transport.BRIDGE
            pod = self.pods[agent.ref.session] = Pod(self.bridged.place(agent.ref.folder, agent.ref.session))
            self._lives.add(asyncio.create_task(self._live(agent, pod)))

    async def _live(self, agent, pod) -> None:
        await self.running_pods.wait()
        pod.begin()
        try:
            await agent.gone()
        finally:
            await pod.end()

    async def end(self) -> None:
        for life in self._lives:
            life.cancel()
        await asyncio.gather(*self._lives, return_exceptions=True)


class BridgedHouse:
    """A house with a bridge, and its API at `url`."""

    def __init__(self, root) -> None:
        self.bridged = Bridged(root)
        self.house = House(self.bridged.tree, transport=Transport.BRIDGE)
        self.backend = self.house.backend = PodBackend(self.bridged)
        self.house.more = {"carrier": self.bridged, "reach": self.bridged}
        self.url = ""

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, root):
        opened = cls(root)
        try:
            await opened.bridged.start()
            async with opened.house:
                listener = listen("127.0.0.1", 0)
                opened.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
                serving = asyncio.create_task(serve_on(whole_api(opened.house.host), listener))
                try:
                    yield opened
                finally:
                    serving.cancel()
                    await asyncio.gather(serving, return_exceptions=True)
                    await opened.backend.end()
        finally:
            await opened.bridged.end()

    def http(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(self.url, headers={"Authorization": f"Bearer {TOKEN}"})

    def claims(self, folder="a"):
        """The group's folders, as its pods mount them."""
        return self.bridged.root / "claims" / folder
