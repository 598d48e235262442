"""A Docker engine of one's own, for tests and measurements: started by hand, gone with its folder.

It has no bridge and touches no firewall rule, so its containers have no network.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from nanoclaw_dev import system
from nanoclaw_dev.errors import SetupError

START = 60
# Seconds until the engine answers.

STOP = 30
# Seconds until it has ended its containers and itself.


class DockerEngine:
    """As a context manager: running inside, stopped and its containers gone outside."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # A socket's path may have 108 bytes, so whatever has sockets is here.
        self._run = Path(f"/run/nanoclaw-docker-{os.getpid()}-{secrets.token_hex(3)}")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        """Its address, as DOCKER_HOST takes it."""
        return f"unix://{self._run}/socket"

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True)
        self._run.mkdir(mode=0o700)
        try:
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        # An engine that could not start leaves its data mounted onto themselves.
        subprocess.run(["umount", f"{self._folder}/data"], capture_output=True, check=False)
        for folder in (self._run, self._folder):
            shutil.rmtree(folder, ignore_errors=True)

    def start(self) -> None:
        """Return when it answers. Raises SetupError."""
        command = ["dockerd", "--iptables=false", "--bridge=none", f"--host={self.host}"]
        command += [
            f"--data-root={self._folder}/data",
            f"--exec-root={self._run}/exec",
            f"--pidfile={self._folder}/pid",
        ]
        log = self._folder / "log"
        with log.open("ab") as out:
            self._process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        until = time.monotonic() + START
        while subprocess.run(self.command("info"), capture_output=True, check=False).returncode:
            if self._process.poll() is not None or time.monotonic() > until:
                raise SetupError(f"The Docker engine did not start: {log.read_text()[-400:]}")
            time.sleep(0.2)

    def stop(self) -> None:
        """End it, and its containers with it."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP)
        self._process.kill()
        self._process.wait()

    def command(self, *arguments: str) -> list[str]:
        """A command line of the Docker client for this engine."""
        return ["docker", f"--host={self.host}", *arguments]

    def load(self, archive: Path) -> None:
        """Make an image known. Raises SetupError."""
        result = subprocess.run(
            self.command("load", "--input", str(archive)), capture_output=True, text=True, check=False
        )
        if result.returncode:
            raise SetupError(f"`docker load` failed: {result.stderr.strip()[-300:]}")


def missing() -> list[str]:
    """The packages without which there is no engine here."""
    return system.missing(system.DOCKER_PACKAGES)
