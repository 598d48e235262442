"""Chats the networks told us about, registered or not: who may be added, and under which address."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa

from nanoclaw_runtime.store.database import Database
from nanoclaw_runtime.store.records import Chat
from nanoclaw_runtime.store.schema import chats

_NAME_LENGTH: Final = 200
# Characters; some networks let people call a chat as they like.


def see(connection: sa.Connection, chat: Chat) -> None:
    """Keep the newest activity and the newest name; what was told late, or without a name, changes neither."""
    name = chat.name and chat.name[:_NAME_LENGTH]
    known = connection.execute(sa.select(chats).where(chats.c.jid == chat.jid)).one_or_none()
    if known is None:
        values = {"jid": chat.jid, "name": name, "channel": chat.channel}
        connection.execute(sa.insert(chats).values(values | _activity(chat)))
    elif chat.last_activity >= known.last_activity:
        values = {"name": name or known.name, "channel": chat.channel or known.channel}
        connection.execute(sa.update(chats).where(chats.c.jid == chat.jid).values(values | _activity(chat)))


def _activity(chat: Chat) -> dict[str, object]:
    return {"is_group": chat.is_group, "last_activity": chat.last_activity}


class ChatBook:
    """The chats, a transaction a method. Each raises StoreFailed."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def seen(self, chat: Chat) -> None:
        """Something happened in a chat."""
        await self._database.transaction(lambda connection: see(connection, chat))

    async def list(self) -> Sequence[Chat]:
        """All of them, the newest activity first."""
        query = sa.select(chats).order_by(chats.c.last_activity.desc(), chats.c.jid)
        return await self._database.transaction(
            lambda connection: [Chat(**row) for row in connection.execute(query).mappings()]
        )
