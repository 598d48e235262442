"""What can go wrong between a client and the API server, made to happen on purpose.

`FaultProxy` speaks HTTP: it forwards to a real API server and spoils chosen answers. It sees only
plain text, so its side of the connection has no TLS and every request counts as the administrator's.
`TcpProxy` knows nothing but bytes, so that TLS and WebSockets pass it; it can cut and freeze.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp
import yaml
from aiohttp import web

from nanoclaw_dev.cluster.control_plane import ControlPlane
from nanoclaw_runtime.kube.http import Answer

Fault = Callable[["Exchange"], Awaitable[web.StreamResponse]]

HOP_BY_HOP = {"transfer-encoding", "connection", "content-length", "content-encoding", "host"}


class Exchange:
    """One request on its way, in the hands of a fault."""

    def __init__(self, request: web.Request, upstream: aiohttp.ClientResponse) -> None:
        self.request = request
        self._upstream = upstream

    async def lines(self) -> AsyncIterator[bytes]:
        """The upstream's answer, line by line."""
        rest = b""
        async for chunk in self._upstream.content.iter_any():
            *complete, rest = (rest + chunk).split(b"\n")
            for line in complete:
                yield line + b"\n"
        if rest:
            yield rest

    async def begin(self) -> web.StreamResponse:
        """Send status and headers."""
        headers = {key: value for key, value in self._upstream.headers.items() if key.lower() not in HOP_BY_HOP}
        response = web.StreamResponse(status=self._upstream.status, headers=headers)
        await response.prepare(self.request)
        return response

    def cut(self) -> None:
        """Reset the client's connection."""
        assert self.request.transport is not None
        self.request.transport.abort()


class FaultProxy:
    """Forwards until told otherwise: each fault given to `spoil` hits one request of its kind."""

    def __init__(self, apiserver: ControlPlane) -> None:
        self._apiserver = apiserver
        self._pending: dict[str, deque[Fault]] = {kind: deque() for kind in ("watch", "list", "log", "call")}
        self.requests: list[str] = []
        """Kinds of the requests so far, in order."""
        self.away = False
        """While it is set nothing is forwarded: every request is answered with 503."""
        self._news = asyncio.Condition()
        self.url = ""

    def spoil(self, kind: str, *faults: Fault) -> None:
        """Apply `faults`, in this order, to the next requests of the kind: `watch`, `list`, `log` or `call`."""
        self._pending[kind].extend(faults)

    async def seen(self, kind: str, count: int) -> None:
        """Return when there were so many requests of the kind."""
        async with self._news:
            await self._news.wait_for(lambda: self.requests.count(kind) >= count)

    @property
    def unused(self) -> int:
        """Faults that did not happen yet."""
        return sum(len(faults) for faults in self._pending.values())

    def kubeconfig(self, folder: Path) -> Path:
        """A kubeconfig that leads through the proxy."""
        path = folder / "proxied"
        context = {"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "proxy",
            "contexts": [context],
            "clusters": [{"name": "proxy", "cluster": {"server": self.url}}],
            "users": [{"name": "proxy", "user": {}}],
        }
        path.write_text(yaml.safe_dump(config))
        return path

    async def __aenter__(self) -> Self:
        config = yaml.safe_load(self._apiserver.kubeconfig.read_text())
        self._server = config["clusters"][0]["cluster"]["server"]
        connector = aiohttp.TCPConnector(limit=0, ssl=_administrator(config, self._apiserver.kubeconfig.parent))
        timeout = aiohttp.ClientTimeout(total=None)
        # Given up at once: the API server's goodbye over TLS may come when the test's loop is closed.
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, response_class=Answer)
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(application, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        kind = _kind(request)
        async with self._news:
            self.requests.append(kind)
            self._news.notify_all()
        if self.away:
            return web.Response(status=503)
        headers = {key: value for key, value in request.headers.items() if key.lower() not in HOP_BY_HOP}
        url = f"{self._server}{request.path_qs}"
        async with self._session.request(request.method, url, headers=headers, data=await request.read()) as upstream:
            fault = self._pending[kind].popleft() if self._pending[kind] else forward
            try:
                return await fault(Exchange(request, upstream))
            finally:
                upstream.close()


def _kind(request: web.Request) -> str:
    if request.method != "GET":
        return "call"
    if request.path.endswith("/log"):
        return "log"
    return "watch" if request.query.get("watch") else "list" if "limit" in request.query else "call"


def _administrator(config: dict, folder: Path) -> ssl.SSLContext:
    user, cluster = config["users"][0]["user"], config["clusters"][0]["cluster"]
    with tempfile.TemporaryDirectory() as scratch:

        def file(section: dict, key: str) -> str:
            if key in section:
                return str(folder / section[key])
            made = Path(scratch) / key
            made.write_bytes(base64.b64decode(section[f"{key}-data"]))
            return str(made)

        context = ssl.create_default_context(cafile=file(cluster, "certificate-authority"))
        context.load_cert_chain(file(user, "client-certificate"), file(user, "client-key"))
    return context


# Faults.


async def forward(exchange: Exchange) -> web.StreamResponse:
    """No fault."""
    response = await exchange.begin()
    with contextlib.suppress(ConnectionError):
        async for line in exchange.lines():
            await response.write(line)
        await response.write_eof()
    return response


def answer(status: int, *, headers: dict[str, str] | None = None, reason: str = "") -> Fault:
    """The request is answered with this status and a Status document; upstream has been asked all the same."""

    async def fault(exchange: Exchange) -> web.StreamResponse:
        document = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": status}
        return web.json_response(document | {"message": "told by the proxy"}, status=status, headers=headers)

    return fault


def event(line: bytes) -> Fault:
    """The stream has one line of ours and ends."""

    async def fault(exchange: Exchange) -> web.StreamResponse:
        response = await exchange.begin()
        await response.write(line + b"\n")
        await response.write_eof()
        return response

    return fault


def instead(content: bytes, *, ends: bool = True, cut: bool = False) -> Fault:
    """The answer is this, whatever the API server says; without its end it is one that goes on, or is `cut`."""

    async def fault(exchange: Exchange) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(exchange.request)
        await response.write(content)
        if cut:
            exchange.cut()
            return response
        if not ends:
            await asyncio.Event().wait()
        await response.write_eof()
        return response

    return fault


def drop(*, after: int) -> Fault:
    """The connection is reset behind so many lines."""

    async def fault(exchange: Exchange) -> web.StreamResponse:
        response = await exchange.begin()
        async for line in _first(exchange, after):
            await response.write(line)
        exchange.cut()
        return response

    return fault


def truncate(*, after: int) -> Fault:
    """Behind so many lines comes half a line, and then an end that looks regular."""

    async def fault(exchange: Exchange) -> web.StreamResponse:
        response = await exchange.begin()
        lines = [line async for line in _first(exchange, after + 1)]
        for line in lines[:-1]:
            await response.write(line)
        await response.write(lines[-1][: len(lines[-1]) // 2])
        await response.write_eof()
        return response

    return fault


def half_open(*, after: int) -> Fault:
    """Behind so many lines nothing comes any more, and no error either."""

    async def fault(exchange: Exchange) -> web.StreamResponse:
        response = await exchange.begin()
        async for line in _first(exchange, after):
            await response.write(line)
        await asyncio.Event().wait()
        return response

    return fault


def silent_from_the_start() -> Fault:
    """Not even the headers of the answer come."""

    async def fault(exchange: Exchange) -> web.StreamResponse:
        await asyncio.Event().wait()
        return await exchange.begin()

    return fault


def drip() -> Fault:
    """Bytes keep coming, so no read ever times out, but never a whole event."""

    async def fault(exchange: Exchange) -> web.StreamResponse:
        response = await exchange.begin()
        with contextlib.suppress(ConnectionError):
            while True:
                await response.write(b" ")
                await asyncio.sleep(0.05)
        return response

    return fault


def crumbs(size: int) -> Fault:
    """Everything arrives, in pieces of so many bytes."""

    async def fault(exchange: Exchange) -> web.StreamResponse:
        response = await exchange.begin()
        with contextlib.suppress(ConnectionError):
            async for line in exchange.lines():
                for start in range(0, len(line), size):
                    await response.write(line[start : start + size])
            await response.write_eof()
        return response

    return fault


def repeat_each() -> Fault:
    """Every line comes twice."""

    async def fault(exchange: Exchange) -> web.StreamResponse:
        response = await exchange.begin()
        with contextlib.suppress(ConnectionError):
            async for line in exchange.lines():
                await response.write(line + line)
            await response.write_eof()
        return response

    return fault


def swap_pairs() -> Fault:
    """Of two lines the second comes first."""

    async def fault(exchange: Exchange) -> web.StreamResponse:
        response = await exchange.begin()
        held = b""
        with contextlib.suppress(ConnectionError):
            async for line in exchange.lines():
                if held:
                    await response.write(line + held)
                    held = b""
                else:
                    held = line
            await response.write_eof()
        return response

    return fault


async def _first(exchange: Exchange, count: int) -> AsyncIterator[bytes]:
    seen = 0
    if count:
        async for line in exchange.lines():
            yield line
            seen += 1
            if seen == count:
                return


class TcpProxy:
    """A byte pump to one address."""

    def __init__(self, host: str, port: int) -> None:
        self._upstream = (host, port)
        self._writers: set[asyncio.StreamWriter] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        self.cut()
        self._flowing.set()
        await self._server.wait_closed()

    def cut(self) -> None:
        """Reset every connection; new ones are served."""
        for writer in self._writers:
            writer.transport.abort()

    def freeze(self) -> None:
        """Let nothing through any more, and tell nobody."""
        self._flowing.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            upstream_reader, upstream_writer = await asyncio.open_connection(*self._upstream)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, upstream_writer}
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pump(reader, upstream_writer), name="proxy-up")
                tasks.create_task(self._pump(upstream_reader, writer), name="proxy-down")
        finally:
            self._writers -= {writer, upstream_writer}
            writer.close()
            upstream_writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()
        writer.transport.abort() if writer.is_closing() else writer.close()
