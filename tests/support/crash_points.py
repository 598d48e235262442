"""`nanoclaw`, with points at which a test can hold it, to kill it just there.

A point is one function of the product. It is armed by a file of its name in the folder
NANOCLAW_POINTS; a process that gets there says so in a second file, and goes on only when the first
is gone. Everything else in the process goes on meanwhile, as it does in the moment before a crash.
"""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nanoclaw_runtime.backends.docker import DockerBackend
from nanoclaw_runtime.backends.docker_client import DockerClient
from nanoclaw_runtime.cli import main
from nanoclaw_runtime.controller.scheduler import Scheduler
from nanoclaw_runtime.ipc.mailbox import Mailbox
from nanoclaw_runtime.store.requests import RequestBook
from nanoclaw_runtime.store.store import Store

FOLDER = "NANOCLAW_POINTS"


@dataclass(frozen=True)
class Point:
    """Held behind the method, or before it. `wanted` looks at its arguments by name."""

    owner: type
    method: str
    before: bool = False
    wanted: Callable[[dict], bool] = lambda _arguments: True


POINTS = {
    "session recorded": Point(Store, "begin_session"),
    "container asked for": Point(DockerClient, "open", wanted=lambda arguments: arguments.get("stdin", False)),
    "input handed over": Point(DockerBackend, "start"),
    "session running": Point(Store, "session_started"),
    "answer recorded": Point(Store, "commit_output"),
    "follow-up written": Point(Store, "give", before=True),
    "follow-up recorded": Point(Store, "give"),
    "follow-up delivered": Point(Mailbox, "send"),
    "close begun": Point(Mailbox, "close", before=True),
    "close written": Point(Mailbox, "close"),
    "session ended": Point(Store, "end_session"),
    "run not logged": Point(Scheduler, "finished", before=True),
    "request carried out": Point(RequestBook, "carry_out"),
}


def held_file(folder: Path, name: str) -> Path:
    """There while a process is held at the point."""
    return folder / f"{name}.held"


async def _pass(folder: Path, name: str) -> None:
    if not (folder / name).exists():
        return
    held_file(folder, name).touch()
    while (folder / name).exists():
        await asyncio.sleep(0.005)
    held_file(folder, name).unlink(missing_ok=True)  # two may be held there


def _install(folder: Path, name: str, point: Point) -> None:
    original = getattr(point.owner, point.method)

    @functools.wraps(original)
    async def passing(*arguments, **named):
        if point.before:
            await _pass(folder, name)
        result = await original(*arguments, **named)
        if not point.before and point.wanted(named):
            await _pass(folder, name)
        return result

    setattr(point.owner, point.method, passing)


def held_main() -> None:
    """`nanoclaw` with every point in its place."""
    for known, place in POINTS.items():
        _install(Path(os.environ[FOLDER]), known, place)
    main()
