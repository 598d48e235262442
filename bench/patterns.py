"""From a message to its agent, by pattern, transport and what was there before: cold, from zero, parked, follow-up.

Beside it, in turns in the same run: a Job made by hand with the same manifest and claims, and `docker run`. What is
measured begins when the controller has committed the message and ends when the agent's stdin is closed behind its
input; all clocks are this machine's. A group's next message waits until what was used up is gone or parked anew;
other groups' agents end and are parked meanwhile. What else the machine does is not known here: its load is told.

    python -m bench.patterns [rounds]
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from bench import start, table
from nanoclaw_dev import engine_binaries, images, system
from nanoclaw_dev.chat import Chat
from nanoclaw_dev.cluster.cluster import Cluster
from nanoclaw_dev.cluster.instance import Instance
from nanoclaw_dev.docker_engine import DockerEngine
from nanoclaw_dev.engine_binaries import EngineBinaries
from nanoclaw_dev.progress import Progress, Step
from nanoclaw_dev.trial import Installation, node_root, open_nodes
from nanoclaw_runtime.contract import labels, names
from nanoclaw_runtime.kube.client import Manifest
from nanoclaw_runtime.kube.resources import PODS

RESULTS = Path(__file__).parent / "results"
ROUNDS: Final = 30

COLD, PARKED = "cold", "parked"


@dataclass(frozen=True)
class Kind:
    """A group whose messages find always the same."""

    group: str
    pattern: str
    beginning: str
    settings: dict[str, str]


@dataclass(frozen=True)
class Stack:
    name: str
    runtime: dict[str, Any]
    storage: dict[str, Any]
    kinds: tuple[Kind, ...]


CLAIMS: Final = (
    Kind("jobcold", "Job", COLD, {"pattern": "job", "warm": "never"}),
    Kind("jobwarm", "Job", PARKED, {"pattern": "job", "warm": "always"}),
    Kind("setcold", "StatefulSet", "from zero", {"pattern": "statefulset", "warm": "never"}),
    Kind("setwarm", "StatefulSet", PARKED, {"pattern": "statefulset", "warm": "always"}),
)
NODES: Final = (
    Kind("nodecold", "nodelocal", COLD, {"warm": "never"}),
    Kind("nodewarm", "nodelocal", PARKED, {"warm": "always"}),
)
STACKS: Final = (
    Stack("volume", {"transport": "volume"}, {}, CLAIMS),
    Stack(
        "bridge",
        {"transport": "bridge"},
        {"accessMode": "ReadWriteOnce"},
        CLAIMS,
    ),
    Stack("node's disk", {"pattern": "nodelocal"}, {}, NODES),
)


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
                for number, stack in enumerate(STACKS):
                    installation = _up(cluster, binaries, folder / f"stack{number}", stack)
                    with progress.step(f"Measuring {rounds} rounds of {stack.name}") as step:
                        bench = Bench(stack, docker, agent.reference, found, follow_ups)
                        asyncio.run(bench.measure(installation, rounds, step))
                    installation.leave()
        finally:
            cluster.remove()
    text = report(about, found, follow_ups, rounds)
    table.write(RESULTS / "patterns.md", text)
    progress.say(text)


def _up(cluster: Cluster, binaries: EngineBinaries, folder: Path, stack: Stack) -> Installation:
    groups: list[dict[str, Any]] = [{"folder": kind.group} | kind.settings for kind in stack.kinds]
    groups.append({"folder": start.BASELINE, "warm": "never"})
    runtime = {"maxConcurrentSessions": 10, "idleTimeout": 2, "closeGrace": 10, "parking": {"pods": 2}} | stack.runtime
    settings: dict[str, Any] = {
        "runtime": runtime,
        "groups": [{"name": group["folder"], "requiresTrigger": False} | group for group in groups],
        "storage": stack.storage,
    }
    if stack.kinds is NODES:
        settings |= open_nodes(cluster, folder)
        runtime |= {"nodeRoot": node_root(folder)}
    return Installation.up(cluster, binaries, folder, settings=settings, layout="per-type")


@dataclass
class Bench:
    stack: Stack
    docker: DockerEngine
    image: str
    found: dict[str, Times]
    follow_ups: dict[str, list[float]]
    used: set[str] = field(default_factory=set)
    """Sessions that have had their message."""
    last: dict[str, str] = field(default_factory=dict)
    """Group → the latest of them."""

    async def measure(self, installation: Installation, rounds: int, step: Step) -> None:
        async with installation.chat() as chat:
            for number in range(-1, rounds):  # the first round warms caches up and does not count
                step.note(f"{max(number, 0)}/{rounds}")
                for kind in self.stack.kinds:
                    times = await self._ours(replace(chat, group=kind.group), kind)
                    if number >= 0:
                        self._keep(f"{kind.pattern}, {self.stack.name}, {kind.beginning}", *times)
                if self.stack is STACKS[0]:
                    by_hand, docked = start.Times(), start.Times()
                    await start.handmade(chat.client, chat.namespace, self.image, f"r{number + 1}", by_hand)
                    await start.by_docker(self.docker, self.image, docked)
                    if number >= 0:
                        self._keep(BY_HAND, by_hand.input[0], by_hand.answer[0])
                        self._keep(DOCKED, docked.input[0], docked.answer[0])
            for kind in self.stack.kinds:
                if kind.beginning != PARKED:
                    seconds = await start.follow_ups(replace(chat, group=kind.group), kind.group)
                    self.follow_ups[f"{kind.pattern}, {self.stack.name}"] = seconds

    async def _ours(self, chat: Chat, kind: Kind) -> tuple[float, float]:
        """One message; seconds until the agent has it, and until its answer."""
        group = kind.group
        if group in self.last:
            await self._gone(chat, self.last[group])
        if kind.beginning == PARKED:
            await self._parked(chat, group)
        await asyncio.sleep(CALM)
        sent_at = time.time()
        sent = await chat.send(group, "hello")
        arrived = await chat.until(lambda event: event.id == sent.event, after=sent.event - 1)
        running = await chat.running(group, after=sent.event)
        answer = await chat.answer(sent)
        session = answer.payload["session"]
        self.used.add(session)
        self.last[group] = session
        return (running.created - arrived.created).total_seconds(), answer.created.timestamp() - sent_at

    async def _parked(self, chat: Chat, group: str) -> None:
        """Return when an agent of the group waits for its input."""
        selector = f"{labels.GROUP}={names.slug(group)}"
        while True:
            pods = await chat.client.list(PODS, namespace=chat.namespace, labels=selector)
            if any(ready(pod) and pod["metadata"]["labels"][labels.SESSION] not in self.used for pod in pods):
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
        f"{about}, when done {os.getloadavg()[0]:.1f}. The reference agent, image present, one node, {rounds} rounds "
        "of each kind in turns; what ended before goes and is parked anew meanwhile. The agent has its input when its "
        "stdin is closed behind it; for ours the time begins with the message's commit, for the Job made by hand with "
        "the call that creates it, for Docker with the start of `docker run`. All claims are folders of the node: a "
        "disk that is attached anew takes as long as its kind does, with either transport."
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
