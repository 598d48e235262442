"""Somebody who talks to an installation, through the API server as its users do, and waits for what comes of it."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

from nanoclaw_runtime.api.schemas import AcceptedView, EventView
from nanoclaw_runtime.cli.errors import NotReachable
from nanoclaw_runtime.cli.remote import RECONNECT, Remote
from nanoclaw_runtime.kube.client import KubeClient
from nanoclaw_runtime.store.records import EventType, RecordedState


@dataclass
class Chat:
    """A person, or several, in the installation's chats."""

    remote: Remote
    group: str | None = None
    """Whose events are looked at; of all groups where it is None, which a controller a node cannot tell apart."""

    @property
    def client(self) -> KubeClient:
        return self.remote.cluster.client

    @property
    def namespace(self) -> str:
        return self.remote.cluster.namespace

    async def send(self, group: str, text: str) -> AcceptedView:
        return await self.remote.send(group, text, sender="ann", client_id=secrets.token_hex(8))

    async def until(self, matches: Callable[[EventView], bool], *, after: int) -> EventView:
        """The first event behind `after` that matches, however often the controller goes away meanwhile."""
        while True:
            try:
                async with contextlib.aclosing(self.events(after)) as events:
                    async for event in events:
                        if matches(event):
                            return event
            except NotReachable:
                await asyncio.sleep(RECONNECT)

    def events(self, after: int) -> AsyncGenerator[EventView]:
        """Every event behind `after`, without an end."""
        return self.remote.events(self.group, after=after)

    async def answer(self, sent: AcceptedView) -> EventView:
        """The `answer` event that finishes the message."""
        return await self.until(
            lambda event: event.type is EventType.ANSWER and sent.id in event.payload["messages"], after=sent.event
        )

    async def running(self, group: str, *, after: int) -> EventView:
        """The event that tells that a session of the group has its input."""
        return await self.until(
            lambda event: (
                event.type is EventType.SESSION
                and event.group == group
                and event.payload["state"] == RecordedState.RUNNING
            ),
            after=after,
        )

    async def over(self, session: str, *, after: int) -> EventView:
        """The event that tells the end of a session."""
        return await self.until(
            lambda event: (
                event.type is EventType.SESSION
                and event.payload["session"] == session
                and event.payload["state"] in {RecordedState.ENDED, RecordedState.FAILED}
            ),
            after=after,
        )
