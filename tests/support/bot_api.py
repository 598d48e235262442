"""A server that speaks Telegram's Bot API on loopback: updates, acknowledgements, and every way to fail."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections import defaultdict, deque

from aiohttp import web

TOKEN = "123456:secret-of-the-bot"
WRITTEN = 1_770_000_000
# Seconds since 1970 of every message.


class BotApi:
    """One bot, `@andy_bot`. Use it as an async context manager; `url` is its base address."""

    def __init__(self) -> None:
        self.token = TOKEN
        self.waiting: list[dict] = []
        """Updates that nobody acknowledged."""
        self.offsets: list[int] = []
        """What was asked for, call by call; asking for an update acknowledges those before it."""
        self.calls: list[str] = []
        self.sent: list[tuple[int, str]] = []
        self.actions: list[tuple[int, str]] = []
        self._troubles: dict[str, deque] = defaultdict(deque)
        self._numbers = itertools.count(1000)
        self._changed = asyncio.Condition()
        self._closing = False
        self._methods = {
            "getMe": self._get_me,
            "getUpdates": self._get_updates,
            "sendMessage": self._send_message,
            "sendChatAction": self._send_chat_action,
        }

    async def __aenter__(self):
        app = web.Application()
        app.router.add_post("/bot{token}/{method}", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_):
        self._closing = True
        await self._tell()
        await self._runner.cleanup()

    # What people do

    async def writes(self, text=None, *, chat=42, title=None, name="Ann", kind="message", **fields) -> None:
        """A message of a person; with a title, in a group."""
        number = next(self._numbers)
        place = {"id": chat, "type": "supergroup", "title": title} if title else {"id": chat, "type": "private"}
        message = {
            "message_id": number,
            "date": WRITTEN,
            "chat": place if title else place | {"first_name": name},
            "from": {"id": 7, "is_bot": False, "first_name": name},
            **({} if text is None else {"text": text}),
            **fields,
        }
        await self.happens({"update_id": number, kind: message})

    async def happens(self, update: dict) -> None:
        self.waiting.append(update)
        await self._tell()

    # What the network does

    def refuses(self, method, status, description, **parameters) -> None:
        """The next call of this method fails like this."""
        body = {"ok": False, "error_code": status, "description": description}
        self._troubles[method].append((status, body | ({"parameters": parameters} if parameters else {})))

    def hangs_up(self, method, *, taken=False) -> None:
        """The next call of this method gets no answer, though it may have been carried out."""
        self._troubles[method].append("taken" if taken else "lost")

    def holds(self, method) -> asyncio.Event:
        """The next call of this method is carried out when the event is set."""
        going_on = asyncio.Event()
        self._troubles[method].append(going_on)
        return going_on

    async def until(self, condition) -> None:
        async with self._changed:
            await self._changed.wait_for(condition)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        method = request.match_info["method"]
        form = await request.post()
        fields = {key: _value(value) for key, value in form.items()}
        self.calls.append(method)
        await self._tell()
        trouble = self._troubles[method].popleft() if self._troubles[method] else None
        try:
            if request.match_info["token"] != self.token:
                return web.json_response({"ok": False, "error_code": 401, "description": "Unauthorized"}, status=401)
            if isinstance(trouble, tuple):
                return web.json_response(trouble[1], status=trouble[0])
            if trouble == "lost":
                return _hang_up(request)
            if isinstance(trouble, asyncio.Event):
                await trouble.wait()
            result = await self._methods[method](fields)
            return _hang_up(request) if trouble == "taken" else web.json_response({"ok": True, "result": result})
        finally:
            await self._tell()

    async def _get_me(self, fields):
        return {"id": 123456, "is_bot": True, "first_name": "Andy", "username": "andy_bot"}

    async def _get_updates(self, fields):
        offset = fields.get("offset", 0)
        self.offsets.append(offset)
        self.waiting = [update for update in self.waiting if update["update_id"] >= offset]
        await self._tell()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(fields.get("timeout", 0)):
                await self.until(lambda: self.waiting or self._closing)
        return self.waiting[:100]

    async def _send_message(self, fields):
        self.sent.append((fields["chat_id"], fields["text"]))
        chat = {"id": fields["chat_id"], "type": "private"}
        return {"message_id": next(self._numbers), "date": WRITTEN, "chat": chat, "text": fields["text"]}

    async def _send_chat_action(self, fields):
        self.actions.append((fields["chat_id"], fields["action"]))
        return True

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()


def _hang_up(request: web.Request) -> web.StreamResponse:
    request.transport.abort()
    return web.Response()


def _value(value: str):
    """Numbers come as text, lists as JSON, texts as they are."""
    try:
        return json.loads(value)
    except ValueError:
        return value
