"""When each group was last written to, asked again and again: each message is read once."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from nanoclaw_runtime.store.store import Store


class LastMessages:
    """The time of each group's last message; the time it was written, which may be before it came."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._seen = 0
        self._latest: dict[str, datetime] = {}

    async def __call__(self) -> Mapping[str, datetime]:
        """By folder, of every group that ever had a message."""
        for folder, (number, created) in (await self._store.newest(after=self._seen)).items():
            self._seen = max(self._seen, number)
            self._latest[folder] = max(created, self._latest.get(folder, created))
        return self._latest
