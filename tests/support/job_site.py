"""A namespace in which agents can run, as Jobs or in sets, and the backends that work in it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

from nanoclaw_runtime.backends.agent_pods import over
from nanoclaw_runtime.backends.base import RunningSession
from nanoclaw_runtime.backends.cluster import ClusterBackend
from nanoclaw_runtime.contract import claims, labels, names
from nanoclaw_runtime.contract.claims import Layout
from nanoclaw_runtime.contract.config import Pattern
from nanoclaw_runtime.domain.model import SessionPlan, SessionSpec
from nanoclaw_runtime.kube.client import KubeClient
from nanoclaw_runtime.kube.deadline import Deadline
from nanoclaw_runtime.kube.errors import NotFound, Target
from nanoclaw_runtime.kube.resources import CLAIMS, JOBS, PODS, STATEFUL_SETS, Job, Pod, Resource, StatefulSet, slim

PATIENCE = 90.0
ACCOUNTS = Resource("ServiceAccount", "serviceaccounts")


@dataclass
class OfPattern:
    """A backend whose plans all have one pattern, so that one suite of tests is for each of them."""

    backend: ClusterBackend
    pattern: Pattern

    async def start(self, spec: SessionSpec) -> RunningSession:
        return await self.backend.start(replace(spec, plan=self.of(spec.plan)))

    async def prepare(self, plan: SessionPlan) -> RunningSession:
        return await self.backend.prepare(replace(self.of(plan), parked=True))

    def waits(self, session: str) -> bool | None:
        return self.backend.waits(session)

    async def running(self) -> list[RunningSession]:
        return await self.backend.running()

    def of(self, plan: SessionPlan) -> SessionPlan:
        return replace(plan, config=plan.config.model_copy(update={"pattern": self.pattern}))


class JobSite:
    """See `backend_suite.Site`."""

    def __init__(self, kube: KubeClient, namespace: str, backend: ClusterBackend, pattern: Pattern) -> None:
        self.kube, self.namespace, self.pattern = kube, namespace, pattern
        self.pods = backend.pods
        self.backend = OfPattern(backend, pattern)

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, kube: KubeClient, namespace: str, pattern: Pattern = Pattern.JOB) -> AsyncIterator[JobSite]:
        """A furnished namespace, and a backend at work in it; it may be used again, none of the agents stays."""
        async with at_work(kube, namespace) as backend:
            yield cls(kube, namespace, backend, pattern)
        await _cleared(kube, namespace)

    @staticmethod
    async def furnish(kube: KubeClient, namespace: str) -> None:
        """Make the account and the claims of the groups main and team; whoever made the namespace removes it."""
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": names.AGENT_ACCOUNT}}
        await kube.create(ACCOUNTS, account, namespace=namespace)
        wanted = [*claims.installation_claims(Layout.PER_TYPE)]
        wanted += [claim for folder in ("main", "team") for claim in claims.group_claims(Layout.PER_TYPE, folder)]
        for claim in wanted:
            manifest = {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": claim.name},
                "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Mi"}}},
            }
            await kube.create(CLAIMS, manifest, namespace=namespace)

    @contextlib.asynccontextmanager
    async def another(self) -> AsyncIterator[OfPattern]:
        async with at_work(self.kube, self.namespace) as backend:
            yield OfPattern(backend, self.pattern)

    async def alive(self) -> list[str]:
        """See `Site.alive`; a Job or set without a pod may yet make one."""
        jobs = [slim(job, Job) for job in await self.kube.list(JOBS, namespace=self.namespace)]
        sets = [slim(one, StatefulSet) for one in await self.kube.list(STATEFUL_SETS, namespace=self.namespace)]
        pods = [slim(pod, Pod) for pod in await self.kube.list(PODS, namespace=self.namespace)]
        ended = {pod.metadata.label(labels.SESSION) for pod in pods if over(pod)}
        found = [*jobs, *pods, *(one for one in sets if one.spec.replicas)]
        return sorted({one.metadata.label(labels.SESSION) for one in found} - ended)

    async def has_agent(self, session: str) -> None:
        deadline = Deadline.after(PATIENCE)
        await self.pods.find(lambda pod: pod.metadata.label(labels.SESSION) == session, deadline)


async def _cleared(kube: KubeClient, namespace: str) -> None:
    """No Job, set or pod any more, without waiting for agents that do not want to end."""
    now = {"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0, "propagationPolicy": "Background"}
    async with asyncio.timeout(PATIENCE):
        for kind in (JOBS, STATEFUL_SETS, PODS):  # what would make pods anew goes first
            while found := await kube.list(kind, namespace=namespace):
                for each in found:
                    name = each["metadata"]["name"]
                    with contextlib.suppress(NotFound):
                        await kube.request(
                            "DELETE",
                            kind.path(namespace, name),
                            Target("delete", kind.plural, namespace, name),
                            body=now,
                        )


@contextlib.asynccontextmanager
async def at_work(kube: KubeClient, namespace: str) -> AsyncIterator[ClusterBackend]:
    backend = ClusterBackend(kube, namespace)
    task = asyncio.create_task(backend.run(), name="backend")
    try:
        yield backend
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
