"""Shows in chats that an answer is being made: networks forget it after seconds, so it is told again and again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import structlog

from nanoclaw_runtime.channels.base import Channel

REPEAT: Final = 4.0
"""Seconds; Telegram shows it for five."""

_log = structlog.get_logger(__name__)


class Typing:
    """Whose chats show it. `run` it once; before and after that `set` does nothing, and it never raises."""

    def __init__(self, channels: Sequence[Channel], *, repeat: float = REPEAT) -> None:
        self._channels = channels
        self._repeat = repeat
        self._tasks: asyncio.TaskGroup | None = None
        self._shown: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            try:
                await asyncio.Event().wait()
            finally:
                self._tasks = None

    def set(self, jid: str, *, on: bool) -> None:
        """An answer is being made in this chat, or is not any more. A chat of no network is none of ours."""
        channel = next((channel for channel in self._channels if channel.owns(jid)), None)
        if channel is None or self._tasks is None or on is (jid in self._shown):
            return
        if on:
            self._shown[jid] = self._tasks.create_task(self._show(channel, jid), name=f"typing in {jid}")
        else:
            self._shown.pop(jid).cancel()
            self._tasks.create_task(_tell(channel, jid, on=False), name=f"no more typing in {jid}")

    async def _show(self, channel: Channel, jid: str) -> None:
        while True:
            await _tell(channel, jid, on=True)
            await asyncio.sleep(self._repeat)


async def _tell(channel: Channel, jid: str, *, on: bool) -> None:
    try:
        await channel.typing(jid, on=on)
    except Exception:  # noqa: BLE001 - a chat without an indicator is a chat all the same
        _log.exception("typing not shown", jid=jid)
