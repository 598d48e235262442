"""The whole host in one place: every part of the controller made, joined and run together.

The parts know each other only through what is handed over here. Where agents run, how groups are
declared and who serves the API is the caller's business (`app`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nanoclaw_runtime.backends.base import Backend
from nanoclaw_runtime.contract.config import ControllerConfig
from nanoclaw_runtime.controller.controller import Controller
from nanoclaw_runtime.controller.groups import GroupBook
from nanoclaw_runtime.controller.scheduler import Scheduler
from nanoclaw_runtime.controller.session import Surroundings
from nanoclaw_runtime.controller.status import Check
from nanoclaw_runtime.controller.volumes import GroupVolumes
from nanoclaw_runtime.store.registrations import RegistrationBook
from nanoclaw_runtime.store.store import Store
from nanoclaw_runtime.store.tasks import TaskBook
from nanoclaw_runtime.telemetry import Metrics


@dataclass(frozen=True)
class Means:
    """What a host is given."""

    config: ControllerConfig
    backend: Backend
    store: Store
    tree: Path
    credentials: Callable[[], Mapping[str, str]]
    """What agents get on stdin, read anew for each session."""
    metrics: Metrics
    volumes: GroupVolumes
    checks: Sequence[Callable[[], Check]] = ()
    """Of the place where agents run; part of the controller's own."""


class NoNetworks:
    """HTTP is the only way in and out."""

    def owns(self, jid: str) -> bool:  # noqa: ARG002
        return False

    def typing(self, jid: str, *, on: bool) -> None:
        """Nobody sees it."""


class Host:
    """One NanoClaw host. `run` is its life."""

    def __init__(self, means: Means) -> None:
        config, store = means.config, means.store
        self._means = means
        networks = NoNetworks()
        self.groups = GroupBook(
            RegistrationBook(store.database),
            allowed=config.registration,
            volumes=means.volumes,
            is_network=networks.owns,
        )
        self.tasks = Scheduler(
            TaskBook(store.database),
            zone=config.timezone,
            group=self.groups.by_folder,
            enqueue=self._task_due,
        )
        around = Surroundings(
            config=config,
            backend=means.backend,
            store=store,
            tree=means.tree,
            credentials=means.credentials,
            metrics=means.metrics,
        )
        self.controller = Controller(around, self.groups, self.tasks, networks, checks=means.checks)
        self.groups.on_change = self.controller.groups_changed

    async def run(self) -> None:
        """Everything at once, until cancelled; what runs by itself begins when old sessions are found again."""
        await self.groups.load()
        async with asyncio.TaskGroup() as parts:
            parts.create_task(self.controller.run(), name="controller")
            await self.controller.recovered.wait()
            parts.create_task(self.groups.run(), name="storage of added groups")
            parts.create_task(self.tasks.run(), name="scheduler")

    def _task_due(self, folder: str, task: str) -> None:
        self.controller.task_due(folder, task)
