"""Texts on their way to chat networks, and the chats the networks told us about."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.exceptions import HTTPException

from nanoclaw_runtime.api.app import Number, PageSize, Position
from nanoclaw_runtime.api.outbox_schemas import ChatList, ChatView, PostList, PostView
from nanoclaw_runtime.store.chats import ChatBook
from nanoclaw_runtime.store.outbox import Outbox
from nanoclaw_runtime.store.records import PostState


def router(outbox: Outbox, chats: ChatBook) -> APIRouter:
    """The routes of what chat networks are given, and of where."""
    router = APIRouter()

    @router.get("/outbox")
    async def posts(
        group: Annotated[str | None, Query()] = None,
        state: Annotated[PostState | None, Query()] = None,
        after: Position = 0,
        limit: PageSize = 100,
    ) -> PostList:
        """Of one group or of all, oldest first."""
        found = await outbox.list(folder=group, state=state, after=after, limit=limit)
        return PostList(posts=[PostView.model_validate(post) for post in found])

    @router.post("/outbox/{number}/retry", status_code=202)
    async def retry(number: Number) -> PostView:
        """Try a text at once that failed, or that waits for its next try."""
        post = await outbox.retry(number, at=datetime.now(UTC))
        if post is None:
            raise HTTPException(404, f"there is no text {number}; GET /v1/outbox lists them")
        if post.state is PostState.SENT:
            raise HTTPException(409, f"text {number} was delivered; send a new one")
        return PostView.model_validate(post)

    @router.get("/chats")
    async def known() -> ChatList:
        """Whether a group has them or not; the newest activity first."""
        return ChatList(chats=[ChatView.model_validate(chat) for chat in await chats.list()])

    return router
