"""Standard input and output of a running container, over one WebSocket.

Every binary frame begins with the number of its channel. An agent needs its input *and* its end:
protocol v5 closes one channel (`[255, 0]`). On v4 (before Kubernetes 1.30 and OpenShift 4.17)
only the end of the connection closes stdin, by `stdinOnce`, and takes the output with it: such an
attach delivers the input and `AttachedStreams.output` ends at once as a lost stream, which the
caller repairs from the log as any other loss.

Nothing is replayed to a second attach, and the exit code is not told here but by the pod.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator
from enum import IntEnum
from typing import Final

import aiohttp
import msgspec

from nanoclaw_runtime.kube.client import KubeClient
from nanoclaw_runtime.kube.deadline import Deadline
from nanoclaw_runtime.kube.errors import Invalid, KubeError, NotFound, PodGone, StreamLost, Target
from nanoclaw_runtime.kube.resources import PODS, Slim

V5: Final = "v5.channel.k8s.io"
V4: Final = "v4.channel.k8s.io"
PROTOCOLS: Final = (V5, V4)

CHUNK: Final = 32 * 1024
"""Bytes of one frame of input; the API server reads frames of at most 64 KiB in one go."""

PING_EVERY: Final = 20.0
SILENCE: Final = 75.0
"""Seconds without any frame, pongs included, after which the connection counts as lost. The API
server answers no ping while the agent does not read, and it compiles for up to 20 s before."""

STDERR_KEPT: Final = 4096
"""Bytes; only the end is ever shown."""


class Channel(IntEnum):
    STDIN = 0
    STDOUT = 1
    STDERR = 2
    STATUS = 3
    CLOSE = 255


async def attach(
    client: KubeClient,
    pod: str,
    *,
    container: str,
    namespace: str = "",
    deadline: Deadline,
    protocols: tuple[str, ...] = PROTOCOLS,
) -> AttachedStreams:
    """Attach to a container that runs, with stdin, stdout and stderr apart.

    Connect only with the input in hand: an attach that ends before it has sent anything burns the
    container's stdin. Needs `get` and `create` on pods/attach (Kubernetes 1.35 checks both).
    Raises PodGone when there is no such container running, DeadlineExceeded, or another KubeError.
    """
    target = Target("attach", "pods/attach", namespace or client.namespace, pod)
    query = [("container", container), ("stdin", "true"), ("stdout", "true"), ("stderr", "true"), ("tty", "false")]
    path = PODS.path(target.namespace, pod, "attach")
    async with deadline.enforce(target):
        try:
            socket = await client.websocket(path, target, query=query, protocols=protocols)
        except (NotFound, Invalid) as error:
            raise PodGone(target, error.message, status=error.status, reason=error.reason) from error
    if socket.protocol not in protocols:
        await AttachedStreams(socket, target).close()
        raise KubeError(
            target, f"the API server speaks none of {', '.join(protocols)}; Kubernetes 1.30 or newer does", status=101
        )
    return AttachedStreams(socket, target)


class AttachedStreams:
    """A live attach. `send` first, then read `output`; `close` whatever happens."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, target: Target) -> None:
        self._socket = socket
        self._target = target
        self._early: deque[bytes] = deque()
        self._unsent = False
        self._ended = False
        self._lost: StreamLost | None = None
        self._stderr = b""

    @property
    def protocol(self) -> str:
        """What was negotiated: `V5` or `V4`."""
        return self._socket.protocol or ""

    @property
    def complete(self) -> bool:
        """The container's output was seen to its end."""
        return self._ended

    @property
    def stderr(self) -> str:
        """The end of what the container wrote to stderr so far, at most 4 KiB."""
        return self._stderr.decode(errors="replace")

    async def send(self, stdin: bytes, deadline: Deadline) -> None:
        """Write all of `stdin` and close it. Waits for a container that does not read yet.

        Output that comes meanwhile is kept. Raises StreamLost when the connection breaks or the
        container ends first, DeadlineExceeded when it does not read in time.
        """
        self._unsent = True
        async with deadline.enforce(self._target):
            await self._write_while_reading(stdin)
        self._unsent = False
        if self.protocol == V4:
            await self.close()

    async def output(self) -> AsyncGenerator[bytes]:
        """What the container writes to stdout, until it ends. Raises StreamLost when the connection ends first."""
        while self._early:
            yield self._early.popleft()
        while not self._ended:
            if data := await self._receive():
                yield data

    async def close(self) -> None:
        """Let go of the connection; the container runs on."""
        response = self._socket._response  # noqa: SLF001  # aiohttp shows it nowhere else
        if self._unsent and response.connection is not None and response.connection.transport is not None:
            # Otherwise the socket waits for somebody to read what nobody will.
            response.connection.transport.abort()
        await self._socket.close()
        response.close()  # aiohttp forgets to do this itself when the connection was reset

    async def _write_while_reading(self, stdin: bytes) -> None:
        # A server that waits for room to send its output reads no input either, and pings want answers.
        reading = asyncio.create_task(self._keep_early(), name="attach-early-output")
        writing = asyncio.create_task(self._write(stdin), name="attach-input")
        try:
            await asyncio.wait({reading, writing}, return_when=asyncio.FIRST_COMPLETED)
            if not writing.done():
                raise self._lost or StreamLost(self._target, "the container ended before it had its input")
            writing.result()
        finally:
            for task in (reading, writing):
                task.cancel()
            await asyncio.gather(reading, writing, return_exceptions=True)

    async def _write(self, stdin: bytes) -> None:
        try:
            for start in range(0, len(stdin), CHUNK):
                await self._socket.send_bytes(bytes([Channel.STDIN]) + stdin[start : start + CHUNK])
            if self.protocol == V5:
                await self._socket.send_bytes(bytes([Channel.CLOSE, Channel.STDIN]))
        except (aiohttp.ClientError, ConnectionError) as error:
            raise StreamLost(self._target, f"the connection broke while the input was sent ({error})") from error

    async def _keep_early(self) -> None:
        with contextlib.suppress(StreamLost):  # kept in `_lost`: `output` meets it again
            while not self._ended:
                if data := await self._receive():
                    self._early.append(data)

    async def _receive(self) -> bytes:
        """The next piece of stdout; empty for anything else that came."""
        if self._lost is not None:
            raise self._lost
        try:
            return await self._next()
        except StreamLost as error:
            self._lost = error
            raise
        except (aiohttp.ClientError, ConnectionError) as error:
            self._lost = StreamLost(self._target, f"the connection is closed ({error})")
            raise self._lost from error

    async def _next(self) -> bytes:
        silent = 0.0
        while True:
            try:
                message = await self._socket.receive(timeout=PING_EVERY)
            except TimeoutError:
                silent += PING_EVERY
                if silent >= SILENCE:
                    raise StreamLost(self._target, f"no answer to pings for {silent:.0f} s") from None
                await self._socket.ping()
                continue
            match message.type:
                case aiohttp.WSMsgType.BINARY:
                    return self._frame(message.data)
                case aiohttp.WSMsgType.CLOSE if message.data == aiohttp.WSCloseCode.OK:
                    self._ended = True
                    return b""
                case aiohttp.WSMsgType.PING:
                    await self._socket.pong(message.data)
                case aiohttp.WSMsgType.PONG:
                    silent = 0.0
                case other:
                    raise StreamLost(self._target, f"the connection ended before the container did ({other.name})")

    def _frame(self, frame: bytes) -> bytes:
        if not frame:
            return b""
        channel, data = frame[0], frame[1:]
        if channel == Channel.STDOUT:
            return data
        if channel == Channel.STDERR:
            self._stderr = (self._stderr + data)[-STDERR_KEPT:]
        elif channel == Channel.STATUS:
            if problem := _problem(data):
                raise StreamLost(self._target, problem)
            self._ended = True
        return b""


class _Status(Slim, frozen=True):
    status: str = ""
    message: str = ""


def _problem(frame: bytes) -> str:
    """What the status frame complains of; empty when the container ended and all was sent."""
    try:
        status = msgspec.json.decode(frame, type=_Status)
    except msgspec.MsgspecError:
        return "the attach ended with an unreadable status"
    return "" if status.status == "Success" else status.message or "the node ended the attach"
