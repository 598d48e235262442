"""Sessions as Kubernetes Jobs: one Job, one pod, one agent.

The pods' state is the sessions' state (a Job's status lags by a second and more), and one watch
shows all of them. An agent gets its input by attach, once, as soon as its container runs; a start
that fails, or is cancelled, takes its Job away again. Nothing here decides whether to start, retry
or stop; what becomes of a session that runs is `job_session`.
"""

from __future__ import annotations

import asyncio

import structlog

from nanoclaw_runtime.backends.agent_pods import LOOK_AGAIN, LOOK_AGAIN_AT_MOST, AgentPods, over, over_or_gone
from nanoclaw_runtime.backends.base import RunningSession
from nanoclaw_runtime.backends.job_session import JobSession
from nanoclaw_runtime.backends.to_the_end import to_the_end
from nanoclaw_runtime.contract import labels, layout, names
from nanoclaw_runtime.domain.errors import Diagnosis, FailureKind, SessionFailed
from nanoclaw_runtime.domain.model import SessionKind, SessionPlan, SessionRef, SessionSpec
from nanoclaw_runtime.kube import diagnose
from nanoclaw_runtime.kube.attach import AttachedStreams, attach
from nanoclaw_runtime.kube.client import KubeClient
from nanoclaw_runtime.kube.deadline import Deadline
from nanoclaw_runtime.kube.errors import (
    AlreadyExists,
    DeadlineExceeded,
    Forbidden,
    KubeError,
    NotFound,
)
from nanoclaw_runtime.kube.resources import CLAIMS, JOBS, Claim, Job, Metadata, Pod, slim
from nanoclaw_runtime.kube.retry import pause
from nanoclaw_runtime.manifests.job import agent_job
from nanoclaw_runtime.manifests.pod import CONTAINER, Manifest

log = structlog.get_logger(__name__)


class JobBackend:
    """Starts Jobs in one namespace and finds those that run. Its owner keeps `run` in a task."""

    def __init__(self, client: KubeClient, namespace: str) -> None:
        self._client = client
        self._namespace = namespace
        self._pods = AgentPods(client, namespace)
        self.pods = self._pods.watched
        """The pod of every agent; its `age` and `relists` tell how fresh our picture of the cluster is."""

    async def run(self) -> None:
        """Watch the agents' pods until cancelled. Nothing else here works without it."""
        await self.pods.run()

    async def start(self, spec: SessionSpec) -> RunningSession:
        """See `Backend.start`: returns when the agent's stdin is closed behind its input."""
        ref, config = spec.plan.ref, spec.plan.config
        try:
            await self._await_predecessors(ref, Deadline.after(config.start_timeout))
            return await self._start(spec)
        except KubeError as error:
            raise SessionFailed(ref.session, diagnose.api_failure(error)) from error

    async def running(self) -> list[RunningSession]:
        """See `Backend.running`: the Jobs of this installation that are not being deleted."""
        found = await self._client.list(JOBS, namespace=self._namespace, labels=labels.AGENT_SELECTOR)
        sessions: list[RunningSession] = []
        for job in (slim(item, Job) for item in found):
            ref = _ref(job.metadata)
            if ref is None:
                log.warning("job.not-a-session", job=job.metadata.name, remedy="delete it if nobody knows it")
            elif job.metadata.deletion_timestamp is None:
                sessions.append(JobSession(self._pods, ref, job.metadata.uid))
        return sessions

    async def prepare(self, plan: SessionPlan) -> None:
        """See `Backend.prepare`."""

    def waits(self, session: str) -> None:
        """See `Backend.waits`."""

    async def _start(self, spec: SessionSpec) -> JobSession:
        ref = spec.plan.ref
        deadline = Deadline.after(spec.plan.config.start_timeout)
        manifest = agent_job(spec.plan)
        steps = _Stopwatch()
        creating = asyncio.create_task(
            self._client.create(JOBS, manifest, namespace=self._namespace, identity=labels.SESSION, deadline=deadline),
            name=f"create-{ref.session}",
        )
        try:
            # Shielded: only a create that was waited for can be undone.
            job = slim(await asyncio.shield(creating), Job)
            steps.lap("create")
            pod = await self._running_pod(spec, job, deadline)
            steps.lap("pod")
            streams = await self._fed(spec, pod, deadline, steps)
        except BaseException:
            await to_the_end(self._discard(ref, creating))
            raise
        log.info("session.started", session=ref.session, group=ref.folder, pod=pod.metadata.name, **steps.laps)
        return JobSession(self._pods, ref, job.metadata.uid, streams)

    async def _await_predecessors(self, ref: SessionRef, deadline: Deadline) -> None:
        """Return when no pod of the group can touch its volumes any more.

        The watch shows whether there is one to wait for. Asking the API server instead would cost
        each start a call and tell no more: it is we who make the group's pods, one after the other.
        """
        group = names.slug(ref.folder)
        await self.pods.synced(deadline)
        while True:
            pods = [pod for pod in self.pods.objects.values() if pod.metadata.label(labels.GROUP) == group]
            pods = [pod for pod in pods if not over(pod)]
            others = [pod for pod in pods if pod.metadata.label(labels.SESSION) != ref.session]
            if not others:
                return
            if deadline.passed:
                raise SessionFailed(ref.session, _predecessor(others[0]))
            log.info("session.waits-for-predecessor", session=ref.session, pod=others[0].metadata.name)
            await self._pods.look_again(others, deadline)

    async def _running_pod(self, spec: SessionSpec, job: Job, deadline: Deadline) -> Pod:
        """The session's pod, its container running. Raises SessionFailed as soon as it never will be."""
        session = spec.plan.ref.session

        def settled(pod: Pod) -> bool:
            return pod.metadata.label(labels.SESSION) == session and (
                over(pod)
                or pod.container(CONTAINER).running is not None
                or pod.metadata.deletion_timestamp is not None
                or diagnose.hopeless_start(pod, CONTAINER) is not None
            )

        patience = LOOK_AGAIN
        while True:
            try:
                pod = await self.pods.find(settled, deadline.within(patience))
            except DeadlineExceeded as error:
                if deadline.passed:
                    raise SessionFailed(session, await self._lateness(spec, job)) from error
                if self._pods.pod_of(session) is None and (found := await self._podless(job)):
                    raise SessionFailed(session, found) from error
                patience = min(LOOK_AGAIN_AT_MOST, patience * 2)
                continue
            if pod.container(CONTAINER).running is not None and pod.metadata.deletion_timestamp is None:
                return pod
            found = diagnose.hopeless_start(pod, CONTAINER) or _ended_unfed(pod)
            raise SessionFailed(session, found)

    async def _podless(self, job: Job) -> Diagnosis | None:
        """Why the Job will have no pod, or None while one may still come."""
        name = job.metadata.name
        if await self._pods.is_over(name, job.metadata.uid):
            return diagnose.vanished(name, None)
        return diagnose.no_pod(name, await self._client.events(job.metadata.uid, namespace=self._namespace))

    async def _lateness(self, spec: SessionSpec, job: Job) -> Diagnosis:
        pod = self._pods.pod_of(spec.plan.ref.session)
        subject = pod.metadata.uid if pod is not None else job.metadata.uid
        events = await self._client.events(subject, namespace=self._namespace)
        claims = await self._claims(spec.plan)
        return diagnose.late_start(job.metadata.name, pod, CONTAINER, events, claims)

    async def _claims(self, plan: SessionPlan) -> list[Claim]:
        claims: list[Claim] = []
        mounts = layout.agent_mounts(plan.config.layout, plan.ref.folder, plan.ref.session)
        extra = {mount.claim for mount in plan.extra if mount.claim is not None}
        for name in sorted({mount.claim for mount in mounts} | extra):
            try:
                claims.append(slim(await self._client.get(CLAIMS, name, namespace=self._namespace), Claim))
            except NotFound:
                claims.append(Claim(metadata=Metadata(name=name)))
        return claims

    async def _fed(self, spec: SessionSpec, pod: Pod, deadline: Deadline, steps: _Stopwatch) -> AttachedStreams:
        """Attach and hand over the input. Raises SessionFailed."""
        session, name = spec.plan.ref.session, pod.metadata.name
        try:
            streams = await self._attached(name, deadline)
            steps.lap("attach")
            try:
                await streams.send(spec.stdin, deadline)
                steps.lap("input")
            except BaseException:
                await streams.close()
                raise
        except KubeError as error:
            # An agent that ended tells more than the connection that ended with it.
            raise SessionFailed(session, await self._unfed(name, error)) from error
        return streams

    async def _attached(self, name: str, deadline: Deadline) -> AttachedStreams:
        attempt = 0
        while True:
            try:
                return await attach(
                    self._client, name, container=CONTAINER, namespace=self._namespace, deadline=deadline
                )
            except (Forbidden, DeadlineExceeded):
                raise
            except KubeError as error:
                pod = self.pods.objects.get(name)
                if deadline.passed or pod is None or over(pod):
                    raise
                log.info("attach.again", pod=name, error=error.message)
                await asyncio.sleep(min(pause(attempt, error), deadline.remaining()))
                attempt += 1

    async def _unfed(self, name: str, error: KubeError) -> Diagnosis:
        try:
            pod = await self.pods.until(name, over_or_gone, Deadline.after(LOOK_AGAIN))
        except DeadlineExceeded:
            return diagnose.attach_failure(name, error)
        return _ended_unfed(pod) if pod is not None else diagnose.vanished(name, None)

    async def _discard(self, ref: SessionRef, creating: asyncio.Task[Manifest]) -> None:
        """Undo a start that failed or was cancelled. What fails here is only logged: the first failure tells more."""
        await asyncio.wait({creating})
        if not creating.cancelled() and isinstance(creating.exception(), AlreadyExists):
            return
        name = names.job(ref.folder, ref.session)
        try:
            # Read even after a create without an answer: it may have succeeded.
            job = slim(await self._client.get(JOBS, name, namespace=self._namespace), Job)
            if job.metadata.label(labels.SESSION) == ref.session:
                await self._pods.remove(ref, job.metadata.uid)
        except NotFound:
            return
        except (KubeError, SessionFailed) as error:
            log.error("session.left-behind", session=ref.session, job=name, error=str(error))  # noqa: TRY400


class _Stopwatch:
    """How long the steps of a start took, in milliseconds. All but `input` is spent waiting for the cluster."""

    def __init__(self) -> None:
        self._last = asyncio.get_running_loop().time()
        self.laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = asyncio.get_running_loop().time()
        self.laps[f"{name}_ms"] = round((now - self._last) * 1000, 1)
        self._last = now


def _ended_unfed(pod: Pod) -> Diagnosis:
    found = diagnose.ending(pod, CONTAINER) if over(pod) else diagnose.loss(pod)
    return found or Diagnosis(
        FailureKind.STOPPED,
        f"pod {pod.metadata.name} ended before its agent had its input: it was deleted, or its image ends by itself",
        diagnose.INTERRUPTED,
    )


def _predecessor(pod: Pod) -> Diagnosis:
    if pod.metadata.deletion_timestamp is not None:
        return diagnose.undead(pod)
    return Diagnosis(
        FailureKind.START_TIMEOUT,
        f"pod {pod.metadata.name} of session {pod.metadata.label(labels.SESSION)} still runs in the same group; "
        "stop that session first",
        diagnose.BUSY,
    )


def _ref(job: Metadata) -> SessionRef | None:
    folder = (job.annotations or {}).get(labels.FOLDER, "")
    session, kind = job.label(labels.SESSION), job.label(labels.KIND)
    if not folder or not session or kind not in set(SessionKind):
        return None
    return SessionRef(folder, session, SessionKind(kind))
