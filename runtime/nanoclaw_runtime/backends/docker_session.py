"""One session that runs as a Docker container: its outputs, its end, its stop.

Output comes live from the client that started the container, if this process has it. After a lost
client, and for a session found running, it is read from the container's log from the start,
without what was already delivered. A container that has ended stays until that is done, so no
output is lost because nobody listened.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from datetime import timedelta
from typing import Final

import structlog

from nanoclaw_runtime.backends import docker_diagnosis as diagnosis
from nanoclaw_runtime.backends.docker_client import Client, DockerClient, DockerFailed, EngineAway, State
from nanoclaw_runtime.backends.reading import Reading
from nanoclaw_runtime.contract.config import Transport
from nanoclaw_runtime.domain.errors import SessionFailed
from nanoclaw_runtime.domain.model import AgentOutput, SessionRef
from nanoclaw_runtime.kube.retry import pause

_log = structlog.get_logger(__name__)

LOG_TRIES: Final = 6
"""Of reading the log of a container that has ended."""

DOCKER_FAILED: Final = 125
"""Exit status of a client whose own business failed, whatever became of the container."""


class DockerSession:
    """One session, started here or found running."""

    def __init__(
        self,
        docker: DockerClient,
        ref: SessionRef,
        name: str,
        *,
        release: Callable[[str], None],
        client: Client | None = None,
    ) -> None:
        """`release` is told the name once nobody needs the ended container any more."""
        self._docker = docker
        self._ref = ref
        self._name = name
        self._release = release
        self._client = client
        self._stopped = False

    @property
    def ref(self) -> SessionRef:
        return self._ref

    @property
    def parked(self) -> None:
        """See `RunningSession.parked`: on a Docker host nothing is."""
        return None

    @property
    def transport(self) -> Transport:
        """See `RunningSession.transport`: host and agents share their folders."""
        return Transport.VOLUME

    @property
    def created(self) -> None:
        """See `RunningSession.created`: asked of parked ones alone."""
        return None

    async def outputs(self, skip: int = 0) -> AsyncGenerator[AgentOutput]:
        """See `RunningSession.outputs`."""
        following = skip
        if self._client is not None:
            async with contextlib.aclosing(self._live(self._client, following)) as live:
                async for output in live:
                    following = output.ordinal + 1
                    yield output
            state = await self._state()
            if state.over and self._client.code == state.exit_code != DOCKER_FAILED:
                self._judge(state, self._client.stderr)
                return
            _log.info("session.client-lost", session=self._ref.session, code=self._client.code)
        async with contextlib.aclosing(self._logged(following)) as logged:
            async for output in logged:
                yield output

    async def stop(self, *, grace: timedelta) -> None:
        """See `RunningSession.stop`. A container that ended by itself stays for a while, to be looked at."""
        try:
            if grace:
                await self._docker.wait(self._name, grace.total_seconds())
            state = await self._docker.state(self._name)
            if state is not None and state.over:
                self._release(self._name)
                return
            self._stopped = True
            await self._docker.remove(self._name)
        except DockerFailed as error:
            raise SessionFailed(self._ref.session, diagnosis.refused(self._name, error)) from error

    async def _live(self, client: Client, following: int) -> AsyncGenerator[AgentOutput]:
        """The outputs from ordinal `following` on; ends when the agent does, or the client is lost."""
        reading = Reading(following)
        try:
            async with contextlib.aclosing(client.stdout()) as stdout:
                async for data in stdout:
                    for output in reading.feed(data):
                        yield output
            for output in reading.close():
                yield output
            await client.ended()
        finally:
            await client.close()

    async def _logged(self, following: int) -> AsyncGenerator[AgentOutput]:
        """The outputs from ordinal `following` on, out of the log; ends when the agent has ended and all is read.

        What counts is a reading that began after the agent had ended: following a log also ends with
        the engine.
        """
        tries = 0
        while True:
            state = await self._state()
            reading, problem, stderr = Reading(following), "", ""
            client = await self._docker.open("logs", *([] if state.over else ["--follow"]), self._name)
            try:
                async with contextlib.aclosing(client.stdout()) as stdout:
                    async for data in stdout:
                        for output in reading.feed(data):
                            following = output.ordinal + 1
                            yield output
                problem = client.stderr if await client.ended() else ""
                stderr = client.stderr
            finally:
                await client.close()
            if problem:
                tries += 1
                _log.info("session.log-interrupted", session=self._ref.session, error=problem, tries=tries)
                if state.over and tries >= LOG_TRIES:
                    raise SessionFailed(self._ref.session, diagnosis.unreadable(self._name, problem))
            elif state.over:
                for output in reading.close():
                    yield output
                self._finish_reading(state, reading, following, stderr)
                return
            await asyncio.sleep(pause(tries))

    def _finish_reading(self, state: State, reading: Reading, following: int, stderr: str) -> None:
        if reading.count < following:
            self._release(self._name)
            raise SessionFailed(self._ref.session, diagnosis.cut_off(self._name, reading.count, following))
        self._judge(state, stderr)

    async def _state(self) -> State:
        """The container's state, waiting for an engine that is away. Raises SessionFailed when it is gone."""
        tries = 0
        while True:
            try:
                state = await self._docker.state(self._name)
            except EngineAway as error:
                _log.info("session.not-seen", session=self._ref.session, error=str(error), tries=tries)
                await asyncio.sleep(pause(tries))
                tries += 1
                continue
            except DockerFailed as error:
                raise SessionFailed(self._ref.session, diagnosis.refused(self._name, error)) from error
            if state is None:
                raise SessionFailed(self._ref.session, diagnosis.vanished(self._name, stopped=self._stopped))
            return state

    def _judge(self, state: State, stderr: str) -> None:
        self._release(self._name)
        if failure := diagnosis.ending(self._name, state, stderr, stopped=self._stopped):
            raise SessionFailed(self._ref.session, failure)
        _log.info("session.ended", session=self._ref.session, container=self._name)
