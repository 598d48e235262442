"""Messages that wait here for a group of another member are passed on to it.

A chat network brings everything to one member, and a group that moved leaves behind what was not
answered. Each message keeps its own id, or gets one that names this node and the moment it came, so one
that is sent again because the answer got lost is stored once. They wait here until the other member takes them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

import httpx
import structlog

from nanoclaw_runtime.api.places import Place
from nanoclaw_runtime.domain.errors import StoreFailed
from nanoclaw_runtime.store.records import Message
from nanoclaw_runtime.store.store import Store

LOOK: Final = 1.0
"""Seconds from one look to the next."""
ANSWER: Final = 10.0
"""Seconds another member may take for one message."""

_log = structlog.get_logger(__name__)


class Handover:
    """`run` is its life. `place` tells where a group is that another member has."""

    def __init__(
        self,
        store: Store,
        http: httpx.AsyncClient,
        token: Callable[[], str],
        place: Callable[[str], Place | None],
        node: str,
    ) -> None:
        self._store, self._http, self._token, self._place, self._node = store, http, token, place, node
        self._trouble: dict[str, str] = {}

    async def run(self) -> None:
        """Look, pass on, look again, until cancelled."""
        while True:
            try:
                await self.look()
            except StoreFailed as error:
                _log.error("messages of other nodes wait", reason=str(error))
            await asyncio.sleep(LOOK)

    async def look(self) -> None:
        """Pass on what can be passed on now, each group's messages in their order."""
        for folder in await self._store.folders_waiting():
            if self._place(folder) is not None:
                await self._pass_on(folder, await self._store.waiting(folder))

    async def _pass_on(self, folder: str, messages: Sequence[Message]) -> None:
        for message in messages:
            place = self._place(folder)
            if place is None:
                return  # it came to us meanwhile, and a session may begin with what is left
            if trouble := await self._refusal(place, message):
                if self._trouble.get(folder) != trouble:
                    _log.warning("messages wait for another node", group=folder, node=place.node, reason=trouble)
                self._trouble[folder] = trouble
                return
            await self._store.handed_over(message.id)
        self._trouble.pop(folder, None)
        _log.info("messages handed over", group=folder, messages=len(messages))

    async def _refusal(self, place: Place, message: Message) -> str | None:
        """Why the other member did not take it; None when it has it."""
        if not place.address:
            return place.trouble
        try:
            response = await self._http.post(
                f"http://{place.address}/v1/groups/{message.folder}/messages",
                json=_body(message, self._node),
                headers={"Authorization": f"Bearer {self._token()}"},
                timeout=ANSWER,
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return f"{place.trouble}: {str(error) or type(error).__name__}"
        return None if response.status_code == 202 else f"status {response.status_code}: {response.text[:200]}"


def _body(message: Message, node: str) -> dict[str, Any]:
    return {
        "text": message.content,
        "sender": message.sender,
        "senderName": message.sender_name,
        "id": message.client_id or _id(message, node),
    }


def _id(message: Message, node: str) -> str:
    """The same each time, and no other message's: with a new disk the node's numbers begin again."""
    return f"handed-over/{node}/{message.id}/{message.created.timestamp():.6f}"[-128:]
