"""A server that speaks as much of Anthropic's API as agents use, and fails in every way it can.

What a call's first message says decides what happens: see `ModelApi`. Usage is what a call asks for
in `metadata.usage`, so that a test says in one line what an answer costs.
"""

from __future__ import annotations

import asyncio
import gzip
import json
from dataclasses import dataclass

from aiohttp import web

KEY = "sk-ant-api03-the-real-key-of-the-house"
MODEL = "claude-sonnet-4-5-20250929"
USAGE = {"input_tokens": 10, "output_tokens": 20, "cache_creation_input_tokens": 3, "cache_read_input_tokens": 4}


@dataclass(frozen=True)
class Asked:
    """One call as it arrived."""

    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name):
        return [value for key, value in self.headers if key.lower() == name.lower()]


class ModelApi:
    """Use it as an async context manager; `url` is its origin.

    `hold` waits for `go`, before the answer or in the middle of a stream; `cut` breaks off in mid-answer; `status N`
    fails like that; `redirect` leads elsewhere; `cookie` sets one; `gzip` compresses though nobody asked; `big N`
    answers with so many bytes.
    """

    def __init__(self, host="127.0.0.1", port=0) -> None:
        self.asked: list[Asked] = []
        self.go = asyncio.Event()
        self.holding = asyncio.Event()
        self.gone = asyncio.Event()
        """Set when a caller went away while it was held."""
        self._host, self._port = host, port

    async def __aenter__(self):
        app = web.Application(client_max_size=2**30)
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._port).start()
        self.url = f"http://{self._host}:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_):
        await self._runner.cleanup()

    async def _serve(self, request):
        body = await request.read()
        self.asked.append(Asked(request.method, request.raw_path, list(request.headers.items()), body))
        if request.method == "GET":
            return web.json_response({"data": [{"id": MODEL}]})
        if request.path.endswith("/count_tokens"):
            return web.json_response({"input_tokens": 7})
        asked = json.loads(body)
        word, _, rest = asked["messages"][0]["content"].partition(" ")
        answer = {
            "redirect": self._redirect,
            "cookie": self._cookie,
            "status": self._status,
            "big": self._big,
            "gzip": self._gzip,
        }
        if word in answer:
            return await answer[word](rest)
        return await (self._stream if asked.get("stream") else self._whole)(request, asked, word)

    async def _redirect(self, _rest):
        return web.Response(status=302, headers={"Location": "http://elsewhere.example/"})

    async def _cookie(self, _rest):
        return web.json_response({}, headers={"Set-Cookie": "who=first", "request-id": "req_1"})

    async def _status(self, rest):
        error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
        return web.json_response(error, status=int(rest), headers={"retry-after": "7"})

    async def _big(self, rest):
        return web.json_response({"model": MODEL, "text": "x" * int(rest), "usage": USAGE})

    async def _gzip(self, _rest):
        text = json.dumps({"model": MODEL, "usage": USAGE}).encode()
        headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        return web.Response(body=gzip.compress(text), headers=headers)

    async def _held(self):
        self.holding.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.gone.set()
            raise

    async def _whole(self, request, asked, word):
        if word == "hold":
            await self._held()
        text = json.dumps({"model": asked["model"], "content": [{"text": "hi"}], "usage": _usage(asked)})
        if word != "cut":
            return web.Response(text=text, content_type="application/json")
        response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": str(len(text))})
        await response.prepare(request)
        await response.write(text.encode()[:20])
        request.transport.close()
        return response

    async def _stream(self, request, asked, word):
        usage = _usage(asked)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        begin = {"model": asked["model"], "usage": usage | {"output_tokens": 1}}
        await response.write(_event("message_start", message=begin))
        for number in range(3):
            delta = {"type": "text_delta", "text": f'piece {number} says "usage" is é'}
            await response.write(_event("content_block_delta", index=0, delta=delta))
        if word == "hold":
            await self._held()
        if word == "cut":
            request.transport.close()
            return response
        end = {"delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": usage["output_tokens"]}}
        await response.write(_event("message_delta", **end) + _event("message_stop"))
        return response


def _usage(asked):
    return asked.get("metadata", {}).get("usage", USAGE)


def _event(kind, **fields):
    return f"event: {kind}\ndata: {json.dumps({'type': kind} | fields, ensure_ascii=False)}\n\n".encode()
