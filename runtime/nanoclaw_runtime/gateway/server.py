"""The gateway put together, on its two ports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from aiohttp import web

from nanoclaw_runtime.gateway.connections import Connections
from nanoclaw_runtime.gateway.ledger import Ledger
from nanoclaw_runtime.gateway.meter import Meter
from nanoclaw_runtime.gateway.metrics import GatewayMetrics
from nanoclaw_runtime.gateway.operations import operations_app
from nanoclaw_runtime.gateway.proxy import Proxy, upstream_session
from nanoclaw_runtime.gateway.settings import GatewaySettings

DRAIN: Final = 24.0
"""Seconds that calls under way get when the gateway ends. The pod has a few more, for what they used to be written."""


@dataclass(frozen=True)
class Ports:
    """Where it listens; 0 was a free one."""

    agents: int
    operations: int


@asynccontextmanager
async def gateway(
    settings: GatewaySettings, clock: Callable[[], datetime], *, host: str, ports: Ports, drain: float = DRAIN
) -> AsyncIterator[Ports]:
    """A gateway that serves. Left in the reverse order: calls end first, and then what they used is written.

    Raises StoreFailed when its file cannot be used, OSError when a port is taken.
    """
    metrics = GatewayMetrics()
    ledger = Ledger.open(settings.database, clock().date(), on_error=metrics.ledger_errors.inc)
    try:
        async with upstream_session() as session:
            proxy = Proxy(settings, Meter(settings.config, ledger, metrics, clock), session)
            async with (
                _serving(operations_app(settings, metrics.registry, ledger), host, ports.operations, 1) as operations,
                _serving(proxy.app(), host, ports.agents, drain) as agents,
            ):
                yield Ports(agents, operations)
    finally:
        ledger.close()


@asynccontextmanager
async def _serving(app: web.Application, host: str, port: int, drain: float) -> AsyncIterator[int]:
    # Cancelled handlers: an agent that went away must not leave its call to the model running. Half the time: it is
    # given to each call twice, first to be answered and then, with what is left of its body taken away, to end.
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=drain / 2)
    await runner.setup()
    try:
        assert runner.server is not None  # set up above
        loop = asyncio.get_running_loop()
        listener = await loop.create_server(Connections(runner.server), host, port, backlog=512)
        try:
            yield listener.sockets[0].getsockname()[1]
        finally:
            listener.close()
    finally:
        await runner.cleanup()
