"""Texts on their way to chat networks: posted in the transaction that made them, kept until they are taken."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from nanoclaw_runtime.store.records import PostState
from nanoclaw_runtime.store.schema import outbox


def post(
    connection: sa.Connection,
    jid: str,
    folder: str,
    text: str,
    *,
    origin: str,
    at: datetime,
    sender: str | None = None,
) -> bool:
    """Put a text into the outbox, within a transaction of the caller; False when `origin` was posted before."""
    if connection.scalar(sa.select(outbox.c.id).where(outbox.c.origin == origin)) is not None:
        return False
    connection.execute(
        sa.insert(outbox).values(
            jid=jid,
            folder=folder,
            text=text,
            sender=sender,
            origin=origin,
            state=PostState.WAITING,
            attempts=0,
            next_attempt=at,
            created=at,
        )
    )
    return True
