"""What has to hold on a Docker host for messages to be answered: engine, agent image, tree.

Looked at every few seconds in the background, because the API asks for checks without waiting.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from nanoclaw_runtime.backends.docker_client import DockerClient, DockerFailed
from nanoclaw_runtime.contract import layout
from nanoclaw_runtime.contract.config import AgentSettings
from nanoclaw_runtime.controller.status import Check

LOOK: Final = 10.0
"""Seconds between two looks."""

LITTLE_SPACE: Final = 256 * 1024 * 1024
"""Bytes free on the tree's disk below which a database or an agent may fail any moment."""


class Health:
    """The last look's findings; its owner keeps `run` in a task."""

    def __init__(self, docker: DockerClient, agent: AgentSettings, tree: Path) -> None:
        self._docker, self._agent, self._tree = docker, agent, tree
        self._engine = Check("docker engine", ok=False, detail="not looked at yet")
        self._image = Check("agent image", ok=False, detail="not looked at yet")

    @property
    def checks(self) -> Sequence[Callable[[], Check]]:
        return (lambda: self._engine, lambda: self._image, lambda: tree_check(self._tree))

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            self._engine = await self._look_at_engine()
            if self._engine.ok:
                self._image = await self._look_at_image()
            await asyncio.sleep(LOOK)

    async def _look_at_engine(self) -> Check:
        try:
            return Check("docker engine", ok=True, detail=f"answers, version {await self._docker.ready()}")
        except DockerFailed as error:
            return Check("docker engine", ok=False, detail=str(error))

    async def _look_at_image(self) -> Check:
        image = self._agent.image
        try:
            present = await self._docker.has_image(image)
        except DockerFailed as error:
            return Check("agent image", ok=False, detail=str(error))
        if present:
            return Check("agent image", ok=True, detail=f"{image} is here")
        if self._agent.image_pull_policy == "Never":
            return Check("agent image", ok=False, detail=f"{image} is not here and never pulled; `docker load` it")
        return Check("agent image", ok=True, detail=f"{image} is pulled when the first agent starts")


def tree_check(tree: Path) -> Check:
    """Whether the tree can be written to, and for a while."""
    for folder in ("groups", "data/ipc", "data/sessions", layout.STORE_DIR):
        if not os.access(tree / folder, os.W_OK | os.X_OK):
            return Check("tree", ok=False, detail=f"{tree / folder} cannot be written; correct its owner")
    free = shutil.disk_usage(tree).free
    if free < LITTLE_SPACE:
        return Check("tree", ok=False, detail=f"{free // 2**20} MiB are free on the disk of {tree}; make room")
    return Check("tree", ok=True, detail=f"{tree}, {free / 2**30:.1f} GiB free")
