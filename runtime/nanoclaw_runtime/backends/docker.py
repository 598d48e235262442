"""Sessions as Docker containers on one host: `docker run -i`, as NanoClaw starts its agents.

A container is removed by us and not by `--rm`, which would take its log along before anybody had
read it: an answer that is printed while no controller listens is still there for the next one.
Nothing here decides whether to start, retry or stop; what becomes of a session that runs is
`docker_session`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path, PurePosixPath
from typing import Final

import structlog

from nanoclaw_runtime.backends import docker_diagnosis as diagnosis
from nanoclaw_runtime.backends.base import RunningSession, no_room
from nanoclaw_runtime.backends.docker_client import Client, Container, DockerClient, DockerFailed, failure
from nanoclaw_runtime.backends.docker_session import DockerSession
from nanoclaw_runtime.backends.to_the_end import to_the_end
from nanoclaw_runtime.contract import labels, names
from nanoclaw_runtime.domain.errors import SessionFailed
from nanoclaw_runtime.domain.model import SessionKind, SessionPlan, SessionRef, SessionSpec
from nanoclaw_runtime.ipc.bind_mounts import make_ready
from nanoclaw_runtime.kube.deadline import Deadline
from nanoclaw_runtime.manifests.docker import DockerHost, agent_run, bind_mounts, container_name
from nanoclaw_runtime.manifests.pod import UID

_log = structlog.get_logger(__name__)

FIRST_LOOK: Final = 0.1
LAST_LOOK: Final = 1.0
"""Seconds between two looks at a container that is being started; one is up after about 0.3."""

UNDONE_WITHIN: Final = 20.0
"""Seconds a start that is undone gets to show its container, which is then removed."""

SWEEP: Final = 5.0
"""Seconds between two looks at ended containers that nobody needs any more."""


class DockerBackend:
    """Starts containers for one tree and finds those that run. Its owner keeps `run` in a task."""

    def __init__(self, docker: DockerClient, tree: Path, *, keep: float, network: str | None = None) -> None:
        """`keep` is how many seconds an ended container stays for the operator to look at."""
        self._docker = docker
        self._tree = tree.resolve()
        uid, gid = (os.geteuid(), os.getegid()) if os.geteuid() else (UID, UID)
        self.host = DockerHost(PurePosixPath(self._tree), uid, gid, network)
        self._keep = keep
        self._released: dict[str, float] = {}
        self.make_room: Callable[[str], Awaitable[bool]] = no_room
        """See `Backend.make_room`; a Docker host refuses nobody."""

    async def run(self) -> None:
        """Remove ended containers when their time is up, until cancelled."""
        while True:
            await self._sweep()
            await asyncio.sleep(SWEEP)

    async def start(self, spec: SessionSpec) -> RunningSession:
        """See `Backend.start`: returns when the container runs and stdin is closed behind its input."""
        ref, seconds = spec.plan.ref, spec.plan.config.start_timeout
        stdin = await spec.stdin
        try:
            await self._await_predecessors(ref, Deadline.after(seconds))
            await asyncio.to_thread(make_ready, self._tree, bind_mounts(spec.plan), self.host.uid, self.host.gid)
            return await self._start(spec.plan, stdin, Deadline.after(seconds))
        except DockerFailed as error:
            raise SessionFailed(ref.session, diagnosis.refused(container_name(spec.plan), error)) from error
        except OSError as error:
            raise SessionFailed(ref.session, diagnosis.unusable_folder(error)) from error

    async def running(self) -> list[RunningSession]:
        """See `Backend.running`: the containers of this tree that are not being removed."""
        shown = (labels.FOLDER, labels.SESSION, labels.KIND)
        sessions: list[RunningSession] = []
        for container in await self._docker.containers(self.host.selector, *shown):
            ref = _ref(container)
            if ref is None:
                _log.warning("container.not-a-session", container=container.name, remedy="remove it if nobody knows it")
            elif container.status != "removing":
                sessions.append(DockerSession(self._docker, ref, container.name, release=self._release))
        return sessions

    async def prepare(self, plan: SessionPlan) -> None:
        """See `Backend.prepare`: nothing is parked on a Docker host, where a start is quick and nobody shares nodes."""

    def waits(self, session: str) -> None:
        """See `Backend.waits`."""

    async def once_parked(self) -> set[str]:
        """See `Backend.once_parked`: nobody."""
        return set()

    def never_fed(self, session: str) -> None:
        """See `Backend.never_fed`."""

    async def _start(self, plan: SessionPlan, stdin: bytes, deadline: Deadline) -> DockerSession:
        ref, name = plan.ref, container_name(plan)
        client = await self._docker.open(*agent_run(plan, self.host), stdin=True)
        try:
            client.give(stdin)
            await self._until_running(client, name, ref, deadline)
            await self._until_given(client, name, ref, deadline)
        except BaseException:
            await to_the_end(self._discard(client, ref))
            raise
        _log.info("session.started", session=ref.session, group=ref.folder, container=name)
        return DockerSession(self._docker, ref, name, release=self._release, client=client)

    async def _await_predecessors(self, ref: SessionRef, deadline: Deadline) -> None:
        """Return when no other container of the group can touch its folders any more."""
        group = self.host.selector | {labels.GROUP: names.slug(ref.folder)}
        while True:
            found = await self._docker.containers(group, labels.SESSION)
            others = [one for one in found if one.alive and one.labels[labels.SESSION] != ref.session]
            if not others:
                return
            if deadline.passed:
                name, session = others[0].name, others[0].labels[labels.SESSION]
                raise SessionFailed(ref.session, diagnosis.predecessor(name, session))
            _log.info("session.waits-for-predecessor", session=ref.session, container=others[0].name)
            await self._docker.wait(others[0].name, min(SWEEP, deadline.remaining()))
            await asyncio.sleep(FIRST_LOOK)  # one that never ran has nothing to be waited for

    async def _until_running(self, client: Client, name: str, ref: SessionRef, deadline: Deadline) -> None:
        """Return when the container runs, or has run. Raises SessionFailed as soon as it never will."""
        patience = FIRST_LOOK
        while True:
            ended = await _ended_within(client, min(patience, deadline.remaining()))
            own = await self._own(ref)
            if own is not None and own.ran:
                return
            if ended:
                raise SessionFailed(ref.session, diagnosis.refused(name, failure(client.stderr)))
            if deadline.passed:
                raise SessionFailed(ref.session, diagnosis.late(name, own))
            patience = min(LAST_LOOK, patience * 2)

    async def _until_given(self, client: Client, name: str, ref: SessionRef, deadline: Deadline) -> None:
        try:
            async with asyncio.timeout(deadline.remaining()):
                await client.given()
        except TimeoutError as error:
            raise SessionFailed(ref.session, diagnosis.late(name, await self._own(ref))) from error

    async def _discard(self, client: Client, ref: SessionRef) -> None:
        """Undo a start that failed or was cancelled. What fails here is only logged: the first failure tells more.

        Not by ending the client, which may have asked for a container that is not there yet.
        """
        deadline = Deadline.after(UNDONE_WITHIN)
        try:
            while not await self._remove(ref):
                if await _ended_within(client, FIRST_LOOK) or deadline.passed:
                    await client.close()
                    await self._remove(ref)
                    break
        except DockerFailed as error:
            _log.error("session.left-behind", session=ref.session, error=str(error))
        finally:
            await client.close()

    async def _remove(self, ref: SessionRef) -> bool:
        own = await self._own(ref)
        return own is not None and await self._docker.remove(own.name)

    async def _own(self, ref: SessionRef) -> Container | None:
        """The session's container. Not by its name, which a stranger may have taken."""
        found = await self._docker.containers(self.host.selector | {labels.SESSION: ref.session})
        return found[0] if found else None

    def _release(self, name: str) -> None:
        self._released.setdefault(name, asyncio.get_running_loop().time() + self._keep)

    async def _sweep(self) -> None:
        now = asyncio.get_running_loop().time()
        for name in [name for name, due in self._released.items() if due <= now]:
            try:
                await self._docker.remove(name)
            except DockerFailed as error:  # the others go all the same
                _log.warning("docker.not-swept", container=name, problem=str(error))
            else:
                del self._released[name]


async def _ended_within(client: Client, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await client.ended()
    except TimeoutError:
        return False
    return True


def _ref(container: Container) -> SessionRef | None:
    folder, session, kind = (container.labels[key] for key in (labels.FOLDER, labels.SESSION, labels.KIND))
    if not folder or not session or kind not in set(SessionKind):
        return None
    return SessionRef(folder, session, SessionKind(kind))
