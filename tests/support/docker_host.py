"""`nanoclaw host` as people run it: a stack file, a tree, a process on a real engine, and the other commands."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import yaml

from nanoclaw_dev.docker_engine import DockerEngine
from nanoclaw_runtime.cli import main
from tests.support.command_line import COMMAND, CommandLine
from tests.support.forked import Forked
from tests.support.ports import free_port


class DockerHost(CommandLine):
    """A stack file, a tree, and the process that serves them."""

    def __init__(self, engine: DockerEngine, folder: Path, image: str) -> None:
        self.port = free_port()
        self.tree, self.stack_file = folder / "tree", folder / "Pulumi.here.yaml"
        super().__init__(
            HOME=str(folder),
            DOCKER_HOST=engine.host,
            ANTHROPIC_API_KEY="sk-secret",
            NANOCLAW_URL=f"http://127.0.0.1:{self.port}",
            NANOCLAW_TOKEN_FILE=str(self.tree / "store" / "api-token"),
        )
        self.settings: dict[str, Any] = {
            "cluster": {"kubeconfig": "~/.kube/config"},
            "controller": {"image": "registry.example/nanoclaw/runtime:1"},
            "runtime": {"agent": {"image": image, "imagePullPolicy": "Never"}, "idleTimeout": 600},
            "groups": [{"folder": "main", "name": "Main"}],
        }
        self.process: Forked | None = None

    @classmethod
    @contextlib.asynccontextmanager
    async def on(cls, engine: DockerEngine, folder: Path, image: str) -> AsyncIterator[DockerHost]:
        """A host that is yet to be started; nothing of it stays on the engine."""
        host = cls(engine, folder, image)
        try:
            yield host
        finally:
            if host.process is not None and host.process.returncode is None:
                await host.kill(signal.SIGTERM)
            await asyncio.to_thread(_remove_containers, engine)

    def write(self) -> None:
        document = {"config": {"nanoclaw:platform": "kubernetes", "nanoclaw:settings": self.settings}}
        self.stack_file.write_text(yaml.safe_dump(document))

    async def start(self) -> None:
        self.write()
        log, line = self.stack_file.with_name("host.log"), self._line()
        self.process = await Forked.start(main, *line, environment=self.environment, out=log, err=log)
        async with asyncio.timeout(120):
            while (await self.run("groups"))[0]:  # the first tries come before it listens
                assert self.process.returncode is None, log.read_text()

    async def kill(self, number: int = signal.SIGKILL) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        await self.process.wait()

    async def refused(self) -> str:
        """What a start that cannot work says."""
        process = await asyncio.create_subprocess_exec(
            *COMMAND, *self._line(), stderr=asyncio.subprocess.PIPE, env=self.environment
        )
        _, err = await process.communicate()
        assert process.returncode == 1
        return err.decode()

    def _line(self) -> tuple[str | Path, ...]:
        return "host", self.stack_file, "--tree", self.tree, "--port", str(self.port), "--network", "none"


def _remove_containers(engine: DockerEngine) -> None:
    listed = subprocess.run(engine.command("ps", "-aq"), capture_output=True, text=True, check=True).stdout.split()
    if listed:
        subprocess.run(engine.command("rm", "-f", *listed), capture_output=True, check=True)
