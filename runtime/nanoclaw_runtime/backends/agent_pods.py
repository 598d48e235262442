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

from nanoclaw_runtime.contract import labels
from nanoclaw_runtime.kube.client import KubeClient
from nanoclaw_runtime.kube.deadline import Deadline
from nanoclaw_runtime.kube.errors import DeadlineExceeded
from nanoclaw_runtime.kube.reflector import Reflector
from nanoclaw_runtime.kube.resources import PODS, Pod, slim
from nanoclaw_runtime.kube.retry import pause
from nanoclaw_runtime.manifests.pod import CONTAINER

_log = structlog.get_logger(__name__)

EPOCH: Final = datetime.fromtimestamp(0, UTC)

LOOK_AGAIN: Final = 1.0
"""Seconds after which something that is awaited is asked of the API server, whatever the watch says."""

LOOK_AGAIN_AT_MOST: Final = 8.0
"""Seconds between two such looks when nothing moves."""


class AgentPods:
    """One watch for all agents, and what is asked of the API server beside it."""

    def __init__(self, client: KubeClient, namespace: str) -> None:
        self.client = client
        self.namespace = namespace
        self.watched = Reflector(client, PODS, Pod, namespace=namespace, labels=labels.AGENT_SELECTOR)

    def pod_of(self, session: str, uid: str | None = None) -> Pod | None:
        """The session's pod as the watch shows it: the one with this uid, or the youngest, should there be several."""
        pods = [pod for pod in self.watched.objects.values() if pod.metadata.label(labels.SESSION) == session]
        pods = [pod for pod in pods if uid in {None, pod.metadata.uid}]
        return max(pods, key=lambda pod: pod.metadata.creation_timestamp or EPOCH, default=None)

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

    async def gone(self, name: str, deadline: Deadline) -> None:
        """Return when there is no pod of this name, or after a second at the latest."""
        if name not in self.watched.objects:
            await asyncio.sleep(pause(0))
            return
        with contextlib.suppress(DeadlineExceeded):
            await self.watched.until(name, lambda pod: pod is None, deadline.within(LOOK_AGAIN))


def over(pod: Pod) -> bool:
    """The agent does not run any more, and will not again."""
    return pod.finished or pod.container(CONTAINER).terminated is not None


def over_or_gone(pod: Pod | None) -> bool:
    return pod is None or over(pod)
