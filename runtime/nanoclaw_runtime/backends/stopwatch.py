"""How long the steps of a start took."""

from __future__ import annotations

import asyncio


class Stopwatch:
    """Laps in milliseconds. All but `input` is spent waiting for the cluster."""

    def __init__(self) -> None:
        self._last = asyncio.get_running_loop().time()
        self.laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = asyncio.get_running_loop().time()
        self.laps[f"{name}_ms"] = round((now - self._last) * 1000, 1)
        self._last = now
