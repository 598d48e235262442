"""A controller's tree and an agent's pod on two sides of a real bridge: TLS on loopback, two sets of folders.

Only who a token belongs to is decided here instead of by the API server. The pod's side is the container's own code,
in this process or in one of its own that can be killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from nanoclaw_runtime.bridge.certificate import Certificate, own_certificate
from nanoclaw_runtime.bridge.errand import Errand
from nanoclaw_runtime.bridge.pod import Place, PodBridge
from nanoclaw_runtime.bridge.server import BridgeServer, Caller, CallerRefused
from nanoclaw_runtime.contract import bridge
from nanoclaw_runtime.ipc.mailbox import Mailbox
from nanoclaw_runtime.telemetry import Metrics

HOST = bridge.host("test")
PATIENCE = 20.0


class Bridged:
    """One controller's end, and the pods that know it. `token` is good, and says `<folder> <session>`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.tree = root / "tree"
        self.certificate: Certificate = own_certificate(self.tree, HOST)
        self.metrics = Metrics()
        self.refusal: str | None = None
        self.port = 0
        self._kept: socket.socket | None = None
        self.server = self._new_server()
        self._serving: asyncio.Task[None] | None = None

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, root: Path) -> AsyncIterator[Bridged]:
        opened = cls(root)
        try:
            await opened.start()
            yield opened
        finally:
            await opened.end()

    async def start(self) -> None:
        """Serve, on the port of before if there was one: it stays ours while nobody listens."""
        if self._kept is None:
            self._kept = socket.socket()
            self._kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as who listens there has it
            self._kept.bind(("127.0.0.1", 0))
            self.port = self._kept.getsockname()[1]
        self.metrics, self.server = Metrics(), None
        self.server = self._new_server()
        self._serving = asyncio.create_task(self.server.run("127.0.0.1", self.port), name="bridge server")
        bound = asyncio.create_task(self.server.listener.bound.wait())
        await asyncio.wait([self._serving, bound], return_when=asyncio.FIRST_COMPLETED)
        assert bound.done(), self._serving.exception()

    async def end(self) -> None:
        """Stop for good."""
        await self.stop()
        if self._kept is not None:
            self._kept.close()

    async def stop(self) -> None:
        """As a controller that dies; pods are refused until it starts again."""
        if self._serving is not None:
            self._serving.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._serving
            self._serving = None

    def _new_server(self) -> BridgeServer:
        return BridgeServer(self.tree, self.certificate, self._identify, self.metrics)

    async def _identify(self, token: str) -> Caller:
        if self.refusal:
            raise CallerRefused(self.refusal)
        folder, session = token.split()
        return Caller(folder, session, f"pod-of-{session}")

    def changed(self, folder: str) -> None:
        self.server.changed(folder)

    async def settled(self, folder: str, session: str) -> None:
        await self.server.settled(folder, session)

    def reaches(self, folder: str) -> bool:
        return self.server.reaches(folder)

    def errand(self, folder: str) -> contextlib.AbstractAsyncContextManager[Errand]:
        return self.server.errand(folder)

    def mailbox(self, folder: str = "main", session: str = "s1") -> Mailbox:
        return Mailbox(self.tree, folder, session, carrier=self)

    def place(self, folder: str = "main", session: str = "s1", *, port: int | None = None) -> Place:
        """The pod's folders; those of the group are the same for each of its sessions."""
        claims, root = self.root / "claims" / folder, self.root / "pods" / session
        (root / bridge.TOKEN_DIR).mkdir(parents=True, exist_ok=True)
        (root / bridge.TOKEN_DIR / bridge.TOKEN_FILE).write_text(f"{folder} {session}")
        return Place(
            address=f"127.0.0.1:{port or self.port}",
            server=HOST,
            certificate=self.certificate.pem,
            folder=folder,
            session=session,
            group=claims / "group",
            ipc=claims / "ipc",
            sessions=claims / "sessions",
            root=root,
        )

    @contextlib.asynccontextmanager
    async def pod(self, folder: str = "main", session: str = "s1", *, port: int | None = None) -> AsyncIterator[Pod]:
        """A pod that is ready; it says its last at the end."""
        async with self.pod_that_waits(folder, session, port=port) as pod:
            await pod.ready()
            yield pod

    @contextlib.asynccontextmanager
    async def pod_that_waits(
        self, folder: str = "main", session: str = "s1", *, port: int | None = None
    ) -> AsyncIterator[Pod]:
        """A pod that was begun."""
        pod = Pod(self.place(folder, session, port=port))
        pod.begin()
        try:
            yield pod
        finally:
            await pod.end()

    @property
    def streams(self) -> int:
        """Pods whose streams are open."""
        return int(self.metrics.registry.get_sample_value("nanoclaw_bridge_streams") or 0)


class Pod:
    """The container's code in this process, and what the agent beside it sees."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.inputs = place.ipc / "inputs" / place.session
        self._bridge = PodBridge(place)
        self._life: asyncio.Task[None] | None = None

    def begin(self) -> None:
        self._bridge = PodBridge(self.place)
        self._life = asyncio.create_task(self._bridge.run(), name=f"pod of {self.place.session}")

    async def ready(self) -> None:
        await until(lambda: self.place.ready.exists() or self._life.done())
        assert not self._life.done(), self._life.exception()

    async def end(self) -> None:
        """As at a SIGTERM, with all the time a busy machine takes."""
        if self._life is not None and not self._life.done():
            self._bridge.stop()
            await asyncio.wait([self._life], timeout=PATIENCE)
        await self.vanish()

    async def vanish(self) -> None:
        """As with its node."""
        if self._life is not None:
            self._life.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._life
            self._life = None
            with self._bridge._inputs._turn:
                """A thread of it may still be at work, as it would not be in a process that died."""


def environment(place: Place) -> dict[str, str]:
    """As the manifest gives it to the container."""
    return {
        bridge.ENV_ADDRESS: place.address,
        bridge.ENV_SERVER: place.server,
        bridge.ENV_CERTIFICATE: place.certificate,
        bridge.ENV_FOLDER: place.folder,
        bridge.ENV_SESSION: place.session,
        bridge.ENV_GROUP_DIR: str(place.group),
        bridge.ENV_IPC_DIR: str(place.ipc),
        bridge.ENV_SESSIONS_DIR: str(place.sessions),
        bridge.ENV_ROOT: str(place.root),
    }


async def process(place: Place, module: str = "nanoclaw_runtime.bridge", **more: str) -> asyncio.subprocess.Process:
    """The container's process."""
    variables = os.environ | environment(place) | more
    return await asyncio.create_subprocess_exec(sys.executable, "-m", module, env=variables)


async def kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.send_signal(signal.SIGKILL)
        await process.wait()


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not holds():
            await asyncio.sleep(0.01)


async def recorded() -> None:
    """The store has it."""


def texts(pod: Pod) -> list[str]:
    """What lies before its agent."""
    return [json.loads(path.read_text())["text"] for path in sorted(pod.inputs.glob("*.json"))]


def take(pod: Pod) -> list[str]:
    """What an agent takes, in its order."""
    found = sorted(pod.inputs.glob("*.json"))  # looked at once: more may come meanwhile
    taken = [json.loads(path.read_text())["text"] for path in found]
    for path in found:
        path.unlink()
    return taken


def put(file: Path, content: str) -> None:
    """Made beside and renamed, as the agent does: a file written in place is carried while it is still empty."""
    aside = file.with_suffix(".aside")
    aside.write_text(content)
    aside.rename(file)
