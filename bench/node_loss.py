"""A node that loses its power while people talk: what is lost, what is answered twice, how long it takes.

Three nodes, agents on all of them, somebody in each group who writes whatever happens. In the middle one node is
switched off; once the cluster has noticed, its operator says that it is out of service, as the manual has it. At the
end each message has to be over exactly once, and each agent is asked what it was told, which shows what it did twice.

    python -m bench.node_loss
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench import table
from nanoclaw_dev import engine_binaries, system
from nanoclaw_dev.chat import Chat
from nanoclaw_dev.cluster import render
from nanoclaw_dev.cluster.cluster import Cluster
from nanoclaw_dev.cluster.instance import Instance
from nanoclaw_dev.engine_binaries import EngineBinaries
from nanoclaw_dev.progress import Progress, Step
from nanoclaw_dev.trial import Installation
from nanoclaw_runtime.cli.errors import CommandFailed, NotReachable
from nanoclaw_runtime.contract import labels
from nanoclaw_runtime.kube.resources import PODS
from nanoclaw_runtime.store.records import EventType

RESULTS = Path(__file__).parent / "results"
GROUPS: Final = tuple(f"g{number}" for number in range(1, 9))
TRAFFIC, LOSS, PAUSE = 90.0, 30.0, 3.0
# Seconds: how long messages come, after how many a node goes, between two messages of a group.
AFTERWARDS: Final = 240.0
# Seconds in which the last message has to be over.
AWAY: Final = 0.3
FINISHING: Final = {EventType.ANSWER, EventType.DONE, EventType.FAILURE}


@dataclass(frozen=True)
class Case:
    name: str
    transport: str
    with_controller: bool
    storage: dict[str, Any]


CASES: Final = (
    Case("volume (ReadWriteMany), a node of agents", "volume", with_controller=False, storage={}),
    Case(
        "bridge (ReadWriteOnce, detachable), a node of agents",
        "bridge",
        with_controller=False,
        storage={"storageClass": render.DETACHABLE_CLASS, "accessMode": "ReadWriteOnce"},
    ),
    Case(
        "bridge (ReadWriteOnce, detachable), the controller's node",
        "bridge",
        with_controller=True,
        storage={"storageClass": render.DETACHABLE_CLASS, "accessMode": "ReadWriteOnce"},
    ),
)


@dataclass
class Ledger:
    """What was sent and what became of it; moments in seconds since 1970."""

    sent: dict[int, float] = field(default_factory=dict)
    texts: dict[str, list[str]] = field(default_factory=dict)
    """Group → what was written there."""
    over: Counter[int] = field(default_factory=Counter)
    answered: dict[int, float] = field(default_factory=dict)
    failed: set[int] = field(default_factory=set)
    told_again: int = 0
    """Messages an agent was given more than once."""

    def delays(self) -> list[float]:
        return [self.answered[message] - sent for message, sent in self.sent.items() if message in self.answered]


def main() -> None:
    progress, about = Progress(), table.machine()
    system.check_root()
    binaries = engine_binaries.find(progress)
    found: dict[str, Ledger] = {}
    with tempfile.TemporaryDirectory(prefix="nanoclaw-bench-", dir="/var/tmp") as scratch:
        cluster = Cluster(Instance(f"bench-{os.getpid()}", Path(scratch) / "cluster"), nodes=3, fast_failure=True)
        try:
            with cluster:
                for number, case in enumerate(CASES):
                    installation = _up(cluster, binaries, Path(scratch) / f"stack{number}", case)
                    with progress.step(case.name) as step:
                        found[case.name] = asyncio.run(_measure(installation, case, step))
                    installation.leave()
        finally:
            cluster.remove()
    text = report(about, found)
    table.write(RESULTS / "node_loss.md", text)
    progress.say(text)


def _up(cluster: Cluster, binaries: EngineBinaries, folder: Path, case: Case) -> Installation:
    settings = {
        "runtime": {"transport": case.transport, "maxConcurrentSessions": len(GROUPS), "idleTimeout": 20},
        "groups": [{"folder": folder, "name": folder, "requiresTrigger": False} for folder in GROUPS],
        "storage": {"databaseStorageClass": render.DETACHABLE_CLASS} | case.storage,
    }
    return Installation.up(cluster, binaries, folder, settings=settings, layout="per-group")


async def _measure(installation: Installation, case: Case, step: Step) -> Ledger:
    ledger = Ledger()
    async with installation.chat() as chat:
        following = asyncio.create_task(_follow(chat, ledger))
        losing = asyncio.create_task(_lose(installation.cluster, chat, case))
        step.note("traffic")
        await asyncio.gather(*(_write(chat, group, ledger) for group in GROUPS))
        step.note("waiting for the rest")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(AFTERWARDS):
                while set(ledger.sent) - set(ledger.over):
                    await asyncio.sleep(AWAY)
        node = await losing
        ledger.told_again = await _told_again(chat, ledger)
        following.cancel()
    await asyncio.to_thread(installation.cluster.node(node).power_on)
    await asyncio.to_thread(installation.cluster.node(node).in_service)
    return ledger


async def _write(chat: Chat, group: str, ledger: Ledger) -> None:
    """Somebody who writes every few seconds, and tries again until it is acknowledged."""
    texts, end = ledger.texts.setdefault(group, []), time.time() + TRAFFIC
    await asyncio.sleep(PAUSE * GROUPS.index(group) / len(GROUPS))
    while time.time() < end:
        text, identity, begun = f"{group} says {len(texts)}", secrets.token_hex(8), time.time()
        while True:
            with contextlib.suppress(NotReachable):
                accepted = await chat.remote.send(group, text, sender="ann", client_id=identity)
                break
            await asyncio.sleep(AWAY)
        texts.append(text)
        ledger.sent[accepted.id] = begun
        await asyncio.sleep(max(0.0, begun + PAUSE - time.time()))


async def _follow(chat: Chat, ledger: Ledger) -> None:
    after = 0
    while True:
        with contextlib.suppress(CommandFailed):
            async with contextlib.aclosing(chat.events(after)) as events:
                async for event in events:
                    after = event.id
                    for message in event.payload["messages"] if event.type in FINISHING else ():
                        ledger.over[message] += 1
                        ledger.answered.setdefault(message, event.created.timestamp())
                        if event.type is EventType.FAILURE:
                            ledger.failed.add(message)
        await asyncio.sleep(AWAY)


async def _lose(cluster: Cluster, chat: Chat, case: Case) -> str:
    """Switch a node off when it is time, and let its pods go once that was noticed; the node's name."""
    await asyncio.sleep(LOSS)
    name = await _victim(chat, with_controller=case.with_controller)
    node = cluster.node(name)
    await asyncio.to_thread(node.power_off)
    await asyncio.to_thread(node.await_state, ready=False)
    await asyncio.to_thread(node.out_of_service)
    return name


async def _victim(chat: Chat, *, with_controller: bool) -> str:
    """The controller's node, or of the others the one with most agents."""
    [controller] = await chat.client.list(PODS, namespace=chat.namespace, labels=labels.CONTROLLER_SELECTOR)
    own = str(controller["spec"]["nodeName"])
    if with_controller:
        return own
    pods = await chat.client.list(PODS, namespace=chat.namespace, labels=labels.AGENT_SELECTOR)
    nodes = Counter(pod["spec"]["nodeName"] for pod in pods if pod["status"]["phase"] == "Running")
    del nodes[own]
    [(most, _)] = nodes.most_common(1)
    return str(most)


async def _told_again(chat: Chat, ledger: Ledger) -> int:
    """How many messages stand in their agent's memory more than once."""
    again = 0
    for group, texts in ledger.texts.items():
        answer = await chat.answer(await chat.send(group, "history"))
        said = [line.partition(". ")[2] or line for line in answer.payload["text"].splitlines()]
        again += sum(said.count(text) > 1 for text in texts)
    return again


def report(about: str, found: dict[str, Ledger]) -> str:
    head = (
        "transport, and what was switched off", "sent", "answered once", "twice", "lost", "given up",
        "told an agent twice", "median, s", "p99, s", "longest, s",
    )  # fmt: skip
    method = (
        f"{about}. Three nodes, {len(GROUPS)} groups, a message every {PAUSE:.0f} s in each for {TRAFFIC:.0f} s. After "
        f"{LOSS:.0f} s one node is switched off and stays off; the cluster notices after about 8 s, and then the node "
        "is tainted `node.kubernetes.io/out-of-service`, as its operator would. Seconds are from writing a message to "
        "its answer; the longest ones waited for Kubernetes to let go of the pods of the lost node."
    )
    twice = (
        "An agent is told a message twice when it was lost with its node before its answer was: the answer is "
        "published once, what the agent did for it may have been done twice."
    )
    lines = [f"| {' | '.join(head)} |", f"|---|{'--:|' * (len(head) - 1)}"]
    lines += [_row(name, ledger) for name, ledger in found.items()]
    return "\n\n".join(["# A node without power, while people talk", method, "\n".join(lines), twice])


def _row(name: str, ledger: Ledger) -> str:
    times = [ledger.over[message] for message in ledger.sent]
    delays: Sequence[float] = ledger.delays()
    counts = (len(times), times.count(1), sum(each > 1 for each in times), times.count(0), len(ledger.failed))
    seconds = (table.percentile(delays, 0.5), table.percentile(delays, 0.99), max(delays))
    numbers = [*map(str, (*counts, ledger.told_again)), *(f"{each:.1f}" for each in seconds)]
    return f"| {name} | {' | '.join(numbers)} |"


if __name__ == "__main__":
    main()
