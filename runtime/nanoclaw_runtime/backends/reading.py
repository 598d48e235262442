"""One pass over an agent's output, whichever stream or log it comes from."""

from __future__ import annotations

from nanoclaw_runtime.contract.wire import ContainerOutput
from nanoclaw_runtime.domain.model import AgentOutput
from nanoclaw_runtime.ipc.markers import MarkerParser


class Reading:
    """Reads from the beginning, counts every output, and gives those from `following` on."""

    def __init__(self, following: int) -> None:
        self._parser = MarkerParser()
        self._following = following
        self.count = 0

    def feed(self, data: bytes) -> list[AgentOutput]:
        return self._numbered(self._parser.feed(data))

    def close(self) -> list[AgentOutput]:
        return self._numbered(self._parser.close())

    def _numbered(self, found: list[ContainerOutput]) -> list[AgentOutput]:
        numbered = [AgentOutput(self.count + place, output) for place, output in enumerate(found)]
        self.count += len(found)
        return [output for output in numbered if output.ordinal >= self._following]
