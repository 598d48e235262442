"""What the line gives every command: where the installation is, and how to print."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from nanoclaw_runtime.cli.installation import Target


class Output(StrEnum):
    TABLE = "table"
    JSON = "json"


@dataclass(frozen=True)
class Options:
    """The common options of one invocation; `context.obj` of every command."""

    target: Target
    output: Output

    @property
    def json(self) -> bool:
        return self.output is Output.JSON
