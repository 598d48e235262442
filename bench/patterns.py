"""From a message to its agent, by pattern, transport and what was there before: cold, from zero, parked, follow-up.

Beside it, in turns in the same run: a Job made by hand with the same manifest and claims, and `docker run`. What is
measured begins when the controller has committed the message and ends when the agent's stdin is closed behind its
input; all clocks are this machine's. Nothing else runs meanwhile: each turn waits until what was used up is parked
anew.

    python -m bench.patterns [rounds]
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench import start, table
from nanoclaw_dev import engine_binaries, images, system
from nanoclaw_dev.cluster import render
from nanoclaw_dev.cluster.cluster import Cluster
from nanoclaw_dev.cluster.instance import Instance
from nanoclaw_dev.docker_engine import DockerEngine
from nanoclaw_dev.engine_binaries import EngineBinaries
from nanoclaw_dev.progress import Progress, Step
from nanoclaw_dev.trial import Chat, Installation
from nanoclaw_runtime.contract import labels, names
from nanoclaw_runtime.kube.client import Manifest
from nanoclaw_runtime.kube.resources import PODS

RESULTS = Path(__file__).parent / "results"
ROUNDS: Final = 30

KINDS: Final = {
    "jobcold": ("Job", "cold", "job", "never"),
    "jobwarm": ("Job", "parked", "job", "always"),
    "setcold": ("StatefulSet", "from zero", "statefulset", "never"),
    "setwarm": ("StatefulSet", "parked", "statefulset", "always"),
}
"""Group → its pattern and beginning in words, and in the stack."""
STACKS: Final[dict[str, dict[str, Any]]] = {
    "volume": {},
    "bridge": {"storageClass": render.DETACHABLE_CLASS, "accessMode": "ReadWriteOnce"},
}
"""Transport → storage."""


BY_HAND, DOCKED = "handmade Job + attach", "docker run"
LOOK: Final = 0.1
CALM: Final = 0.5
# Seconds.


@dataclass
class Times:
    """Seconds, one entry a round."""

    input: list[float] = field(default_factory=list)
    """From the message's commit to the agent having it."""
    answer: list[float] = field(default_factory=list)
    """From the client's POST to the answer's commit."""


def main(rounds: int) -> None:
    progress, about = Progress(), table.machine()
    system.check_root()
    binaries = engine_binaries.find(progress)
    found: dict[str, Times] = {}
    follow_ups: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="nanoclaw-bench-", dir="/var/tmp") as scratch:
        folder = Path(scratch)
        cluster = Cluster(Instance(f"bench-{os.getpid()}", folder / "cluster"))
        try:
            with cluster, DockerEngine(folder / "docker") as docker:
                _, agent = images.build_images(progress)
                docker.load(agent.archive)
                for transport, storage in STACKS.items():
                    installation = _up(cluster, binaries, folder / transport, transport, storage)
                    with progress.step(f"Measuring {rounds} rounds with transport {transport}") as step:
                        bench = Bench(transport, docker, agent.reference, found, follow_ups)
                        asyncio.run(bench.measure(installation, rounds, step))
                    installation.leave()
        finally:
            cluster.remove()
    text = report(about, found, follow_ups, rounds)
    table.write(RESULTS / "patterns.md", text)
    progress.say(text)


def _up(
    cluster: Cluster, binaries: EngineBinaries, folder: Path, transport: str, storage: dict[str, Any]
) -> Installation:
    groups = [
        {"folder": folder, "name": folder, "requiresTrigger": False, "pattern": pattern, "warm": warm}
        for folder, (_, _, pattern, warm) in KINDS.items()
    ]
    groups.append({"folder": start.BASELINE, "name": start.BASELINE, "requiresTrigger": False, "warm": "never"})
    runtime = {
        "transport": transport,
        "maxConcurrentSessions": 10,
        "idleTimeout": 2,
        "closeGrace": 10,
        "parking": {"pods": 2},
    }
    settings = {"runtime": runtime, "groups": groups, "storage": storage}
    return Installation.up(cluster, binaries, folder, settings=settings, layout="per-type")


@dataclass
class Bench:
    transport: str
    docker: DockerEngine
    image: str
    found: dict[str, Times]
    follow_ups: dict[str, list[float]]
    used: set[str] = field(default_factory=set)
    """Sessions that have had their message."""

    async def measure(self, installation: Installation, rounds: int, step: Step) -> None:
        async with installation.chat() as chat:
            for number in range(-1, rounds):  # the first round warms caches up and does not count
                step.note(f"{max(number, 0)}/{rounds}")
                for group, (pattern, beginning, _, _) in KINDS.items():
                    times = await self._ours(chat, group, parked=beginning == "parked")
                    if number >= 0:
                        self._keep(f"{pattern}, {self.transport}, {beginning}", *times)
                if self.transport == "volume":
                    by_hand, docked = start.Times(), start.Times()
                    await start.handmade(chat.client, chat.namespace, self.image, f"r{number + 1}", by_hand)
                    await start.by_docker(self.docker, self.image, docked)
                    if number >= 0:
                        self._keep(BY_HAND, by_hand.input[0], by_hand.answer[0])
                        self._keep(DOCKED, docked.input[0], docked.answer[0])
            for group in ("jobcold", "setcold"):
                pattern, *_ = KINDS[group]
                self.follow_ups[f"{pattern}, {self.transport}"] = await start.follow_ups(chat, group)

    async def _ours(self, chat: Chat, group: str, *, parked: bool) -> tuple[float, float]:
        """One message; seconds until the agent has it, and until its answer."""
        if parked:
            await self._parked(chat, group)
        sent_at = time.time()
        sent = await chat.send(group, "hello")
        arrived = await chat.until(lambda event: event.id == sent.event, after=sent.event - 1)
        running = await chat.running(group, after=sent.event)
        answer = await chat.answer(sent)
        session = answer.payload["session"]
        self.used.add(session)
        await chat.over(session, after=answer.id)
        await self._gone(chat, session)
        return (running.created - arrived.created).total_seconds(), answer.created.timestamp() - sent_at

    async def _parked(self, chat: Chat, group: str) -> None:
        """Return when an agent of the group waits for its input, and the machine has calmed down."""
        selector = f"{labels.GROUP}={names.slug(group)}"
        while True:
            pods = await chat.client.list(PODS, namespace=chat.namespace, labels=selector)
            if any(ready(pod) and pod["metadata"]["labels"][labels.SESSION] not in self.used for pod in pods):
                await asyncio.sleep(CALM)
                return
            await asyncio.sleep(LOOK)

    async def _gone(self, chat: Chat, session: str) -> None:
        """Return when nothing of the session's pod runs any more."""
        selector = f"{labels.SESSION}={session}"
        while any(
            pod["status"]["phase"] == "Running"
            for pod in await chat.client.list(PODS, namespace=chat.namespace, labels=selector)
        ):
            await asyncio.sleep(LOOK)

    def _keep(self, name: str, until_input: float, until_answer: float) -> None:
        times = self.found.setdefault(name, Times())
        times.input.append(until_input)
        times.answer.append(until_answer)


def ready(pod: Manifest) -> bool:
    conditions = pod["status"].get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def report(about: str, found: dict[str, Times], follow_ups: dict[str, list[float]], rounds: int) -> str:
    intro = (
        f"{about}. The reference agent, image present, one node, {rounds} rounds of each kind in turns, nothing "
        "else at work. The agent has its input when its stdin is closed behind it; for ours the time begins with the "
        "message's commit, for the Job made by hand with the call that creates it, for Docker with the start of "
        "`docker run`."
    )
    ways = (
        "`cold`: nothing of the group is there. `from zero`: its StatefulSet is, with no replica. `parked`: an agent "
        "waits on its stdin. The answer's time begins with the client's POST, which goes through the API server."
    )
    inputs = {name: times.input for name, times in found.items()}
    answers = {name: times.answer for name, times in found.items()}
    late = "A follow-up to a live agent, which looks for it every 500 ms:"
    return "\n\n".join(
        [
            "# From a message to its agent, by pattern and transport",
            intro,
            ways,
            table.table("the agent has its input", inputs),
            table.table("its first answer", answers),
            late,
            table.table("its answer", follow_ups),
        ]
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else ROUNDS)
