"""Serves the API until it is cancelled, and lets requests and event streams end properly then."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Final

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from nanoclaw_runtime.domain.errors import NanoclawError

DRAIN: Final = 5
# Seconds a request may still take when the server stops.
CONNECTIONS: Final = 256
"""From one address at once: an agent could open them, and say nothing, until the process has no descriptor left."""


class PortTaken(NanoclawError):
    """The address to listen on is not to be had."""


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals belong to the process, which cancels `serve`."""
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.config.app.state.closing.set()  # type: ignore[union-attr]
        await super().shutdown(sockets)


class _Connection(H11Protocol):
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        addresses = [other.client[0] for other in self.connections if isinstance(other, _Connection) and other.client]
        if self.client and addresses.count(self.client[0]) > CONNECTIONS:
            transport.abort()


def listen(host: str, port: int) -> socket.socket:
    """A socket for `serve_on`; port 0 takes a free one. Raises PortTaken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        raise PortTaken(f"the API cannot listen on {host}:{port} ({error.strerror}); free the port") from error
    # Connections inherit it. Without it the second of two small writes, an answer's body say, waits 40 ms.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


async def serve_on(app: FastAPI, listener: socket.socket) -> None:
    """Serve on a socket until cancelled, then end the event streams and finish what is under way."""
    server = _Server(
        uvicorn.Config(
            app,
            http=_Connection,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            timeout_graceful_shutdown=DRAIN,
        )
    )
    serving = asyncio.create_task(server.serve(sockets=[listener]), name="http server")
    try:
        await asyncio.shield(serving)
    except asyncio.CancelledError:
        server.should_exit = True
        await serving
        raise


async def serve(app: FastAPI, host: str, port: int) -> None:
    """As `serve_on`. Raises PortTaken."""
    await serve_on(app, listen(host, port))
