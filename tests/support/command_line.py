"""`nanoclaw` as people run it: a process for each line, told by its environment where to go."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

COMMAND = (sys.executable, "-c", "from nanoclaw_runtime.cli import main; main()")


class CommandLine:
    """A terminal in which `environment` is set."""

    def __init__(self, **environment: str) -> None:
        self.environment = {"PATH": os.environ["PATH"], "USER": "ada", "COLUMNS": "200"} | environment

    async def run(self, *line: object) -> tuple[int, str, str]:
        """Exit status, stdout and stderr of a command."""
        process = await asyncio.create_subprocess_exec(
            *COMMAND,
            *map(str, line),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self.environment,
        )
        out, err = await process.communicate()
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()

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
