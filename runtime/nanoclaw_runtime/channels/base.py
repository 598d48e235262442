"""The protocol of a chat network, and nothing about any one of them.

What comes in is committed before the network is told that we have it, so a crash makes it come
again and its id keeps it single. What goes out is given to `send` by the courier, one piece of a
chat's texts after the other, until it is taken or refused for good.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from nanoclaw_runtime.domain.errors import NanoclawError


class ChannelFailed(NanoclawError):
    """A text was not taken this time; it is tried again."""

    def __init__(self, text: str, *, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.retry_after = retry_after
        """Seconds the network asked us to wait, if it did."""


class ChannelRefused(NanoclawError):
    """A text will never be taken: the chat is gone, or we were put out of it."""


@dataclass(frozen=True)
class IncomingMessage:
    """A text somebody wrote in a chat."""

    jid: str
    id: str
    """The network's own id, single within the chat."""
    sender: str
    sender_name: str
    text: str
    at: datetime


@dataclass(frozen=True)
class ChatSeen:
    """A chat exists and something happened in it."""

    jid: str
    at: datetime
    name: str | None
    channel: str
    is_group: bool


class Inbound(Protocol):
    """Where channels bring what comes in; returns when it is committed."""

    async def message(self, message: IncomingMessage) -> None:
        """A chat that belongs to no group is ignored. Raises StoreFailed."""
        ...

    async def chat(self, seen: ChatSeen) -> None: ...


class Channel(Protocol):
    """One chat network."""

    @property
    def name(self) -> str: ...

    @property
    def connected(self) -> bool: ...

    def owns(self, jid: str) -> bool:
        """Whether chats with this address are of this network."""
        ...

    async def run(self, inbound: Inbound) -> None:
        """Connect, stay connected, bring in what comes; until cancelled. Never raises for what the network does."""
        ...

    def parts(self, text: str, *, sender: str | None = None) -> Sequence[str]:
        """The pieces in which the network takes this text, always the same ones, and who says it where that is told."""
        ...

    async def send(self, jid: str, part: str) -> None:
        """Returns when the network has taken the piece. Raises ChannelFailed or ChannelRefused.

        A piece that was taken although the network's word of it got lost is sent again.
        """
        ...

    async def typing(self, jid: str, *, on: bool) -> None:
        """Show that an answer is being made, or that it is not any more. Never raises for what the network does."""
        ...
