"""A tree on a Docker engine, and the backends that work on it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from nanoclaw_dev import docker_engine, images, system
from nanoclaw_dev.docker_engine import DockerEngine
from nanoclaw_dev.errors import SetupError
from nanoclaw_dev.progress import Progress
from nanoclaw_runtime.backends.docker import DockerBackend
from nanoclaw_runtime.backends.docker_client import DockerClient
from nanoclaw_runtime.contract import labels
from tests.support.cluster import unavailable

PATIENCE = 90.0


@contextlib.contextmanager
def own_engine(folder: Path) -> Iterator[DockerEngine]:
    """An engine of the tests' own, where this machine can run one; its containers have no network."""
    try:
        system.check_root()
    except SetupError as error:
        unavailable(str(error))
    if missing := docker_engine.missing():
        unavailable(f"not installed: {', '.join(missing)}; `make test` installs what is missing")
    with DockerEngine(folder) as running:
        yield running


def with_echo_agent(engine: DockerEngine) -> str:
    """The reference agent's image, now on the engine."""
    try:
        _, agent = images.build_images(Progress())
    except SetupError as error:
        unavailable(str(error))
    engine.load(agent.archive)
    return agent.reference


class DockerSite:
    """See `backend_suite.Site`."""

    def __init__(self, engine: DockerEngine, tree: Path, backend: DockerBackend) -> None:
        self.engine, self.tree, self.backend = engine, tree, backend

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, engine: DockerEngine, tree: Path, *, keep: float = 300) -> AsyncIterator[DockerSite]:
        await asyncio.to_thread(tree.mkdir, parents=True, exist_ok=True)
        async with at_work(engine, tree, keep=keep) as backend:
            site = cls(engine, tree, backend)
            try:
                yield site
            finally:
                for name in site.containers():
                    site.docker("rm", "--force", name)

    def another(self) -> contextlib.AbstractAsyncContextManager[DockerBackend]:
        return at_work(self.engine, self.tree)

    async def alive(self) -> list[str]:
        return [name for name in self.containers() if self.inspected(name)["State"]["Status"] != "exited"]

    async def has_agent(self, session: str) -> None:
        async with asyncio.timeout(PATIENCE):
            while not any(name.endswith(f"-{session}") for name in self.containers()):
                await asyncio.sleep(0.02)

    def containers(self) -> list[str]:
        """The names of this tree's containers, ended ones too."""
        own = f"label={labels.INSTALLATION}={self.backend.host.installation}"
        return self.docker("ps", "--all", "--filter", own, "--format", "{{.Names}}").split()

    def inspected(self, name: str) -> dict:
        [found] = json.loads(self.docker("inspect", "--type", "container", name))
        return found

    def docker(self, *arguments: str) -> str:
        return subprocess.run(self.engine.command(*arguments), capture_output=True, text=True, check=True).stdout


@contextlib.asynccontextmanager
async def at_work(engine: DockerEngine, tree: Path, *, keep: float = 300) -> AsyncIterator[DockerBackend]:
    backend = DockerBackend(DockerClient(engine.host), tree, keep=keep, network="none")
    task = asyncio.create_task(backend.run(), name="backend")
    try:
        yield backend
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
