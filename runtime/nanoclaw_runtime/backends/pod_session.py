"""One session that runs in a pod: its outputs, its end, its stop.

Output comes live from the attach that delivered the input, if this process has it. After a lost
stream, and for a session found running, it is read from the pod's log from the start, without
what was already delivered. How the agent ended is told by the pod.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncGenerator, Callable
from datetime import datetime, timedelta
from typing import Final

import structlog

from nanoclaw_runtime.backends.agent_pods import LOOK_AGAIN, LOOK_AGAIN_AT_MOST, AgentPods, over, over_or_gone
from nanoclaw_runtime.backends.reading import Reading, until
from nanoclaw_runtime.backends.vehicles import Holder, Vehicle
from nanoclaw_runtime.contract import labels
from nanoclaw_runtime.contract.config import Transport
from nanoclaw_runtime.domain.errors import Diagnosis, FailureKind, SessionFailed
from nanoclaw_runtime.domain.model import AgentOutput, SessionRef
from nanoclaw_runtime.kube import diagnose
from nanoclaw_runtime.kube.attach import AttachedStreams
from nanoclaw_runtime.kube.deadline import Deadline
from nanoclaw_runtime.kube.errors import DeadlineExceeded, KubeError, StreamLost
from nanoclaw_runtime.kube.resources import Pod
from nanoclaw_runtime.kube.retry import pause
from nanoclaw_runtime.manifests.pod import CONTAINER

_log = structlog.get_logger(__name__)

EXIT_SHOWN_WITHIN: Final = 10.0
"""Seconds from the end of an agent's output to its exit in the API: 0.2 to 4 were seen."""

RESTARTED_WITHIN: Final = 5.0
"""Seconds from an agent's end to its container running again, where its pod does that; a second was seen."""

RELEASED_WITHIN: Final = 120.0
"""Seconds from the end of a session for the API server to be told of it."""

LOG_ENDS_WITHIN: Final = 10.0
"""Seconds from an agent's end in the API to the end of its log that is followed."""

LOG_TRIES: Final = 6
"""Of reading the log of an agent that has ended; a node that does not answer takes it along."""


class PodSession:
    """One session, started here or found running, or parked and without any input yet."""

    def __init__(
        self,
        pods: AgentPods,
        vehicle: Vehicle,
        holder: Holder,
        streams: AttachedStreams | None = None,
        *,
        stopped: Callable[[str], None],
    ) -> None:
        """`stopped` is told the session before it is taken away."""
        self._pods = pods
        self._vehicle = vehicle
        self._holder = holder
        self._ref = holder.ref
        self._streams = streams
        self._stopped = stopped
        self._seen: Pod | None = None
        """The pod when it was last seen; what is left to explain its end when it vanishes."""

    @property
    def ref(self) -> SessionRef:
        return self._ref

    @property
    def parked(self) -> str | None:
        """See `RunningSession.parked`."""
        return self._holder.parked

    @property
    def transport(self) -> Transport:
        """See `RunningSession.transport`."""
        return self._holder.transport

    @property
    def created(self) -> datetime | None:
        """See `RunningSession.created`. Not its holder's time: a set is older than the session it holds."""
        pod = self._known_pod()
        return pod.metadata.creation_timestamp if pod is not None else None

    async def outputs(self, skip: int = 0) -> AsyncGenerator[AgentOutput]:
        """See `RunningSession.outputs`."""
        try:
            async with contextlib.aclosing(self._said(skip)) as said:
                async for output in said:
                    yield output
        except SessionFailed:
            await self._release()
            raise
        await self._release()

    async def _said(self, skip: int) -> AsyncGenerator[AgentOutput]:
        following = skip
        stderr = ""
        if self._streams is not None:
            async with contextlib.aclosing(self._live(self._streams, following)) as live:
                async for output in live:
                    following = output.ordinal + 1
                    yield output
            stderr = self._streams.stderr
            if self._streams.complete and (pod := await self._ended(EXIT_SHOWN_WITHIN)):
                self._judge(pod, stderr)
                return
        async with contextlib.aclosing(self._logged(following)) as logged:
            async for output in logged:
                yield output
        if pod := await self._ended(0):
            self._judge(pod, stderr)

    async def stop(self, *, grace: timedelta) -> None:
        """See `RunningSession.stop`. What a Job that ended by itself left stays until Kubernetes deletes it."""
        self._stopped(self._ref.session)
        if grace and self._known_pod() is not None:
            with contextlib.suppress(SessionFailed):  # gone is what we want
                await self._ended(grace.total_seconds())
        pod = self._known_pod()
        try:
            if pod is not None and over(pod):
                await self._vehicle.release(self._holder)
            else:
                await self._vehicle.remove(self._holder)
        except KubeError as error:
            raise SessionFailed(self._ref.session, diagnose.api_failure(error)) from error

    async def _release(self) -> None:
        """What is not released bars the group's next session, so it is tried for a while."""
        deadline, attempt = Deadline.after(RELEASED_WITHIN), 0
        while True:
            try:
                await self._vehicle.release(self._holder)
            except KubeError as error:
                _log.warning("session.not-released", session=self._ref.session, error=error.message)
                if deadline.passed:
                    return
                await asyncio.sleep(pause(attempt, error))
                attempt += 1
            else:
                return

    async def _live(self, streams: AttachedStreams, following: int) -> AsyncGenerator[AgentOutput]:
        """The outputs of the attach from ordinal `following` on; ends when the agent does, or the connection breaks."""
        reading = Reading(following)
        try:
            async with contextlib.aclosing(streams.output()) as stdout:
                async for data in stdout:
                    for output in reading.feed(data):
                        yield output
            for output in reading.close():
                yield output
        except StreamLost as error:
            _log.info("session.stream-lost", session=self._ref.session, error=error.message)
        finally:
            await streams.close()

    async def _logged(self, following: int) -> AsyncGenerator[AgentOutput]:
        """The outputs from ordinal `following` on, out of the pod's log; ends when the agent has ended and all is read.

        Following a log also ends when the kubelet rotates the file or restarts, and asked for in the moment in which
        a set's pod starts its container again it is the next one's, and never ends. So what counts is
        a reading that began after the agent had ended. Rotation also takes the oldest outputs away.
        A log with fewer of them than were delivered before has lost its beginning, and those it
        still has cannot be told apart from known ones.
        """
        tries = 0
        while True:
            pod = await self._last_word(await self._pod())
            ended = over(pod)
            reading = Reading(following)
            try:
                chunks = self._pods.client.pod_log(
                    pod.metadata.name,
                    container=CONTAINER,
                    namespace=self._pods.namespace,
                    follow=not ended,
                    previous=pod.restarts(CONTAINER) > 0,
                )
                async with contextlib.aclosing(chunks if ended else until(self._long_over(), chunks)) as told:
                    async for data in told:
                        for output in reading.feed(data):
                            following = output.ordinal + 1
                            yield output
                tries = 0
            except KubeError as error:
                tries += 1
                _log.info("session.log-interrupted", session=self._ref.session, error=error.message, tries=tries)
                if lost := diagnose.loss(pod):  # its node is, and the log with it
                    raise SessionFailed(self._ref.session, lost) from error
                if ended and tries >= LOG_TRIES:
                    raise SessionFailed(self._ref.session, _unreadable(pod, error)) from error
                await asyncio.sleep(pause(tries, error))
                continue
            if ended:
                for output in reading.close():
                    yield output
                if reading.count < following:
                    raise SessionFailed(self._ref.session, _cut_off(pod, reading.count, following))
                return
            await self._ended(LOOK_AGAIN)

    async def _long_over(self) -> None:
        """Return when the agent has ended, or its pod is gone, and its log should have ended as well."""
        with contextlib.suppress(SessionFailed):
            await self._ended(math.inf)
        await asyncio.sleep(LOG_ENDS_WITHIN)

    async def _last_word(self, pod: Pod) -> Pod:
        """The pod, and of one that starts its container again: when that is done.

        The first run's log has another address then, and what lies at its old one is empty: read in between it would
        look as if the agent had said nothing.
        """
        if pod.spec.restart_policy != "Always" or not over(pod) or pod.restarts(CONTAINER):
            return pod
        with contextlib.suppress(DeadlineExceeded):
            found = await self._pods.watched.until(
                pod.metadata.name,
                lambda now: now is None or not self._is(now) or now.restarts(CONTAINER) > 0,
                Deadline.after(RESTARTED_WITHIN),
            )
            if found is not None and self._is(found):
                return found
        return pod

    async def _ended(self, seconds: float) -> Pod | None:
        """The pod when its agent has ended within so many seconds, else None. Raises SessionFailed when it is gone."""
        name = (await self._pod()).metadata.name
        try:
            pod = await self._pods.watched.until(name, self._look, Deadline.after(seconds))
        except DeadlineExceeded:
            return None
        if pod is None or not self._is(pod):
            raise SessionFailed(self._ref.session, diagnose.vanished(self._holder.name, self._seen))
        return self._with_its_container(pod)

    def _look(self, pod: Pod | None) -> bool:
        if pod is not None and (not self._is(pod) or self._replaced(pod)):
            return True  # a set's next pod has the name of its last one
        self._seen = pod or self._seen
        return over_or_gone(pod)

    def _is(self, pod: Pod) -> bool:
        """Not so for a pod that was made in its place: that one has the session's labels, and no input."""
        session = pod.metadata.label(labels.SESSION) == self._ref.session
        return session and self._holder.pod in {None, pod.metadata.uid}

    def _replaced(self, pod: Pod) -> bool:
        """The pod tells of another container, as if that had been its first: its own was lost, and how it ended."""
        return self._holder.container is not None and pod.first_container(CONTAINER) not in {"", self._holder.container}

    def _with_its_container(self, pod: Pod) -> Pod:
        if self._replaced(pod):
            raise SessionFailed(self._ref.session, _lost_count(pod))
        return pod

    async def _pod(self) -> Pod:
        """The session's pod, waiting for it to be made. Raises SessionFailed when there is none and none will come."""
        watched, session = self._pods.watched, self._ref.session
        await watched.synced(Deadline.never())
        while (pod := self._known_pod()) is None:
            if self._seen is not None or self._holder.pod is not None or await self._is_over():
                raise SessionFailed(session, diagnose.vanished(self._holder.name, self._seen))
            with contextlib.suppress(DeadlineExceeded):
                await watched.find(
                    lambda pod: pod.metadata.label(labels.SESSION) == session, Deadline.after(LOOK_AGAIN_AT_MOST)
                )
        self._seen = pod
        return self._with_its_container(pod)

    async def _is_over(self) -> bool:
        try:
            return await self._vehicle.is_over(self._holder)
        except KubeError as error:
            _log.info("session.not-seen", session=self._ref.session, error=error.message)
            return False

    def _known_pod(self) -> Pod | None:
        return self._pods.pod_of(self._ref.session, self._holder.pod)

    def _judge(self, pod: Pod, stderr: str) -> None:
        if failure := diagnose.ending(pod, CONTAINER, stderr):
            raise SessionFailed(self._ref.session, failure)
        _log.info("session.ended", session=self._ref.session, pod=pod.metadata.name)


def _lost_count(pod: Pod) -> Diagnosis:
    return Diagnosis(
        FailureKind.NODE_LOST,
        f"node {pod.spec.node_name} lost the container of pod {pod.metadata.name} and made another one, which has no "
        "input; look at the node's disk and container runtime",
        diagnose.INTERRUPTED,
    )


def _unreadable(pod: Pod, error: KubeError) -> Diagnosis:
    return diagnose.loss(pod) or Diagnosis(
        FailureKind.API,
        f"the log of pod {pod.metadata.name} cannot be read, so answers may be missing: {error.message}; "
        f"check node {pod.spec.node_name}",
        diagnose.INTERRUPTED,
    )


def _cut_off(pod: Pod, left: int, known: int) -> Diagnosis:
    return Diagnosis(
        FailureKind.API,
        f"the log of pod {pod.metadata.name} has only {left} of at least {known} outputs because the node rotated it, "
        f"so answers may be missing; raise containerLogMaxSize on node {pod.spec.node_name}",
        diagnose.INTERRUPTED,
    )
