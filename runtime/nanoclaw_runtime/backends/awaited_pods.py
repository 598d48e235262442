"""Waiting for the pod that a session was promised, and telling why none comes, or why it was of no use.

Not here: who asks for it and what it is given (`cluster`), and who else wants to know (`pod_trouble`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from nanoclaw_runtime.backends.agent_pods import LOOK_AGAIN, LOOK_AGAIN_AT_MOST, AgentPods, over, over_or_gone
from nanoclaw_runtime.backends.vehicles import Holder, Vehicle
from nanoclaw_runtime.contract import labels, layout
from nanoclaw_runtime.domain.errors import Diagnosis, FailureKind, SessionFailed
from nanoclaw_runtime.domain.model import SessionPlan
from nanoclaw_runtime.kube import diagnose
from nanoclaw_runtime.kube.client import KubeClient
from nanoclaw_runtime.kube.deadline import Deadline
from nanoclaw_runtime.kube.errors import DeadlineExceeded, KubeError, NotFound
from nanoclaw_runtime.kube.resources import CLAIMS, Claim, Metadata, Pod, slim
from nanoclaw_runtime.manifests.pod import CONTAINER


class AwaitedPods:
    """Of one backend; `make_room` is its own."""

    def __init__(self, pods: AgentPods, make_room: Callable[[str], Awaitable[bool]]) -> None:
        self._pods, self._make_room = pods, make_room

    async def running(self, plan: SessionPlan, holder: Holder, vehicle: Vehicle, deadline: Deadline) -> Pod:
        """The session's pod, its container running. Raises SessionFailed as soon as it never will be."""
        session = plan.ref.session

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
                pod = await self._pods.watched.find(settled, deadline.within(patience))
            except DeadlineExceeded as error:
                if deadline.passed:
                    raise SessionFailed(session, await self._lateness(plan, holder)) from error
                if why := await self._hopeless(plan, holder, vehicle):
                    raise SessionFailed(session, why) from error
                patience = min(LOOK_AGAIN_AT_MOST, patience * 2)
                continue
            if pod.container(CONTAINER).running is not None and pod.metadata.deletion_timestamp is None:
                return pod
            raise SessionFailed(session, diagnose.hopeless_start(pod, CONTAINER) or _ended_unfed(pod))

    async def unfed(self, name: str, error: KubeError) -> Diagnosis:
        """Why the pod could not be given its input: an agent that ended tells more than the connection to it."""
        try:
            pod = await self._pods.watched.until(name, over_or_gone, Deadline.after(LOOK_AGAIN))
        except DeadlineExceeded:
            return diagnose.attach_failure(name, error)
        return _ended_unfed(pod) if pod is not None else diagnose.vanished(name, None)

    async def _hopeless(self, plan: SessionPlan, holder: Holder, vehicle: Vehicle) -> Diagnosis | None:
        """Why there will be no pod, or None while one may still come: where room is what it lacks, some is made."""
        folder, pod = plan.ref.folder, self._pods.pod_of(plan.ref.session)
        if pod is not None:
            if diagnose.without_room(pod):
                await self._make_room(folder)
            return None
        if await vehicle.is_over(holder):
            return diagnose.vanished(holder.name, None)
        events = await self._pods.client.events(holder.uid, namespace=self._pods.namespace)
        why = diagnose.no_pod(holder.name, events)
        full = why is not None and why.kind is FailureKind.QUOTA
        return None if full and await self._make_room(folder) else why

    async def _lateness(self, plan: SessionPlan, holder: Holder) -> Diagnosis:
        client, namespace = self._pods.client, self._pods.namespace
        pod = self._pods.pod_of(plan.ref.session)
        events = await client.events(pod.metadata.uid if pod is not None else holder.uid, namespace=namespace)
        claims = await claims_named(client, namespace, _claims_of(plan))
        return diagnose.late_start(holder.name, pod, CONTAINER, events, claims)


async def claims_named(client: KubeClient, namespace: str, wanted: Iterable[str]) -> list[Claim]:
    """These claims; one that does not exist has no phase."""
    found = list[Claim]()
    for name in sorted(wanted):
        try:
            found.append(slim(await client.get(CLAIMS, name, namespace=namespace), Claim))
        except NotFound:
            found.append(Claim(metadata=Metadata(name=name)))
    return found


def _claims_of(plan: SessionPlan) -> set[str]:
    config, wanted = plan.config, {mount.claim for mount in plan.extra if mount.claim is not None}
    if config.pattern.has_claims:
        mounts = layout.agent_mounts(config.layout, plan.ref.folder, plan.ref.session, config.transport)
        wanted |= {mount.claim for mount in mounts}
    return wanted


def _ended_unfed(pod: Pod) -> Diagnosis:
    found = diagnose.ending(pod, CONTAINER) if over(pod) else diagnose.loss(pod)
    return found or Diagnosis(
        FailureKind.STOPPED,
        f"pod {pod.metadata.name} ended before its agent had its input: it was deleted, or its image ends by itself",
        diagnose.INTERRUPTED,
    )
