"""Sessions as pods of a cluster, whatever holds them: a Job each, or the StatefulSet of the group.

The pods' state is the sessions' state (a Job's status lags by a second and more), and one watch
shows all of them. An agent gets its input by attach, once, as soon as its container runs, which
it does already when it was parked; a start that fails, or is cancelled, takes its pod away again.
Nothing here decides whether to start, park, retry or stop; how a pod is held is `vehicles`, how it is
waited for `awaited_pods`, and what becomes of a session that runs is `pod_session`.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

import structlog

from nanoclaw_runtime.backends.agent_pods import AgentPods, over
from nanoclaw_runtime.backends.awaited_pods import AwaitedPods
from nanoclaw_runtime.backends.base import RunningSession, no_room
from nanoclaw_runtime.backends.job import JobVehicle
from nanoclaw_runtime.backends.pod_session import PodSession
from nanoclaw_runtime.backends.statefulset import SetVehicle
from nanoclaw_runtime.backends.stopwatch import Stopwatch
from nanoclaw_runtime.backends.to_the_end import to_the_end
from nanoclaw_runtime.backends.vehicles import Holder, Vehicle
from nanoclaw_runtime.contract import labels, names
from nanoclaw_runtime.contract.config import Pattern
from nanoclaw_runtime.domain.errors import Diagnosis, FailureKind, SessionFailed
from nanoclaw_runtime.domain.model import SessionPlan, SessionRef, SessionSpec
from nanoclaw_runtime.kube import diagnose
from nanoclaw_runtime.kube.attach import AttachedStreams, attach
from nanoclaw_runtime.kube.client import KubeClient
from nanoclaw_runtime.kube.deadline import Deadline
from nanoclaw_runtime.kube.errors import (
    AlreadyExists,
    DeadlineExceeded,
    Forbidden,
    KubeError,
)
from nanoclaw_runtime.kube.resources import Pod
from nanoclaw_runtime.kube.retry import pause
from nanoclaw_runtime.manifests.identity import fingerprint
from nanoclaw_runtime.manifests.pod import CONTAINER

_log = structlog.get_logger(__name__)

UNUSED_GONE_WITHIN: Final = 10.0
"""Seconds for a parked agent that is not used to go, before its group's next start is tried without waiting for it."""

REACHED_WITHIN: Final = 5.0
"""Seconds for a connection to a parked agent; beyond it its node is taken for lost, and another one is started."""


class ClusterBackend:
    """Starts agents in one namespace and finds those that run. Its owner keeps `run` in a task."""

    def __init__(
        self,
        client: KubeClient,
        namespace: str,
        *,
        pattern: Pattern = Pattern.JOB,
        node: str | None = None,
        apart: bool = False,
    ) -> None:
        """With `node` only sessions that belong to it are ours: the controllers of other nodes have the others.

        `apart` tells that folders of other nodes are others: what runs there stands in nobody's way.
        """
        self._client = client
        self._namespace = namespace
        self._node = node
        self._apart = apart
        self._pods = AgentPods(client, namespace)
        self.pods = self._pods.watched
        """The pod of every agent; its `age` and `relists` tell how fresh our picture of the cluster is."""
        jobs = JobVehicle(self._pods)
        self._vehicles: dict[Pattern, Vehicle] = {Pattern.JOB: jobs, Pattern.STATEFULSET: SetVehicle(self._pods)}
        if not pattern.has_claims:  # and no right to touch sets, where nobody may ask for one
            self._vehicles = {pattern: jobs}
        self.make_room: Callable[[str], Awaitable[bool]] = no_room
        """See `Backend.make_room`."""
        self._awaited = AwaitedPods(self._pods, lambda folder: self.make_room(folder))  # noqa: PLW0108 - it is set later
        self._parked: dict[str, tuple[Vehicle, Holder]] = {}
        """By session: those that have had no input from us."""
        self._never_fed: set[str] = set()
        """Parked sessions that certainly never had an input: their pods write nothing, whatever becomes of them."""
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._nodes: dict[str, str] = {}
        """Of each group's last pod."""
        self._markings: set[asyncio.Task[None]] = set()
        """Under way: what marks pods as those that have their session's input."""

    async def run(self) -> None:
        """Watch the agents' pods until cancelled. Nothing else here works without it."""
        await self.pods.run()

    async def start(self, spec: SessionSpec) -> RunningSession:
        """See `Backend.start`: returns when the agent's stdin is closed behind its input."""
        ref, config = spec.plan.ref, spec.plan.config
        try:
            async with self._turns[ref.folder]:  # what is being prepared comes to its end
                deadline = Deadline.after(config.start_timeout)
                try:
                    await self._await_predecessors(ref, deadline)
                except BaseException:
                    await to_the_end(self._unparked(ref.session))
                    raise
                return await self._from_parked(spec, deadline) or await self._start(spec)
        except KubeError as error:
            raise SessionFailed(ref.session, diagnose.api_failure(error)) from error

    async def prepare(self, plan: SessionPlan) -> RunningSession:
        """See `Backend.prepare`."""
        ref = plan.ref
        vehicle = self._vehicles[plan.config.pattern]
        deadline = Deadline.after(plan.config.start_timeout)
        try:
            async with self._turns[ref.folder]:
                await self._await_predecessors(ref, deadline)
                await vehicle.emptied(ref, deadline)
                making = asyncio.create_task(vehicle.make(self._placed(plan), deadline), name=f"park-{ref.session}")
                try:
                    holder = await asyncio.shield(making)
                except BaseException:
                    await to_the_end(self._discard(ref, vehicle, making))
                    raise
        except KubeError as error:
            raise SessionFailed(ref.session, diagnose.api_failure(error)) from error
        self._parked[ref.session] = vehicle, holder
        self._never_fed.add(ref.session)
        _log.info("session.parked", session=ref.session, group=ref.folder)
        return PodSession(self._pods, vehicle, holder, stopped=self._forget)

    def waits(self, session: str) -> bool | None:
        """See `Backend.waits`."""
        if session not in self._parked:
            return None
        pod = self._pods.pod_of(session)
        if pod is None:
            return False
        if over(pod) or pod.metadata.deletion_timestamp is not None or diagnose.hopeless_start(pod, CONTAINER):
            return None
        return pod.ready

    async def once_parked(self) -> set[str]:
        """See `Backend.once_parked`. Of pods of other nodes only the controllers there know whether they had any."""
        pods = await self._pods.alive(f"{labels.AGENT_SELECTOR},{labels.KIND}={labels.PARKED}")
        return {pod.metadata.label(labels.SESSION) for pod in pods if _node(pod) == self._node}

    def never_fed(self, session: str) -> None:
        """See `Backend.never_fed`."""
        self._never_fed.add(session)

    async def running(self) -> list[RunningSession]:
        """See `Backend.running`: the sessions of this installation whose pod is not being taken away."""
        sessions: list[RunningSession] = []
        known = set(self._parked)
        for vehicle in self._vehicles.values():
            for holder in await vehicle.all():
                if holder.node != self._node:
                    continue
                if holder.parked is not None:
                    self._parked.setdefault(holder.ref.session, (vehicle, holder))
                sessions.append(PodSession(self._pods, vehicle, holder, stopped=self._forget))
        for session in known - {each.ref.session for each in sessions}:
            self._forget(session)
        if self.pods.complete:
            shown = {pod.metadata.label(labels.SESSION) for pod in self.pods.objects.values()}
            self._never_fed &= shown | self._parked.keys()
        return sessions

    # A parked agent

    async def _from_parked(self, spec: SessionSpec, deadline: Deadline) -> PodSession | None:
        """Give a parked agent its input. None when there is none that can have it; what there was is gone then."""
        ref, steps = spec.plan.ref, Stopwatch()
        vehicle, holder = self._parked.pop(ref.session, (None, None))
        if vehicle is None or holder is None:
            return None
        if holder.parked == fingerprint(spec.plan):
            try:
                pod = await self._awaited.running(spec.plan, holder, vehicle, deadline)
                steps.lap("pod")
                streams = await self._reached(pod, deadline.within(REACHED_WITHIN))
                steps.lap("attach")
            except (KubeError, SessionFailed) as error:
                _log.warning("session.parked-lost", session=ref.session, group=ref.folder, error=str(error))
            except BaseException:
                await to_the_end(self._taken_away(vehicle, holder))
                raise
            else:
                return await self._given(
                    spec, vehicle, holder, pod=pod, streams=streams, steps=steps, deadline=deadline
                )
        else:
            _log.info("session.parked-stale", session=ref.session, group=ref.folder)
        await self._replaced(vehicle, holder)
        return None

    async def _replaced(self, vehicle: Vehicle, holder: Holder) -> None:
        """Take a parked agent away whose session is started anew. Raises SessionFailed where it does not go soon.

        The next try has another session, and waits for nobody who never had an input.
        """
        try:
            async with asyncio.timeout(UNUSED_GONE_WITHIN if holder.ref.session in self._never_fed else None):
                await vehicle.remove(holder)
        except TimeoutError:
            pod = self._pods.pod_of(holder.ref.session)
            lost = diagnose.undead(pod) if pod is not None else diagnose.vanished(holder.name, None)
            raise SessionFailed(holder.ref.session, lost) from None

    async def _given(
        self,
        spec: SessionSpec,
        vehicle: Vehicle,
        holder: Holder,
        *,
        pod: Pod,
        streams: AttachedStreams,
        steps: Stopwatch,
        deadline: Deadline,
    ) -> PodSession:
        """The session, when its agent has all of its input. Takes the pod away when it does not get it."""
        ref = spec.plan.ref
        # Its kind is known again, now that it has one.
        ours = replace(holder, ref=ref, pod=pod.metadata.uid, container=pod.first_container(CONTAINER) or None)
        self._never_fed.discard(ref.session)
        try:
            await self._send(spec, pod, streams, deadline)
            steps.lap("input")
        except BaseException:
            await to_the_end(self._taken_away(vehicle, holder))
            raise
        marking = asyncio.create_task(vehicle.given(ours), name=f"mark-{ref.session}")  # nobody waits for it
        self._markings.add(marking)
        marking.add_done_callback(self._markings.discard)
        self._nodes[ref.folder] = pod.spec.node_name
        parked = holder.parked is not None
        _log.info(
            "session.started", session=ref.session, group=ref.folder, pod=pod.metadata.name, parked=parked, **steps.laps
        )
        return PodSession(self._pods, vehicle, ours, streams, stopped=self._forget)

    async def _unparked(self, session: str) -> None:
        if (found := self._parked.pop(session, None)) is not None:
            await self._taken_away(*found)

    def _forget(self, session: str) -> None:
        self._parked.pop(session, None)

    # Any other

    async def _start(self, spec: SessionSpec) -> PodSession:
        ref = spec.plan.ref
        vehicle = self._vehicles[spec.plan.config.pattern]
        deadline = Deadline.after(spec.plan.config.start_timeout)
        steps = Stopwatch()
        await spec.stdin
        await vehicle.emptied(ref, deadline)
        making = asyncio.create_task(
            vehicle.make(self._placed(replace(spec.plan, parked=False)), deadline), name=f"create-{ref.session}"
        )
        try:
            # Shielded: only a create that was waited for can be undone.
            holder = await asyncio.shield(making)
            steps.lap("create")
            pod = await self._awaited.running(spec.plan, holder, vehicle, deadline)
            steps.lap("pod")
            streams = await self._attached(spec, pod, deadline)
            steps.lap("attach")
        except BaseException:
            await to_the_end(self._discard(ref, vehicle, making))
            raise
        return await self._given(spec, vehicle, holder, pod=pod, streams=streams, steps=steps, deadline=deadline)

    def _placed(self, plan: SessionPlan) -> SessionPlan:
        """Where the group's volumes may still be attached."""
        return replace(plan, near=self._nodes.get(plan.ref.folder))

    async def _await_predecessors(self, ref: SessionRef, deadline: Deadline) -> None:
        """Return when no pod of the group can touch its volumes any more.

        The watch shows whether there is one to wait for. Asking the API server instead would cost
        each start a call and tell no more: it is we who make the group's pods, one after the other.
        """
        group = names.slug(ref.folder)
        await self.pods.synced(deadline)
        while True:
            pods = [pod for pod in self.pods.objects.values() if pod.metadata.label(labels.GROUP) == group]
            pods = [pod for pod in pods if not over(pod) and not self._elsewhere(pod) and not self._harmless(pod)]
            others = [pod for pod in pods if pod.metadata.label(labels.SESSION) != ref.session]
            if not others:
                return
            if deadline.passed:
                raise SessionFailed(ref.session, _predecessor(others[0]))
            _log.info("session.waits-for-predecessor", session=ref.session, pod=others[0].metadata.name)
            await self._pods.look_again(others, deadline)

    def _elsewhere(self, pod: Pod) -> bool:
        return self._apart and _node(pod) not in {None, self._node}

    def _harmless(self, pod: Pod) -> bool:
        """It is on its way out and never had an input, so it may stay on a lost node for as long as it likes."""
        return pod.metadata.deletion_timestamp is not None and pod.metadata.label(labels.SESSION) in self._never_fed

    async def _reached(self, pod: Pod, deadline: Deadline) -> AttachedStreams:
        """A connection to the agent's streams. Raises KubeError."""
        return await attach(
            self._client, pod.metadata.name, container=CONTAINER, namespace=self._namespace, deadline=deadline
        )

    async def _attached(self, spec: SessionSpec, pod: Pod, deadline: Deadline) -> AttachedStreams:
        """The same, tried again while its pod is there. Raises SessionFailed."""
        name, attempt = pod.metadata.name, 0
        while True:
            try:
                return await self._reached(pod, deadline)
            except KubeError as error:
                final = isinstance(error, Forbidden | DeadlineExceeded)
                now = self.pods.objects.get(name)
                if final or deadline.passed or now is None or over(now):
                    raise SessionFailed(spec.plan.ref.session, await self._awaited.unfed(name, error)) from error
                _log.info("attach.again", pod=name, error=error.message)
                await asyncio.sleep(min(pause(attempt, error), deadline.remaining()))
                attempt += 1

    async def _send(self, spec: SessionSpec, pod: Pod, streams: AttachedStreams, deadline: Deadline) -> None:
        """Hand over the input. Raises SessionFailed."""
        try:
            await streams.send(await spec.stdin, deadline)
        except KubeError as error:
            await streams.close()
            # An agent that ended tells more than the connection that ended with it.
            raise SessionFailed(spec.plan.ref.session, await self._awaited.unfed(pod.metadata.name, error)) from error
        except BaseException:
            await streams.close()
            raise

    async def _discard(self, ref: SessionRef, vehicle: Vehicle, making: asyncio.Task[Holder]) -> None:
        """Undo a start that failed or was cancelled, even one whose create had no answer: it may have succeeded."""
        await asyncio.wait({making})
        if not making.cancelled() and isinstance(making.exception(), AlreadyExists):
            return
        try:
            if (holder := await vehicle.find(ref)) is not None:
                await vehicle.remove(holder)
        except (KubeError, SessionFailed) as error:
            _log.error("session.left-behind", session=ref.session, error=str(error))

    async def _taken_away(self, vehicle: Vehicle, holder: Holder) -> None:
        """What fails here is only logged: the first failure tells more."""
        try:
            await vehicle.remove(holder)
        except (KubeError, SessionFailed) as error:
            _log.error("session.left-behind", session=holder.ref.session, error=str(error))


def _node(pod: Pod) -> str | None:
    """The node it belongs to, where that was said when it was made."""
    return (pod.metadata.annotations or {}).get(labels.NODE)


def _predecessor(pod: Pod) -> Diagnosis:
    if pod.metadata.deletion_timestamp is not None:
        return diagnose.undead(pod)
    return Diagnosis(
        FailureKind.START_TIMEOUT,
        f"pod {pod.metadata.name} of session {pod.metadata.label(labels.SESSION)} still runs in the same group; "
        "stop that session first",
        diagnose.BUSY,
    )
