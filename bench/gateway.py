"""What the model gateway adds to a call, and what it costs in memory.

The same calls go to the same fake of the model's API, directly and through a gateway in a process of
its own; they take turns, so that what else the machine does meets both alike. A fake answers at once:
what is measured is the gateway, not a model.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
from aiohttp import web

from bench import table
from nanoclaw_dev.progress import Progress
from nanoclaw_runtime.contract import config, gateway, names
from nanoclaw_runtime.contract.gateway import GatewayConfig, placeholder

CALLS = 2000
AT_ONCE = 1000
PIECES = 50
SIGNING_KEY = b"of this measurement"
CALL = json.dumps({"model": "claude-x", "messages": [{"role": "user", "content": "x" * 20_000}]}).encode()

PROGRAM = """\
import asyncio, os, sys
from datetime import UTC, datetime
from nanoclaw_runtime.gateway.server import Ports, gateway
from nanoclaw_runtime.gateway.settings import GatewaySettings

async def main():
    clock = lambda: datetime.now(UTC)
    async with gateway(GatewaySettings.load(os.environ), clock, host="127.0.0.1", ports=Ports(0, 0)) as ports:
        print(ports.agents, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def _model(request: web.Request) -> web.StreamResponse:
    """A stream of `PIECES` small events, sent as fast as they are taken."""
    await request.read()
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    begin = {"type": "message_start", "message": {"model": "claude-x", "usage": {"input_tokens": 10}}}
    await response.write(f"event: message_start\ndata: {json.dumps(begin)}\n\n".encode())
    piece = json.dumps({"type": "content_block_delta", "delta": {"type": "text_delta", "text": "some words "}})
    for _ in range(PIECES):
        await response.write(f"event: content_block_delta\ndata: {piece}\n\n".encode())
    await response.write(b'event: message_delta\ndata: {"type":"message_delta","usage":{"output_tokens":9}}\n\n')
    return response


class _Running:
    """A gateway in a process of its own."""

    def __init__(self, folder: Path, upstream: str) -> None:
        for name in ("credentials", "key", "usage"):
            (folder / name).mkdir()
        (folder / names.SETTINGS_KEY).write_text(GatewayConfig(upstream=upstream).model_dump_json(by_alias=True))
        (folder / "credentials/ANTHROPIC_API_KEY").write_text("sk-1")
        (folder / "key" / names.GATEWAY_KEY_KEY).write_bytes(SIGNING_KEY)
        environment = {
            config.ENV_CONFIG_DIR: str(folder),
            config.ENV_CREDENTIALS_DIR: str(folder / "credentials"),
            gateway.ENV_KEY_DIR: str(folder / "key"),
            gateway.ENV_USAGE_DIR: str(folder / "usage"),
        }
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM], env=os.environ | environment, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.url = f"http://127.0.0.1:{self.process.stdout.readline().strip()}"

    @property
    def memory(self) -> float:
        """Resident, in MiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    @property
    def seconds(self) -> float:
        """Of CPU."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self) -> None:
        self.process.terminate()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


async def _call(session: aiohttp.ClientSession, url: str) -> tuple[float, float]:
    """Seconds to the first byte and to the last."""
    headers = {"x-api-key": placeholder(SIGNING_KEY, f"g{time.monotonic_ns() % 50}", 2**33)}
    begun = time.perf_counter()
    async with session.post(f"{url}/v1/messages?beta=true", data=CALL, headers=headers) as answer:
        await answer.content.readany()
        first = time.perf_counter() - begun
        await answer.read()
        assert answer.status == 200
    return first, time.perf_counter() - begun


async def _served(run: Callable[[str], Awaitable[str]]) -> str:
    app = web.Application()
    app.router.add_post("/v1/messages", _model)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        await web.SockSite(runner, listener).start()
        return await run(f"http://127.0.0.1:{listener.getsockname()[1]}")
    finally:
        await runner.cleanup()


async def _measured(upstream: str) -> str:
    with tempfile.TemporaryDirectory(prefix="nanoclaw-bench-") as folder:
        running = _Running(Path(folder), upstream)
        try:
            return await _compared(upstream, running)
        finally:
            running.end()


async def _compared(upstream: str, running: _Running) -> str:
    rows: dict[str, list[float]] = {}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        for _ in range(50):
            await _call(session, running.url)
        idle, cpu = running.memory, running.seconds
        for _ in range(CALLS):
            for where, url in (("direct", upstream), ("gateway", running.url)):
                for what, seconds in zip(("first byte", "whole answer"), await _call(session, url), strict=True):
                    rows.setdefault(f"{what}, {where}", []).append(seconds)
        cpu = (running.seconds - cpu) / CALLS
        await asyncio.gather(*(_call(session, running.url) for _ in range(AT_ONCE)))
    lines = [
        f"| {name} | {table.percentile(rows[name], 0.5) * 1000:.2f} | {table.percentile(rows[name], 0.99) * 1000:.2f} |"
        for name in sorted(rows)
    ]
    return "\n".join(
        [
            (f"{CALLS} calls each way in turn, {len(CALL) // 1000} kB up and {PIECES} events down; milliseconds."),
            "",
            "| | median | p99 |",
            "|---|--:|--:|",
            *lines,
            "",
            (
                f"Memory {idle:.0f} MiB after the first calls, {running.memory:.0f} MiB after {AT_ONCE} at once. "
                f"CPU {cpu * 1000:.1f} ms a call."
            ),
        ]
    )


def measure(results: Path, progress: Progress) -> None:
    """Measure and write `gateway.md`."""
    machine = table.machine()
    with progress.step("model gateway"):
        found = asyncio.run(_served(_measured))
    table.write(results / "gateway.md", f"# What the model gateway adds\n\n{machine}\n\n{found}")


if __name__ == "__main__":
    measure(Path(__file__).parent / "results", Progress())
