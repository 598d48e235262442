"""What channels bring in: a text of a group's chat becomes a message, everything else only a chat we know of.

Whether a message is answered is the controller's decision, not this.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from nanoclaw_runtime.channels.base import ChatSeen, IncomingMessage
from nanoclaw_runtime.store.chats import ChatBook
from nanoclaw_runtime.store.records import Chat


class Accept(Protocol):
    """`Controller.accept`, as far as it is used here."""

    async def __call__(
        self, folder: str, text: str, *, sender: str, sender_name: str, client_id: str | None, at: datetime | None
    ) -> object:
        """Commit a message that was written at `at`, once for its client id. Raises StoreFailed."""
        ...


class ChannelInbound:
    """`channels.base.Inbound` in front of a controller."""

    def __init__(
        self, accept: Accept, folder_of: Callable[[str], str | None], chats: ChatBook, *, assistant_name: str
    ) -> None:
        """`folder_of` tells the group that has a chat, None for a chat of nobody."""
        self._accept = accept
        self._folder_of = folder_of
        self._chats = chats
        self._own = f"{assistant_name}:"

    async def message(self, message: IncomingMessage) -> None:
        """Commit a text, once. A blank one is ignored, and one the assistant wrote itself, as in NanoClaw."""
        folder, text = self._folder_of(message.jid), _characters(message.text)
        if folder is None or not text.strip() or text.startswith(self._own):
            return
        await self._accept(
            folder,
            text,
            sender=message.sender,
            sender_name=_characters(message.sender_name),
            client_id=f"{message.jid}/{message.id}",  # a group that moves to another chat keeps its messages
            at=message.at,
        )

    async def chat(self, seen: ChatSeen) -> None:
        name = None if seen.name is None else _characters(seen.name)
        await self._chats.seen(Chat(seen.jid, name, seen.channel, seen.is_group, seen.at))


def _characters(text: str) -> str:
    """`text` without halves of surrogate pairs, which JSON can carry and nothing else."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
