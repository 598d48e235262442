"""Reads `text/event-stream` in any chunking."""

from __future__ import annotations

from collections.abc import Iterator

from nanoclaw_runtime.api.schemas import EventView


class StreamReader:
    """Feed it bytes, get whole events; comments and fields it does not need are skipped."""

    def __init__(self) -> None:
        self.position: int | None = None
        """Behind which event the stream goes on; None while it has not said so."""
        self._rest = b""
        self._number: int | None = None
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> Iterator[EventView]:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                self._data.append(line[5:].strip().decode())
            elif line.startswith(b"id:"):
                self._number = int(line[3:])
            elif not line.strip():
                self.position = self._number
                if self._data:
                    data, self._data = "\n".join(self._data), []
                    yield EventView.model_validate_json(data)
