"""What the bridge adds to a follow-up and to an agent's request, beside the same files on a shared volume.

Server here, container in a process of its own, TLS over loopback, both on one disk: no network and no cluster, so
this is the bridge's own share. Agents look every 500 ms and the controller every second, whatever brings the files.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import table
from nanoclaw_dev.progress import Progress
from nanoclaw_runtime.bridge.certificate import own_certificate
from nanoclaw_runtime.bridge.server import BridgeServer, Caller
from nanoclaw_runtime.contract import bridge, names
from nanoclaw_runtime.ipc.mailbox import Mailbox, Nearby
from nanoclaw_runtime.telemetry import Metrics

SAMPLES = 200
STARTS = 10
LARGE = 1024 * 1024
FINE = 0.0005
"""Seconds between two looks of the measurement itself."""


@dataclass
class Pod:
    """The container's process, and its folders."""

    ipc: Path
    ready: Path
    environment: dict[str, str]
    process: asyncio.subprocess.Process | None = None

    async def start(self) -> float:
        """Seconds until it is ready."""
        self.ready.unlink(missing_ok=True)
        begun = time.perf_counter()
        command = (sys.executable, "-m", "nanoclaw_runtime.bridge")
        self.process = await asyncio.create_subprocess_exec(*command, env=os.environ | self.environment)
        await _until(self.ready.exists)
        return time.perf_counter() - begun

    async def end(self) -> float:
        """Seconds a SIGTERM takes, the last report included."""
        assert self.process is not None
        begun = time.perf_counter()
        self.process.terminate()
        await self.process.wait()
        return time.perf_counter() - begun

    @property
    def memory(self) -> int:
        """Resident bytes."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) * 1024


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(FINE)


async def _recorded() -> None:
    """The store has it."""


@contextlib.asynccontextmanager
async def _bridged(root: Path) -> AsyncIterator[tuple[BridgeServer, Path, Pod]]:
    tree, host = root / "tree", bridge.host("bench")
    certificate = own_certificate(tree, host)

    async def identify(_token: str) -> Caller:
        return Caller(names.MAIN_FOLDER, "s1", "pod")

    server = BridgeServer(tree, certificate, identify, Metrics())
    serving = asyncio.create_task(server.run("127.0.0.1", 0), name="bridge")
    await server.listener.bound.wait()
    pod, claims = root / "pod", root / "claims"
    (pod / bridge.TOKEN_DIR).mkdir(parents=True)
    (pod / bridge.TOKEN_DIR / bridge.TOKEN_FILE).write_text("token")
    environment = {
        bridge.ENV_ADDRESS: f"127.0.0.1:{server.listener.port}",
        bridge.ENV_SERVER: host,
        bridge.ENV_CERTIFICATE: certificate.pem,
        bridge.ENV_FOLDER: names.MAIN_FOLDER,
        bridge.ENV_SESSION: "s1",
        bridge.ENV_GROUP_DIR: str(claims / "group"),
        bridge.ENV_IPC_DIR: str(claims / "ipc"),
        bridge.ENV_SESSIONS_DIR: str(claims / "sessions"),
        bridge.ENV_ROOT: str(pod),
    }
    try:
        yield server, tree, Pod(claims / "ipc", pod / bridge.READY_FILE, environment)
    finally:
        serving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await serving


async def _send(box: Mailbox, folder: Path, text: str) -> float:
    """Seconds from a follow-up being sent to the agent's folder having it; it is taken then."""
    begun = time.perf_counter()
    await box.send(text, [1], _recorded)
    await _until(lambda: any(name.endswith(".json") for name in os.listdir(folder)))  # noqa: PTH208
    seconds = time.perf_counter() - begun
    _take(folder)
    return seconds


def _take(folder: Path) -> None:
    for file in folder.glob("*.json"):
        file.unlink()


async def _ask(pod: Pod, tree: Path, number: int) -> tuple[float, float]:
    """Seconds from an agent's request being there to the controller's tree having it, and from its end to the pod's."""
    there, here = pod.ipc / f"tasks/{number}.json", tree / f"data/ipc/{names.MAIN_FOLDER}/tasks/{number}.json"
    there.with_suffix(".tmp").write_text("{}")
    begun = time.perf_counter()
    there.with_suffix(".tmp").rename(there)
    await _until(here.exists)
    arrived = time.perf_counter()
    here.unlink()
    await _until(lambda: not there.exists())
    return arrived - begun, time.perf_counter() - arrived


async def _measured(root: Path) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    plain = Mailbox(root / "shared", names.MAIN_FOLDER, "s1", carrier=Nearby())
    await plain.prepare()
    shared = root / f"shared/data/ipc/{names.MAIN_FOLDER}/inputs/s1"
    async with _bridged(root) as (server, tree, pod):
        found["container started to ready"] = []
        found["SIGTERM to its end, last report included"] = []
        for _ in range(STARTS):
            found["container started to ready"].append(await pod.start())
            found["SIGTERM to its end, last report included"].append(await pod.end())
        await pod.start()
        box, inputs = Mailbox(tree, names.MAIN_FOLDER, "s1", carrier=server), pod.ipc / "inputs/s1"
        await box.prepare()
        for label, text in (("follow-up", "hello"), ("follow-up of 1 MiB", "x" * LARGE)):
            carried, written = found[f"{label}, bridge"], found[f"{label}, shared volume"] = [], []
            for _ in range(SAMPLES):  # in turn, so that what else the machine does meets both
                written.append(await _send(plain, shared, text))
                carried.append(await _send(box, inputs, text))
        asked = [await _ask(pod, tree, number) for number in range(SAMPLES)]
        found["request, agent's folder to controller's, bridge"] = [up for up, _ in asked]
        found["request dealt with, controller's folder to agent's, bridge"] = [down for _, down in asked]
        found["what the agent took, asked for at its end"] = []
        for _ in range(SAMPLES):
            begun = time.perf_counter()
            await box.pending()
            found["what the agent took, asked for at its end"].append(time.perf_counter() - begun)
        found["memory"] = [float(pod.memory)]
        await pod.end()
    return found


def _row(name: str, values: Sequence[float]) -> str:
    cells = (statistics.median(values), table.percentile(values, 0.99), max(values))
    return f"| {name} | {len(values)} | " + " | ".join(f"{value * 1000:,.1f}" for value in cells) + " |"


def measure(results: Path, progress: Progress) -> None:
    """Measure, and write `bridge.md`. Needs neither root nor a cluster."""
    begun = table.machine()
    with progress.step("Measuring the bridge"), tempfile.TemporaryDirectory() as scratch:
        found = asyncio.run(_measured(Path(scratch)))
    memory = found.pop("memory")[0] / 1024**2
    rows = "\n".join(_row(name, values) for name, values in found.items())
    text = f"""\
# The bridge over loopback

{begun}

| ms | n | median | p99 | most |
|---|--:|--:|--:|--:|
{rows}

The container beside the agent has {memory:.0f} MiB resident after that. It looks for requests every
{bridge.POLL * 1000:.0f} ms, which is what theirs cost; these come right behind a look, so they wait the whole of it.
Follow-ups are pushed.
"""
    table.write(results / "bridge.md", text)


if __name__ == "__main__":
    measure(Path(__file__).parent / "results", Progress())
