"""Texts for chat networks, and chats, as the API tells them."""

from __future__ import annotations

from datetime import datetime

from nanoclaw_runtime.api.schemas import Answer
from nanoclaw_runtime.store.records import PostState


class PostView(Answer):
    id: int
    jid: str
    folder: str
    """The group it comes from."""
    text: str
    sender: str | None
    """A name other than the assistant's, where an agent asked for one."""
    state: PostState
    parts: int
    """Pieces of the text the network has taken."""
    attempts: int
    """Tries that failed since a piece was last taken."""
    next_attempt: datetime
    created: datetime
    sent: datetime | None
    error: str | None
    """Why the last try failed."""


class PostList(Answer):
    posts: list[PostView]


class ChatView(Answer):
    jid: str
    name: str | None
    channel: str | None
    is_group: bool
    last_activity: datetime


class ChatList(Answer):
    chats: list[ChatView]
