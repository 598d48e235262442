"""Sessions as Kubernetes Jobs: one Job, one pod, one agent."""

from __future__ import annotations

import contextlib

import structlog

from nanoclaw_runtime.backends.agent_pods import AgentPods
from nanoclaw_runtime.backends.vehicles import GONE_WITHIN, Holder, holder_of
from nanoclaw_runtime.contract import labels, names
from nanoclaw_runtime.domain.errors import SessionFailed
from nanoclaw_runtime.domain.model import SessionPlan, SessionRef
from nanoclaw_runtime.kube import diagnose
from nanoclaw_runtime.kube.deadline import Deadline
from nanoclaw_runtime.kube.errors import Conflict, NotFound
from nanoclaw_runtime.kube.resources import JOBS, Job, slim
from nanoclaw_runtime.manifests.job import agent_job

_log = structlog.get_logger(__name__)


class JobVehicle:
    """See `Vehicle`. A Job that ended stays for the operator to look at, until Kubernetes deletes it."""

    def __init__(self, pods: AgentPods) -> None:
        self._pods = pods
        self._client = pods.client

    async def emptied(self, ref: SessionRef, deadline: Deadline) -> None:
        """See `Vehicle.emptied`: at once, each session has a Job of its own."""

    async def make(self, plan: SessionPlan, deadline: Deadline) -> Holder:
        """See `Vehicle.make`."""
        made = await self._client.create(
            JOBS, agent_job(plan), namespace=self._pods.namespace, identity=labels.SESSION, deadline=deadline
        )
        return _holder(slim(made, Job), plan.ref)

    async def find(self, ref: SessionRef) -> Holder | None:
        """See `Vehicle.find`."""
        job = await self._job(names.job(ref.folder, ref.session))
        return _holder(job, ref) if job is not None and job.metadata.label(labels.SESSION) == ref.session else None

    async def all(self) -> list[Holder]:
        """See `Vehicle.all`."""
        found = await self._client.list(JOBS, namespace=self._pods.namespace, labels=labels.AGENT_SELECTOR)
        holders: list[Holder] = []
        for job in (slim(item, Job) for item in found):
            holder = holder_of(job.metadata)
            if holder is None:
                _log.warning("job.not-a-session", job=job.metadata.name, remedy="delete it if nobody knows it")
            elif job.metadata.deletion_timestamp is None:
                holders.append(holder)
        return holders

    async def given(self, holder: Holder) -> None:
        """See `Vehicle.given`: nothing, a Job makes no second pod."""

    async def remove(self, holder: Holder) -> None:
        """See `Vehicle.remove`."""
        with contextlib.suppress(NotFound, Conflict):
            await self._client.delete(
                JOBS, holder.name, namespace=self._pods.namespace, uid=holder.uid, propagation="Foreground"
            )
        deadline = Deadline.after(GONE_WITHIN)
        session = holder.ref.session
        while (remaining := await self._pods.alive(f"{labels.SESSION}={session}")) or await self._exists(holder):
            if not deadline.passed:
                await self._pods.look_again(remaining, deadline)
            elif remaining:
                raise SessionFailed(session, diagnose.undead(remaining[0]))
            else:  # without a pod it can do no harm
                _log.warning("job.stays", job=holder.name, remedy="check the cluster's garbage collector")
                return

    async def release(self, holder: Holder) -> None:
        """See `Vehicle.release`: nothing, the next session has a Job of its own."""

    async def is_over(self, holder: Holder) -> bool:
        """See `Vehicle.is_over`."""
        job = await self._job(holder.name)
        return job is None or job.metadata.uid != holder.uid or job.metadata.deletion_timestamp is not None or job.over

    async def _exists(self, holder: Holder) -> bool:
        job = await self._job(holder.name)
        return job is not None and job.metadata.uid == holder.uid

    async def _job(self, name: str) -> Job | None:
        try:
            return slim(await self._client.get(JOBS, name, namespace=self._pods.namespace), Job)
        except NotFound:
            return None


def _holder(job: Job, ref: SessionRef) -> Holder:
    found = holder_of(job.metadata)
    assert found is not None, f"Job {job.metadata.name} was made without what it must say of itself"
    return Holder(ref, found.name, found.uid, found.parked, found.transport, found.node)
