"""Connections that may cost something, and no more of them than that.

Everybody on the agents' network can knock. A connection is counted before its TLS handshake begins, and there are so
many at once, from one address and in all; the rest is closed at once. A place is free a second after its connection is
gone, so that handshakes and tokens are not looked at faster than that. Not here: what is said on one.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

AT_ONCE: Final = 768
"""Each has 0.3 MiB of buffers from its handshake on; the controller has 512 MiB for everything."""
PER_ADDRESS: Final = 128
"""A node's worth of pods, should a network show them all under its address."""
HANDSHAKE: Final = 5.0
SHUTDOWN: Final = 1.0
BACKLOG: Final = 128
REST: Final = 1.0
"""Seconds until a place is free again."""
_BREATH: Final = 0.1
# Seconds after which a socket that could not accept, for want of descriptors say, is tried again.

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

_log = structlog.get_logger(__name__)


class Listener:
    """`run` serves until cancelled; `port` is known once it is `bound`."""

    def __init__(self, serve: Serve, tls: ssl.SSLContext) -> None:
        self._serve, self._tls = serve, tls
        self._from: Counter[str] = Counter()
        self._open: set[socket.socket] = set()
        self.port = 0
        self.bound = asyncio.Event()

    async def run(self, address: str, port: int) -> None:
        with socket.create_server((address, port), backlog=BACKLOG) as listening:
            listening.settimeout(0)
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # messages are small, and waited for
            self.port = listening.getsockname()[1]
            self.bound.set()
            async with contextlib.AsyncExitStack() as stack:
                stack.callback(self._close)  # those whose task was cancelled before it began
                connections = await stack.enter_async_context(asyncio.TaskGroup())
                while True:
                    await _somebody_knocks(listening)
                    try:
                        connection, (host, *_) = listening.accept()
                    except BlockingIOError:
                        continue  # who knocked has gone
                    except OSError as error:
                        _log.warning("bridge.not-accepted", reason=str(error))
                        await asyncio.sleep(_BREATH)
                        continue
                    if self._from[host] >= PER_ADDRESS or self._from.total() >= AT_ONCE:
                        connection.close()
                    else:
                        self._from[host] += 1
                        self._open.add(connection)
                        connections.create_task(self._one(connection, host), name=f"bridge connection of {host}")
                    await asyncio.sleep(0)  # accepting gives way to nobody while others knock

    async def _one(self, connection: socket.socket, host: str) -> None:
        try:
            with contextlib.suppress(OSError):  # whoever cannot even shake hands
                reader, writer = await self._streams(connection)
                try:
                    await self._serve(reader, writer)
                finally:
                    with contextlib.suppress(AttributeError):  # early 3.11, as in Debian: it was closed already
                        writer.transport.abort()
        except Exception:  # noqa: BLE001 - the others' connections go on, and so does the controller
            _log.exception("bridge.broke", address=host)
        finally:
            self._open.discard(connection)  # its transport closes it, and nobody else: its number is used anew
            asyncio.get_running_loop().call_later(REST, self._free, host)

    def _close(self) -> None:
        for connection in self._open:
            connection.close()

    def _free(self, host: str) -> None:
        self._from[host] -= 1
        if not self._from[host]:
            del self._from[host]

    async def _streams(self, connection: socket.socket) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, made = asyncio.StreamReader(), list[asyncio.StreamWriter]()
        protocol = asyncio.StreamReaderProtocol(reader, lambda _, writer: made.append(writer))
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: protocol,
                connection,
                ssl=self._tls,
                ssl_handshake_timeout=HANDSHAKE,
                ssl_shutdown_timeout=SHUTDOWN,
            )
        except BaseException:
            for writer in made:  # cancelled in the moment the handshake was over: it would take its leave first
                writer.transport.abort()
            raise
        return reader, made[0]


async def _somebody_knocks(listening: socket.socket) -> None:
    """In place of `sock_accept`, which when it is cancelled loses the connection that it has just accepted."""
    loop, knocked = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(listening, knocked.set)
    try:
        await knocked.wait()
    finally:
        loop.remove_reader(listening)
