"""Sessions in the StatefulSet of their group, scaled between zero and one.

A pod serves one session. When that is over the set is scaled to zero, and to one again with the next session in its
template: in the background when the group is worth a parked agent, else when a message comes. Restarting in place
instead would wait in Kubernetes' back-off, and keep what the last agent left in its scratch folders.
"""

from __future__ import annotations

from typing import Final

import structlog

from nanoclaw_runtime.backends.agent_pods import AgentPods
from nanoclaw_runtime.backends.vehicles import GONE_WITHIN, Holder, given_to, holder_of
from nanoclaw_runtime.contract import labels, names
from nanoclaw_runtime.domain.errors import Diagnosis, FailureKind, SessionFailed
from nanoclaw_runtime.domain.model import SessionPlan, SessionRef
from nanoclaw_runtime.kube import diagnose
from nanoclaw_runtime.kube.deadline import Deadline
from nanoclaw_runtime.kube.errors import Conflict, KubeError, NotFound
from nanoclaw_runtime.kube.resources import STATEFUL_SETS, StatefulSet, slim
from nanoclaw_runtime.manifests.statefulset import agent_set

MANAGER: Final = "nanoclaw-controller"

_log = structlog.get_logger(__name__)


class SetVehicle:
    """See `Vehicle`. A set without a replica holds nothing."""

    def __init__(self, pods: AgentPods) -> None:
        self._pods = pods
        self._client = pods.client

    async def emptied(self, ref: SessionRef, deadline: Deadline) -> None:
        """See `Vehicle.emptied`: when the set's last pod is gone, whatever its state; the next one will have its name.

        The set is asked, too: a pod that its controller is about to make is in no watch yet.
        """
        name = names.stateful_set(ref.folder)
        pod = f"{name}-0"
        while (found := await self._set(name)) is not None:
            last = self._pods.watched.objects.get(pod)
            if found.empty and last is None:
                return
            if deadline.passed:
                raise SessionFailed(ref.session, _full(name) if last is None else diagnose.undead(last))
            if found.spec.replicas and (left := holder_of(found.metadata)) is not None:
                await self._scale_to_zero(left)
            await self._pods.gone(pod, deadline)

    async def make(self, plan: SessionPlan, deadline: Deadline) -> Holder:
        """See `Vehicle.make`."""
        made = await self._client.apply(
            STATEFUL_SETS,
            agent_set(plan),
            manager=MANAGER,
            force=True,  # how many replicas it has was ours to say before, by another kind of call
            namespace=self._pods.namespace,
            deadline=deadline,
        )
        return _holder(slim(made, StatefulSet), plan.ref)

    async def find(self, ref: SessionRef) -> Holder | None:
        """See `Vehicle.find`."""
        found = await self._set(names.stateful_set(ref.folder))
        if found is None or not found.spec.replicas or found.metadata.label(labels.SESSION) != ref.session:
            return None
        return _holder(found, ref)

    async def all(self) -> list[Holder]:
        """See `Vehicle.all`."""
        found = await self._client.list(STATEFUL_SETS, namespace=self._pods.namespace, labels=labels.AGENT_SELECTOR)
        holders: list[Holder] = []
        for one in (slim(item, StatefulSet) for item in found):
            holder = holder_of(one.metadata)
            if holder is None:
                _log.warning("set.not-a-session", set=one.metadata.name, remedy="delete it if nobody knows it")
            elif one.metadata.deletion_timestamp is None and one.spec.replicas:
                holders.append(holder)
        return holders

    async def given(self, holder: Holder) -> None:
        """See `Vehicle.given`. A set makes a pod anew that was evicted or deleted, under the same name and session."""
        change = {"metadata": {"annotations": {labels.GIVEN: given_to(holder)}}}
        try:
            await self._client.merge(STATEFUL_SETS, holder.name, change, namespace=self._pods.namespace)
        except KubeError as error:  # only a process that comes after us needs it
            _log.warning("session.not-marked", session=holder.ref.session, error=error.message)

    async def remove(self, holder: Holder) -> None:
        """See `Vehicle.remove`."""
        await self._scale_to_zero(holder)
        deadline = Deadline.after(GONE_WITHIN)
        while remaining := await self._pods.alive(f"{labels.SESSION}={holder.ref.session}"):
            if deadline.passed:
                raise SessionFailed(holder.ref.session, diagnose.undead(remaining[0]))
            await self._pods.look_again(remaining, deadline)

    async def release(self, holder: Holder) -> None:
        """See `Vehicle.release`: the pod goes, and with it the container that was started again."""
        await self._scale_to_zero(holder)

    async def is_over(self, holder: Holder) -> bool:
        """See `Vehicle.is_over`."""
        return await self.find(holder.ref) is None

    async def _scale_to_zero(self, holder: Holder) -> None:
        """Take the set's replica away, if it still is this session's."""
        while True:
            found = await self._set(holder.name)
            if found is None or not found.spec.replicas or found.metadata.label(labels.SESSION) != holder.ref.session:
                return
            change = {"metadata": {"resourceVersion": found.metadata.resource_version}, "spec": {"replicas": 0}}
            try:
                await self._client.merge(STATEFUL_SETS, holder.name, change, namespace=self._pods.namespace)
            except NotFound:
                return
            except Conflict:  # its status moved on, most likely
                continue
            return

    async def _set(self, name: str) -> StatefulSet | None:
        try:
            return slim(await self._client.get(STATEFUL_SETS, name, namespace=self._pods.namespace), StatefulSet)
        except NotFound:
            return None


def _holder(found: StatefulSet, ref: SessionRef) -> Holder:
    holder = holder_of(found.metadata)
    assert holder is not None, f"StatefulSet {found.metadata.name} was made without what it must say of itself"
    return Holder(ref, holder.name, holder.uid, holder.parked, holder.transport, holder.node)


def _full(name: str) -> Diagnosis:
    return Diagnosis(
        FailureKind.START_TIMEOUT,
        f"StatefulSet {name} was not scaled to zero in time; check that the cluster's StatefulSet controller runs",
        diagnose.BUSY,
    )
