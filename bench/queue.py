"""How fast the queue decides with 10,000 groups, beside NanoClaw's own rules in their simplest form.

Each event is one decision. The same events go to both: messages, tasks, sessions that become
live, idle, and end. The baseline has a list of waiting groups and no eviction, priority or
estimate, so the difference is what those cost.
"""

from __future__ import annotations

import random
import statistics
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench import table
from nanoclaw_dev.progress import Progress
from nanoclaw_runtime.contract.config import Priority
from nanoclaw_runtime.domain.schedule import Action, Ending, Schedule, Start, StartTask

GROUPS = 10_000
LIMIT = 500
EVENTS = 200_000
PROTECTION = 60.0


class Plain:
    """NanoClaw's queue as its table has it: one list of those that wait, first come first served."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._active: set[str] = set()
        self._waiting: deque[str] = deque()
        self._queued: set[str] = set()

    def message(self, folder: str) -> str | None:
        if folder in self._active or folder in self._queued:
            return None
        if len(self._active) >= self._limit:
            self._waiting.append(folder)
            self._queued.add(folder)
            return None
        self._active.add(folder)
        return folder

    def ended(self, folder: str) -> str | None:
        self._active.discard(folder)
        if not self._waiting:
            return None
        following = self._waiting.popleft()
        self._queued.discard(following)
        self._active.add(following)
        return following

    def position(self, folder: str) -> int:
        return self._waiting.index(folder) + 1


def measure(results: Path, progress: Progress) -> None:
    """Write `queue.md`."""
    about = table.machine()
    with progress.step(f"Deciding {EVENTS:,} times for {GROUPS:,} groups"):
        ours, asked = _ours()
        plain, plain_asked = _plain()
    text = "\n".join(
        [
            "# Queue decisions",
            "",
            about,
            "",
            f"{GROUPS:,} groups, {LIMIT} places, {EVENTS:,} events in one thread; microseconds.",
            "",
            "| | a second | median | p99 | most |",
            "|---|--:|--:|--:|--:|",
            _row("decision", ours),
            _row("decision, plain list", plain),
            _row("place and estimated wait of one that waits", asked),
            _row("place, plain list", plain_asked),
        ]
    )
    table.write(results / "queue.md", text)
    progress.say(text)


def _row(name: str, seconds: list[float]) -> str:
    micro = [value * 1e6 for value in seconds]
    rate = len(seconds) / sum(seconds)
    return (
        f"| {name} | {rate:,.0f} | {statistics.median(micro):.1f} | {table.percentile(micro, 0.99):.1f} "
        f"| {max(micro):,.0f} |"
    )


def _timed(times: list[float], work: Callable[[], list[Action]]) -> list[Action]:
    begun = time.perf_counter()
    actions = work()
    times.append(time.perf_counter() - begun)
    return actions


def _ours() -> tuple[list[float], list[float]]:
    chance, decided = random.Random(1), list[float]()
    priorities = {f"g{number}": chance.choice(list(Priority)) for number in range(GROUPS)}
    schedule = Schedule(LIMIT, protection=PROTECTION, priority=priorities.__getitem__)
    running: list[str] = []
    now = 0.0

    def carry_out(actions: list[Action]) -> None:
        """Sessions begin; the random endings below stand for what follows everything else."""
        for action in actions:
            if isinstance(action, StartTask):
                running.append(action.folder)
            elif isinstance(action, Start):
                running.append(action.folder)
                carry_out(_timed(decided, partial(schedule.live, action.folder)))

    while len(decided) < EVENTS:
        now += 0.01
        folder = f"g{chance.randrange(GROUPS)}"
        draw = chance.random()
        if draw < 0.5 or not running:
            carry_out(_timed(decided, partial(schedule.message, folder, now)))
        elif draw < 0.55:
            carry_out(_timed(decided, partial(schedule.task, folder, "t", now)))
        elif draw < 0.75:
            carry_out(_timed(decided, partial(schedule.idle, chance.choice(running), now)))
        else:
            last = chance.randrange(len(running))
            running[last], running[-1] = running[-1], running[last]
            carry_out(_timed(decided, partial(schedule.ended, running.pop(), Ending.DONE, now)))
    return decided, _asked(schedule, now)


def _asked(schedule: Schedule, now: float) -> list[float]:
    times: list[float] = []
    for folder in (f"g{number}" for number in range(GROUPS)):
        begun = time.perf_counter()
        if schedule.position(folder) is not None:
            schedule.estimated_wait(folder, now)
            times.append(time.perf_counter() - begun)
    return times


def _plain() -> tuple[list[float], list[float]]:
    chance, decided, asked = random.Random(1), list[float](), list[float]()
    queue, running = Plain(LIMIT), list[str]()
    while len(decided) < EVENTS:
        folder = f"g{chance.randrange(GROUPS)}"
        ends = bool(running) and chance.random() >= 0.67
        if ends:
            last = chance.randrange(len(running))
            running[last], running[-1] = running[-1], running[last]
            folder = running.pop()
        begun = time.perf_counter()
        started = queue.ended(folder) if ends else queue.message(folder)
        decided.append(time.perf_counter() - begun)
        if started is not None:
            running.append(started)
    for folder in queue._waiting:  # noqa: SLF001 - our own, above
        begun = time.perf_counter()
        queue.position(folder)
        asked.append(time.perf_counter() - begun)
    return decided, asked
