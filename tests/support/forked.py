"""`nanoclaw` in a process of its own that need not import it anew: it is forked of one that has.

Arguments, environment, output, exit status and signals are those of a process that somebody starts; only its first
second of imports is saved, for tests that start dozens. Tests of a start itself, or of output while it comes, run
`command_line.COMMAND`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import Callable, Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path

from tests.support.forkserver import FORKS

_POLLS = threading.Lock()
"""Whoever starts a process asks of all others whether they ended, and of two who ask at once one is told 255."""


class Forked:
    """As much of `asyncio.subprocess.Process` as tests use."""

    def __init__(self, process: BaseProcess) -> None:
        self._process = process

    @classmethod
    async def start(
        cls, main: Callable[[], None], *arguments: object, environment: Mapping[str, str], out: Path, err: Path
    ) -> Forked:
        """`main` runs as if this line had been typed in this environment; what it writes is appended to the files."""
        line = ["nanoclaw", *map(str, arguments)]
        process = FORKS.Process(target=_become, args=(main, line, dict(environment), out, err), daemon=True)
        await asyncio.to_thread(_start, process)  # the first one waits for the imports
        return cls(process)

    @property
    def returncode(self) -> int | None:
        with _POLLS:
            return self._process.exitcode

    def send_signal(self, number: int) -> None:
        assert self._process.pid is not None
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, number)

    def kill(self) -> None:
        self._process.kill()

    async def wait(self) -> int:
        """The exit status, once it has ended."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._process.sentinel, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(self._process.sentinel)
        status = await asyncio.to_thread(self._joined)
        assert status is not None
        return status

    def _joined(self) -> int | None:
        with _POLLS:
            self._process.join()
            return self._process.exitcode


def _start(process: BaseProcess) -> None:
    with _POLLS:
        process.start()


def _become(main: Callable[[], None], line: list[str], environment: dict[str, str], out: Path, err: Path) -> None:
    for stream, path in ((1, out), (2, err)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(file, stream)
        os.close(file)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv[:] = line
    main()
