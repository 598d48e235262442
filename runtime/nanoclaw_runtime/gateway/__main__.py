"""`python -m nanoclaw_runtime.gateway`: the gateway of a pod, until a SIGTERM."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from datetime import UTC, datetime

import structlog

from nanoclaw_runtime.contract.gateway import OPERATIONS_PORT
from nanoclaw_runtime.contract.names import GATEWAY_PORT
from nanoclaw_runtime.domain.errors import NanoclawError
from nanoclaw_runtime.gateway.server import Ports, gateway
from nanoclaw_runtime.gateway.settings import GatewaySettings
from nanoclaw_runtime.telemetry import configure_logging

_log = structlog.get_logger(__name__)


async def run(settings: GatewaySettings) -> None:
    """Be the gateway until SIGTERM or Ctrl-C."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    ports = Ports(GATEWAY_PORT, OPERATIONS_PORT)
    async with gateway(settings, lambda: datetime.now(UTC), host="0.0.0.0", ports=ports):  # noqa: S104
        _log.info("gateway serves", upstream=settings.config.upstream)
        await stopped.wait()
    _log.info("gateway stopped")


def main() -> None:
    """Exit status 0 after a SIGTERM or Ctrl-C, 1 when it cannot serve."""
    configure_logging()
    try:
        asyncio.run(run(GatewaySettings.load(os.environ)))
    except (NanoclawError, OSError) as error:
        _log.error("gateway cannot start", reason=str(error))
        sys.exit(1)


if __name__ == "__main__":
    main()
