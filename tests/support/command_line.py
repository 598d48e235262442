"""`nanoclaw` as people run it: a process for each line, told by its environment where to go."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nanoclaw_runtime.cli import main
from tests.support.forked import Forked

COMMAND = (sys.executable, "-c", "from nanoclaw_runtime.cli import main; main()")


async def run(*line: object, environment: Mapping[str, str]) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of a command; one that is not waited for is killed."""
    with tempfile.NamedTemporaryFile("r") as out, tempfile.NamedTemporaryFile("r") as err:
        process = await Forked.start(main, *line, environment=environment, out=Path(out.name), err=Path(err.name))
        try:
            status = await process.wait()
        finally:
            process.kill()
        return status, out.read(), err.read()


class CommandLine:
    """A terminal in which `environment` is set."""

    def __init__(self, **environment: str) -> None:
        self.environment = {"PATH": os.environ["PATH"], "USER": "ada", "COLUMNS": "200"} | environment

    async def run(self, *line: object) -> tuple[int, str, str]:
        """Exit status, stdout and stderr of a command."""
        return await run(*line, environment=self.environment)

    async def done(self, *line: object) -> str:
        """What a command that succeeds prints."""
        status, out, err = await self.run(*line)
        assert status == 0, err
        return out

    async def told(self, *line: object) -> Any:
        """The same as JSON."""
        return json.loads(await self.done(*line, "-o", "json"))

    async def say(self, group: str, text: str) -> str:
        """The answer to a message."""
        return (await self.done("send", group, text, "--follow")).removesuffix("\n")

    async def sessions(self) -> list[str]:
        return [one["session"] for one in await self.told("sessions")]
