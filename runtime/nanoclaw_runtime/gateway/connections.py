"""What a connection may cost the gateway before anybody has read a placeholder.

The server it builds on bounds neither how many connections one address holds open without a word, nor
what it writes into the log about bytes that are no HTTP; and it would unpack compressed bodies, which
then have another length than the call says. Not here: calls.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

CONNECTIONS: Final = 128
"""From one address at once, twice the calls of a group: an agent could open them until the process has no descriptor
left."""

_log: Final = logging.getLogger("nanoclaw.gateway.http")


def _is_ours(record: logging.LogRecord) -> bool:
    """Whether it tells of a mistake of our own; one of the client's would be a traceback a request, with its bytes."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


_log.addFilter(_is_ours)


class Connections:
    """Makes the connections of one port, for `loop.create_server`."""

    def __init__(self, server: web.Server) -> None:
        self._server = server
        self._open: Counter[str] = Counter()

    def __call__(self) -> web.RequestHandler:
        return _Connection(self._server, self._open)


class _Connection(web.RequestHandler):
    __slots__ = ("_address", "_open")

    def __init__(self, server: web.Server, open_: Counter[str]) -> None:
        # As it came: unpacked, a body could end before the length that is passed on, and whatever call uses the
        # connection to the model next would be taken for the rest of it.
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]  # what the runner passes, too
            logger=_log,
            auto_decompress=False,
        )
        self._open, self._address = open_, ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._address = str((transport.get_extra_info("peername") or ("",))[0])
        self._open[self._address] += 1
        if self._open[self._address] > CONNECTIONS and self.transport is not None:
            self.transport.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._open[self._address] -= 1
        if not self._open[self._address]:
            del self._open[self._address]
