"""Five groups talk at once while controller and agents are killed at random; then every answer is counted.

Every message says something of its own, so an answer can be found by its text and by the ids it
finishes. Killed are processes (SIGKILL, from outside their pods) and pods (deleted),
of the controller and of agents that work. There are fewer places than groups, so sessions also
have to make room for each other.

    .venv/bin/python -m bench.soak [minutes]
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench import table
from nanoclaw_dev import engine_binaries, gomodules, modules, system
from nanoclaw_dev.chat import Chat
from nanoclaw_dev.cluster.cluster import Cluster
from nanoclaw_dev.cluster.instance import Instance
from nanoclaw_dev.paths import CHECKOUT
from nanoclaw_dev.progress import Progress
from nanoclaw_dev.trial import Installation
from nanoclaw_runtime.api.schemas import EventView
from nanoclaw_runtime.cli.errors import NotReachable
from nanoclaw_runtime.contract import labels
from nanoclaw_runtime.kube.errors import KubeError, NotFound
from nanoclaw_runtime.kube.resources import PODS
from nanoclaw_runtime.store.records import EventType

GROUPS: Final = ("main", "a", "b", "c", "Team_42")
MINUTES: Final = 10.0
PLACES: Final = 4
SETTINGS: Final = {
    "runtime": {"maxConcurrentSessions": PLACES, "idleTimeout": 15, "idleProtection": 2, "closeGrace": 10},
    "groups": [{"folder": folder, "name": folder, "requiresTrigger": False} for folder in GROUPS],
}
BETWEEN_MESSAGES: Final = (0.5, 8.0)
BETWEEN_KILLS: Final = (10.0, 30.0)
LAST_ANSWERS: Final = 600.0
"""Seconds the last messages may take; the longest back-off is 155."""


@dataclass
class Tally:
    """What was sent and what came of it."""

    sent: dict[int, float] = field(default_factory=dict)
    """Message → when its acknowledgement came."""
    texts: dict[int, str] = field(default_factory=dict)
    answered: Counter[int] = field(default_factory=Counter)
    """Message → events that finish it."""
    said: Counter[str] = field(default_factory=Counter)
    """Text of a message → answers that contain it."""
    outputs: Counter[tuple[str, int]] = field(default_factory=Counter)
    failed: set[int] = field(default_factory=set)
    answers: dict[int, float] = field(default_factory=dict)
    """Message → when its first answer was committed."""
    kills: Counter[str] = field(default_factory=Counter)
    failed_sessions: int = 0

    def hear(self, event: EventView) -> None:
        payload = event.payload
        match event.type:
            case EventType.ANSWER | EventType.DONE:
                for message in payload["messages"]:
                    self.answered[message] += 1
                    self.answers.setdefault(message, event.created.timestamp())
                if event.type is EventType.ANSWER:
                    self.outputs[payload["session"], payload["ordinal"]] += 1
                    self.said.update({word for word in payload["text"].split() if word.startswith("note-")})
            case EventType.FAILURE:
                self.failed.update(payload["messages"])
            case EventType.SESSION:
                self.failed_sessions += payload["state"] == "failed"
            case _:
                pass

    @property
    def waits(self) -> list[float]:
        """Seconds, of every message that is answered; an answer may be quicker than the acknowledgement."""
        return [max(0.0, at - self.sent[message]) for message, at in self.answers.items() if message in self.sent]

    def open(self) -> set[int]:
        return self.sent.keys() - self.answered.keys() - self.failed


async def measure(installation: Installation, minutes: float, results: Path, progress: Progress) -> bool:
    """Talk and kill for so many minutes, wait for the last answers, write `soak.md`; whether all is well."""
    tally, about = Tally(), table.machine()
    async with installation.chat() as chat:
        hearing = asyncio.create_task(_hear(chat, tally), name="hearing")
        with progress.step(f"Talking and killing for {minutes:g} minutes") as step:
            async with asyncio.TaskGroup() as tasks:
                until = time.monotonic() + minutes * 60
                for number, group in enumerate(GROUPS):
                    tasks.create_task(_talk(chat, group, random.Random(number), until, tally), name=f"talk in {group}")
                tasks.create_task(_kill(chat, random.Random(42), until, tally), name="killing")
                while time.monotonic() < until:
                    await asyncio.sleep(5)
                    step.note(f"{len(tally.sent)} sent, {len(tally.open())} open, {sum(tally.kills.values())} kills")
        with progress.step("Waiting for the last answers") as step:
            until = time.monotonic() + LAST_ANSWERS
            while tally.open() and time.monotonic() < until:
                step.note(f"{len(tally.open())} open")
                await asyncio.sleep(1)
            await asyncio.sleep(5)  # a second answer would be heard now
        hearing.cancel()
    text = _report(about, minutes, tally)
    table.write(results / "soak.md", text)
    progress.say(text)
    return _well(tally)


async def _hear(chat: Chat, tally: Tally) -> None:
    after = 0
    while True:
        try:
            async for event in chat.remote.events(None, after=after):
                after = event.id
                tally.hear(event)
        except (NotReachable, KubeError):
            await asyncio.sleep(1)


async def _talk(chat: Chat, group: str, chance: random.Random, until: float, tally: Tally) -> None:
    number = 0
    while time.monotonic() < until:
        number += 1
        text = f"note-{group}-{number}"
        script = chance.choice([f"echo {text}", f"sleep {chance.uniform(0.1, 4):.1f}; echo {text}", text])
        accepted = await chat.send(group, script)
        tally.sent[accepted.id], tally.texts[accepted.id] = time.time(), text
        await asyncio.sleep(chance.uniform(*BETWEEN_MESSAGES))


async def _kill(chat: Chat, chance: random.Random, until: float, tally: Tally) -> None:
    while time.monotonic() < until:
        await asyncio.sleep(chance.uniform(*BETWEEN_KILLS))
        victim = chance.choice(["controller", "agent", "agent"])
        how = chance.choice(["process", "pod"])
        selector = labels.CONTROLLER_SELECTOR if victim == "controller" else labels.AGENT_SELECTOR
        if await _killed(chat, selector, how, chance):
            tally.kills[f"{victim}'s {how}"] += 1


async def _killed(chat: Chat, selector: str, how: str, chance: random.Random) -> bool:
    found = await chat.client.list(PODS, namespace=chat.namespace, labels=selector)
    pods = [pod for pod in found if pod["status"].get("phase") == "Running"]
    if not pods:
        return False
    pod: dict[str, Any] = chance.choice(pods)
    if how == "process":
        return await asyncio.to_thread(_signal, pod["metadata"]["uid"])
    try:
        await chat.client.delete(PODS, pod["metadata"]["name"], namespace=chat.namespace)
    except NotFound:
        return False
    return True


def _signal(uid: str) -> bool:
    """SIGKILL to every process of a pod but its sandbox's; whether there was one."""
    hit = False
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and uid in (process / "cgroup").read_text().replace("_", "-"):
                if b"pause" in (process / "cmdline").read_bytes():
                    continue
                os.kill(int(process.name), signal.SIGKILL)
                hit = True
        except OSError:
            continue
    return hit


def _well(tally: Tally) -> bool:
    once = all(count == 1 for count in (*tally.answered.values(), *tally.outputs.values()))
    return once and not tally.open() and not tally.failed and not _repeated(tally)


def _repeated(tally: Tally) -> list[str]:
    return [text for text in tally.texts.values() if tally.said[text] > 1]


def _report(about: str, minutes: float, tally: Tally) -> str:
    kills = ", ".join(f"{what} {count} times" for what, count in sorted(tally.kills.items()))
    rows = {
        "messages acknowledged": len(tally.sent),
        "answered": len(tally.sent.keys() & tally.answered.keys()),
        "given up visibly": len(tally.failed),
        "never answered": len(tally.open()),
        "finished by more than one event": sum(count > 1 for count in tally.answered.values()),
        "texts in more than one answer": len(_repeated(tally)),
        "outputs published twice": sum(count > 1 for count in tally.outputs.values()),
        "sessions that failed": tally.failed_sessions,
    }
    return "\n".join(
        [
            "# Soak",
            "",
            about,
            "",
            f"{len(GROUPS)} groups, {PLACES} places, {minutes:g} minutes of talk; killed meanwhile: {kills}.",
            "",
            "| | |",
            "|---|--:|",
            *(f"| {name} | {count:,} |" for name, count in rows.items()),
            "",
            table.table("message → answer, kills included", {"all": tally.waits}),
        ]
    )


def main() -> int:
    """Exit status 1 when an answer is missing or came twice."""
    progress = Progress()
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else MINUTES
    system.check_root()
    system.install_missing({**system.CLUSTER_PACKAGES, **system.IMAGE_PACKAGES}, progress)
    binaries = engine_binaries.find(progress)
    gomodules.build_missing(modules.CLUSTER, progress)
    with tempfile.TemporaryDirectory(prefix="nanoclaw-soak-") as scratch:
        folder = Path(scratch)
        cluster = Cluster(Instance(f"soak-{os.getpid()}", folder / "cluster"))
        try:
            with cluster:
                installation = Installation.up(cluster, binaries, folder / "soak", settings=SETTINGS)
                well = asyncio.run(measure(installation, minutes, CHECKOUT / "bench/results", progress))
        finally:
            cluster.remove()
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
