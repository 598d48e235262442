"""The process of the container beside an agent."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys

import structlog

from nanoclaw_runtime.bridge.pod import Place, PodBridge
from nanoclaw_runtime.contract import bridge


async def run(place: Place) -> None:
    """Until SIGTERM, and the little while a last report takes."""
    pod = PodBridge(place)
    life, loop = asyncio.create_task(pod.run(), name="bridge"), asyncio.get_running_loop()

    def end() -> None:
        pod.stop()
        loop.call_later(bridge.FAREWELL, life.cancel)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    with contextlib.suppress(asyncio.CancelledError):
        await life


def main() -> None:
    structlog.configure(
        processors=[
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    asyncio.run(run(Place.of(os.environ)))


if __name__ == "__main__":
    main()
