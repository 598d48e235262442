"""The Docker engine, asked by its own command line, as NanoClaw asks it.

What the client prints becomes values and errors here and nowhere else. A client is a process of
its own: ending one never ends a container, which is done by the container's name. Not here: what
a container's state means for a session.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Final, Self

from nanoclaw_runtime.domain.errors import NanoclawError

ANSWER: Final = 30.0
"""Seconds for a call that waits for nothing but the engine; a busy one took two."""

REMOVAL: Final = 60.0
"""Seconds from a kill to the container being gone."""

TAIL: Final = 4096
# Bytes of stderr that are kept.

_AWAY: Final = ("cannot connect to the docker daemon", "error during connect", "permission denied while trying")
_UNKNOWN: Final = ("no such container", "no such object")
_PART: Final = 64 * 1024


class DockerFailed(NanoclawError):
    """The engine refused; the text is its own."""


class EngineAway(DockerFailed):
    """The engine, or the program `docker`, cannot be reached; the text says what to check."""


class ContainerUnknown(DockerFailed):
    """The container is no more, or not yet."""


@dataclass(frozen=True)
class State:
    """What the engine says of one container."""

    status: str
    """`created`, `running`, `paused`, `restarting`, `removing`, `exited` or `dead`."""
    exit_code: int
    out_of_memory: bool

    @classmethod
    def parse(cls, text: str) -> Self:
        found = json.loads(text)
        return cls(found["Status"], found["ExitCode"], found["OOMKilled"])

    @property
    def over(self) -> bool:
        """It ran, and will not again."""
        return self.status in {"exited", "dead"}


@dataclass(frozen=True)
class Container:
    """One line of `docker ps`."""

    name: str
    status: str
    labels: Mapping[str, str]

    @property
    def alive(self) -> bool:
        """It touches its folders, or may yet."""
        return self.status not in {"exited", "dead"}

    @property
    def ran(self) -> bool:
        """Its agent was started, whatever became of it."""
        return self.status != "created"


class Client:
    """A running `docker` process. Close it; that does not touch the container."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._stderr = bytearray()
        self._listening = asyncio.create_task(self._listen(), name=f"stderr of docker client {process.pid}")

    @property
    def stderr(self) -> str:
        """The last of what it, and the container through it, said on stderr."""
        return self._stderr.decode(errors="replace")

    @property
    def code(self) -> int | None:
        """Its exit status: the container's own, or 125 when Docker failed; None while it runs."""
        return self._process.returncode

    def give(self, data: bytes) -> None:
        """Put `data` and then the end on its stdin; `given` tells when all of it is taken."""
        assert self._process.stdin is not None
        self._process.stdin.write(data)
        self._process.stdin.close()

    async def given(self) -> None:
        """Return when stdin is written and closed, or its other end is gone."""
        await asyncio.shield(self._stdin_closed())  # asyncio trips over it when the pipe goes and this was cancelled

    async def stdout(self) -> AsyncGenerator[bytes]:
        """What it prints, until it has ended and said everything."""
        assert self._process.stdout is not None
        while data := await self._process.stdout.read(_PART):
            yield data

    async def ended(self) -> int:
        """Its exit status, as soon as there is one."""
        await asyncio.shield(self._listening)
        return await self._process.wait()

    async def close(self) -> None:
        """End it if it still runs."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        assert self._process.stdout is not None
        while await self._process.stdout.read(_PART):
            pass  # a pipe that is left full stays open
        await self.ended()

    async def _stdin_closed(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            await self._process.stdin.wait_closed()

    async def _listen(self) -> None:
        assert self._process.stderr is not None
        while data := await self._process.stderr.read(_PART):
            self._stderr += data
            del self._stderr[:-TAIL]


class DockerClient:
    """Calls to one engine."""

    def __init__(self, host: str | None = None) -> None:
        """`host` is an address as `docker --host` takes it; what `docker` itself would choose when left out."""
        self._host = host

    async def open(self, *arguments: str, stdin: bool = False) -> Client:
        """Start a client that is talked to or listened to. Raises EngineAway when that cannot be."""
        where = ("--host", self._host) if self._host else ()
        try:
            process = await asyncio.create_subprocess_exec(
                "docker",
                *where,
                *arguments,
                stdin=PIPE if stdin else DEVNULL,
                stdout=PIPE,
                stderr=PIPE,
                start_new_session=True,  # Ctrl-C at the controller's terminal is not for the agents
            )
        except FileNotFoundError as error:
            raise EngineAway("the program docker is not on PATH; install Docker's command line") from error
        except OSError as error:  # no process, descriptor or memory is left: it passes, or is somebody's to correct
            raise EngineAway(f"the program docker cannot be started: {error}") from error
        return Client(process)

    async def call(self, *arguments: str, within: float = ANSWER) -> str:
        """What the client printed. Raises EngineAway, ContainerUnknown or DockerFailed."""
        client = await self.open(*arguments)
        try:
            async with asyncio.timeout(within):
                out = b"".join([data async for data in client.stdout()])
                code = await client.ended()
        except TimeoutError as error:
            raise EngineAway(
                f"`docker {arguments[0]}` had no answer within {within:.0f} s; check the engine"
            ) from error
        finally:
            await client.close()
        if code:
            raise failure(client.stderr)
        return out.decode(errors="replace")

    async def ready(self) -> str:
        """The engine's version. Raises DockerFailed when it cannot be used."""
        return (await self.call("info", "--format", "{{.ServerVersion}}")).strip()

    async def has_image(self, reference: str) -> bool:
        try:
            await self.call("image", "inspect", "--format", "{{.Id}}", reference)
        except EngineAway:
            raise
        except DockerFailed:
            return False
        return True

    async def containers(self, labels: Mapping[str, str], *show: str) -> list[Container]:
        """Containers with these labels, ended ones too, each with the labels `show`."""
        filters = [option for key, value in labels.items() for option in ("--filter", f"label={key}={value}")]
        columns = ["{{.Names}}", "{{.State}}", *(f'{{{{.Label "{name}"}}}}' for name in show)]
        lines = await self.call("ps", "--all", "--no-trunc", *filters, "--format", "\t".join(columns))
        found = [line.split("\t") for line in lines.splitlines()]
        return [Container(name, status, dict(zip(show, values, strict=True))) for name, status, *values in found]

    async def state(self, name: str) -> State | None:
        """None when there is no such container."""
        try:
            return State.parse(await self.call("inspect", "--type", "container", "--format", "{{json .State}}", name))
        except ContainerUnknown:
            return None

    async def wait(self, name: str, seconds: float) -> None:
        """Return when the container has ended or is gone, or when the time is up."""
        with contextlib.suppress(ContainerUnknown, TimeoutError):
            async with asyncio.timeout(seconds):
                await self.call("wait", name, within=seconds + ANSWER)

    async def remove(self, name: str) -> bool:
        """Kill and remove the container and return when it is gone; False when there was none.

        Raises DockerFailed when it does not go away.
        """
        if await self.state(name) is None:
            return False
        try:
            await self.call("rm", "--force", "--volumes", name, within=REMOVAL)
        except ContainerUnknown:
            return True
        except DockerFailed:
            if not await self._vanishes(name):
                raise
        return True

    async def _vanishes(self, name: str) -> bool:
        """Whether the container goes although we were refused: somebody else may be removing it already."""
        for _ in range(round(REMOVAL)):
            state = await self.state(name)
            if state is None or state.status != "removing":
                break
            await asyncio.sleep(1)
        return state is None


def failure(stderr: str) -> DockerFailed:
    """The error behind what a client said before it gave up."""
    text = stderr.partition("\n\nRun 'docker")[0].strip()
    lowered = text.lower()
    if any(words in lowered for words in _AWAY):
        return EngineAway(text)
    if any(words in lowered for words in _UNKNOWN):
        return ContainerUnknown(text)
    return DockerFailed(text or "docker failed without a word")
