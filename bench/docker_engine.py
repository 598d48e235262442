"""A Docker engine of the benchmark's own: started by hand, without a bridge, gone with its folder."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from nanoclaw_dev.errors import SetupError

START = 60
# Seconds until the engine answers.


class DockerEngine:
    """As a context manager: running inside, stopped and its containers gone outside."""

    PACKAGES = {"docker.io": "dockerd"}  # noqa: RUF012 - the shape system.install_missing takes

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # A socket's path may have 108 bytes.
        self._socket = Path(f"/run/nanoclaw-bench-{os.getpid()}.sock")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True)
        log = (self._folder / "log").open("wb")
        command = ["dockerd", "--iptables=false", "--bridge=none", f"--host=unix://{self._socket}"]
        command += [
            f"--data-root={self._folder}/data",
            f"--exec-root={self._folder}/exec",
            f"--pidfile={self._folder}/pid",
        ]
        self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        until = time.monotonic() + START
        while subprocess.run(self.command("info"), capture_output=True, check=False).returncode:
            if self._process.poll() is not None or time.monotonic() > until:
                self.__exit__(None, None, None)
                raise SetupError(f"The Docker engine did not start: {(self._folder / 'log').read_text()[-400:]}")
            time.sleep(0.2)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait()
        self._socket.unlink(missing_ok=True)

    def command(self, *arguments: str) -> list[str]:
        """A command line of the Docker client for this engine."""
        return ["docker", f"--host=unix://{self._socket}", *arguments]

    def load(self, archive: Path) -> None:
        """Make an image known. Raises SetupError."""
        result = subprocess.run(
            self.command("load", "--input", str(archive)), capture_output=True, text=True, check=False
        )
        if result.returncode:
            raise SetupError(f"`docker load` failed: {result.stderr.strip()[-300:]}")
