"""A namespace in which agents can run as Jobs, and the backends that work in it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from nanoclaw_runtime.backends.agent_pods import over
from nanoclaw_runtime.backends.cluster import ClusterBackend
from nanoclaw_runtime.contract import claims, labels, names
from nanoclaw_runtime.contract.claims import Layout
from nanoclaw_runtime.kube.client import KubeClient
from nanoclaw_runtime.kube.deadline import Deadline
from nanoclaw_runtime.kube.resources import CLAIMS, JOBS, PODS, Job, Pod, Resource, slim

PATIENCE = 90.0
ACCOUNTS = Resource("ServiceAccount", "serviceaccounts")


class JobSite:
    """See `backend_suite.Site`."""

    def __init__(self, kube: KubeClient, namespace: str, backend: ClusterBackend) -> None:
        self.kube, self.namespace, self.backend = kube, namespace, backend

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, kube: KubeClient, namespace: str) -> AsyncIterator[JobSite]:
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
        async with at_work(kube, namespace) as backend:
            yield cls(kube, namespace, backend)

    def another(self) -> contextlib.AbstractAsyncContextManager[ClusterBackend]:
        return at_work(self.kube, self.namespace)

    async def alive(self) -> list[str]:
        """See `Site.alive`; a Job without a pod may yet make one."""
        jobs = [slim(job, Job) for job in await self.kube.list(JOBS, namespace=self.namespace)]
        pods = [slim(pod, Pod) for pod in await self.kube.list(PODS, namespace=self.namespace)]
        ended = {pod.metadata.label(labels.SESSION) for pod in pods if over(pod)}
        return sorted({one.metadata.label(labels.SESSION) for one in (*jobs, *pods)} - ended)

    async def has_agent(self, session: str) -> None:
        deadline = Deadline.after(PATIENCE)
        await self.backend.pods.find(lambda pod: pod.metadata.label(labels.SESSION) == session, deadline)


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
