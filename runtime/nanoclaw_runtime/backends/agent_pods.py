"""The agents' Jobs and pods in one namespace: seeing them, and getting rid of them.

Shared by `job`, which starts sessions, and `job_session`, which lives with one. A pod counts as
gone when its container has ended for good or it is deleted: nothing of it touches the volumes
then. Its phase tells the same, a second later.
"""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime
from typing import Final

import structlog

from nanoclaw_runtime.contract import labels, names
from nanoclaw_runtime.domain.errors import SessionFailed
from nanoclaw_runtime.domain.model import SessionRef
from nanoclaw_runtime.kube import diagnose
from nanoclaw_runtime.kube.client import KubeClient
from nanoclaw_runtime.kube.deadline import Deadline
from nanoclaw_runtime.kube.errors import Conflict, DeadlineExceeded, NotFound
from nanoclaw_runtime.kube.reflector import Reflector
from nanoclaw_runtime.kube.resources import JOBS, PODS, Job, Pod, slim
from nanoclaw_runtime.kube.retry import pause
from nanoclaw_runtime.manifests.pod import CONTAINER

log = structlog.get_logger(__name__)

EPOCH: Final = datetime.fromtimestamp(0, UTC)

LOOK_AGAIN: Final = 1.0
"""Seconds after which something that is awaited is asked of the API server, whatever the watch says."""

LOOK_AGAIN_AT_MOST: Final = 8.0
"""Seconds between two such looks when nothing moves."""

GONE_WITHIN: Final = 60.0
"""Seconds from deleting a Job to its pod being gone; the pod's own grace is two."""


class AgentPods:
    """One watch for all agents, and what is asked of the API server beside it."""

    def __init__(self, client: KubeClient, namespace: str) -> None:
        self.client = client
        self.namespace = namespace
        self.watched = Reflector(client, PODS, Pod, namespace=namespace, labels=labels.AGENT_SELECTOR)

    def pod_of(self, session: str) -> Pod | None:
        """The session's pod as the watch shows it; the youngest, should there be several."""
        pods = [pod for pod in self.watched.objects.values() if pod.metadata.label(labels.SESSION) == session]
        return max(pods, key=lambda pod: pod.metadata.creation_timestamp or EPOCH, default=None)

    async def is_over(self, job: str, uid: str) -> bool:
        """Whether the Job with this uid has ended or is no more, so that it gets no further pod."""
        try:
            now = slim(await self.client.get(JOBS, job, namespace=self.namespace), Job)
        except NotFound:
            return True
        return now.metadata.uid != uid or now.metadata.deletion_timestamp is not None or now.over

    async def remove(self, ref: SessionRef, uid: str) -> None:
        """Delete the Job with this uid and return when the session has no pod that could run.

        Raises SessionFailed when a pod does not go away; it is never forced, because on a node
        that is merely unreachable its agent still writes.
        """
        name = names.job(ref.folder, ref.session)
        with contextlib.suppress(NotFound, Conflict):
            await self.client.delete(JOBS, name, namespace=self.namespace, uid=uid, propagation="Foreground")
        deadline = Deadline.after(GONE_WITHIN)
        while (remaining := await self.alive(f"{labels.SESSION}={ref.session}")) or await self._exists(name, uid):
            if not deadline.passed:
                await self.look_again(remaining, deadline)
            elif remaining:
                raise SessionFailed(ref.session, diagnose.undead(remaining[0]))
            else:  # without a pod it can do no harm
                log.warning("job.stays", job=name, remedy="check the cluster's garbage collector")
                return

    async def alive(self, selector: str) -> list[Pod]:
        """Pods that run or may yet run, as the API server knows them now."""
        found = await self.client.list(PODS, namespace=self.namespace, labels=selector)
        return [pod for pod in (slim(item, Pod) for item in found) if not over(pod)]

    async def look_again(self, pods: list[Pod], deadline: Deadline) -> None:
        """Return when the first of the pods has ended or gone, or after a second at the latest."""
        name = pods[0].metadata.name if pods else ""
        if name not in self.watched.objects:  # the watch is behind, or there is only a Job left
            await asyncio.sleep(pause(0))
            return
        with contextlib.suppress(DeadlineExceeded):
            await self.watched.until(name, over_or_gone, deadline.within(LOOK_AGAIN))

    async def _exists(self, job: str, uid: str) -> bool:
        try:
            return bool((await self.client.get(JOBS, job, namespace=self.namespace))["metadata"]["uid"] == uid)
        except NotFound:
            return False


def over(pod: Pod) -> bool:
    """The agent does not run any more, and will not again."""
    return pod.finished or pod.container(CONTAINER).terminated is not None


def over_or_gone(pod: Pod | None) -> bool:
    return pod is None or over(pod)
