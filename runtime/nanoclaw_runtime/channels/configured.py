"""The channels an installation has. A network's library is loaded only when the network is configured."""

from __future__ import annotations

from collections.abc import Callable

from nanoclaw_runtime.channels.base import Channel
from nanoclaw_runtime.contract import wire
from nanoclaw_runtime.contract.config import ChannelSettings


def configured(
    settings: ChannelSettings,
    secret: Callable[[str], str | None],
    *,
    assistant_name: str,
    turn: Callable[[], bool] = lambda: True,
) -> list[Channel]:
    """`secret` reads a credential by its key, each time it is needed.

    Where several processes have the same channels, `turn` tells whether it is this one that brings in what comes.
    """
    channels: list[Channel] = []
    if settings.telegram is not None:
        from nanoclaw_runtime.channels.telegram import Telegram  # noqa: PLC0415 - 15 MiB of library

        token = wire.TELEGRAM_TOKEN_KEY
        channels.append(Telegram(settings.telegram, lambda: secret(token), assistant_name=assistant_name, turn=turn))
    return channels
