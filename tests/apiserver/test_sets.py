"""Sets of agents on a real API server: the test is controller and kubelet, and takes pods away as those do."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nanoclaw_dev.cluster.control_plane import ControlPlane
from nanoclaw_runtime.backends import cluster, pod_session
from nanoclaw_runtime.backends.agent_pods import AgentPods
from nanoclaw_runtime.backends.cluster import ClusterBackend
from nanoclaw_runtime.backends.statefulset import SetVehicle
from nanoclaw_runtime.backends.vehicles import Holder
from nanoclaw_runtime.contract import labels, names, wire
from nanoclaw_runtime.contract.config import Pattern
from nanoclaw_runtime.domain.errors import FailureKind, SessionFailed
from nanoclaw_runtime.domain.model import SessionSpec
from nanoclaw_runtime.kube.client import KubeClient
from nanoclaw_runtime.kube.deadline import Deadline
from nanoclaw_runtime.kube.errors import NotFound, Target
from nanoclaw_runtime.kube.resources import JOBS, PODS, STATEFUL_SETS, Resource
from nanoclaw_runtime.kube.retry import ATTEMPTS
from tests.support import fault_proxy
from tests.support.backend_suite import results
from tests.support.fault_proxy import FaultProxy
from tests.support.plans import plan, ready

pytestmark = pytest.mark.apiserver

PATIENCE = 30
SET = names.stateful_set("main")
POD = f"{SET}-0"


class Hands:
    """Those of Kubernetes: what a set asks for happens when the test says so."""

    def __init__(self, client: KubeClient, namespace: str) -> None:
        self.client, self.namespace = client, namespace
        self.vehicle = SetVehicle(AgentPods(client, namespace))

    async def make(self, session: str) -> Holder:
        given = plan("main", session, pattern=Pattern.STATEFULSET)
        await self.vehicle.emptied(given.ref, Deadline.after(PATIENCE))
        return await self.vehicle.make(given, Deadline.after(PATIENCE))

    async def make_pod(self, container: str = "containerd://1") -> str:
        """As the set has it, running; its uid."""
        made = await self.client.get(STATEFUL_SETS, SET, namespace=self.namespace)
        template = made["spec"]["template"]
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": template["metadata"] | {"name": POD}}
        pod = await self.client.create(PODS, pod | {"spec": template["spec"]}, namespace=self.namespace)
        await self.run(container)
        return str(pod["metadata"]["uid"])

    async def run(self, container: str, restarts: int = 0, *, ended: str = "") -> None:
        """What the kubelet tells of the pod when this container runs in it, and before it another one ended well."""
        about = {"name": "agent", "image": "i", "imageID": "i", "ready": False, "restartCount": restarts}
        if ended:
            about["lastState"] = {"terminated": {"exitCode": 0, "containerID": ended}}
        running = {"containerID": container, "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}
        await self.tell(PODS, POD, {"phase": "Running", "containerStatuses": [about | running]})

    async def make_another(self) -> None:
        """A pod of the same group that somebody else has made."""
        made = await self.client.get(PODS, POD, namespace=self.namespace)
        metadata = {"name": "other", "labels": made["metadata"]["labels"] | {labels.SESSION: "other"}}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": made["spec"]}
        await self.client.create(PODS, pod, namespace=self.namespace)

    async def make_lost_pod(self, session: str) -> None:
        """Of the session's Job, on a node that will not say that it is gone."""
        made = await self.client.get(JOBS, names.job("main", session), namespace=self.namespace)
        metadata = made["spec"]["template"]["metadata"] | {"name": "lost", "finalizers": ["example.com/node"]}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": made["spec"]["template"]["spec"]}
        await self.client.create(PODS, pod, namespace=self.namespace)
        running = {"name": "agent", "image": "i", "imageID": "i", "ready": False, "restartCount": 0}
        running |= {"state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}
        await self.tell(PODS, "lost", {"phase": "Running", "containerStatuses": [running]})

    async def take_lost_pod(self, backend: ClusterBackend) -> None:
        """As the node's controller does; it stays."""
        await self.client.delete(PODS, "lost", namespace=self.namespace)
        await backend.pods.until(
            "lost",
            lambda pod: pod is not None and pod.metadata.deletion_timestamp is not None,
            Deadline.after(PATIENCE),
        )

    async def scaled_to_zero(self) -> None:
        while (await self.client.get(STATEFUL_SETS, SET, namespace=self.namespace))["spec"]["replicas"]:
            await asyncio.sleep(0.05)

    async def take_pod(self) -> None:
        await self.client.delete(PODS, POD, namespace=self.namespace)

    async def tell(self, resource: Resource, name: str, status: dict[str, Any]) -> None:
        await self.client.merge(resource, f"{name}/status", {"status": status}, namespace=self.namespace)


@pytest.fixture
async def hands(admin: KubeClient, namespace: str) -> Hands:
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": names.AGENT_ACCOUNT}}
    await admin.create(Resource("ServiceAccount", "serviceaccounts"), account, namespace=namespace)
    return Hands(admin, namespace)


@contextlib.asynccontextmanager
async def next_process(hands: Hands) -> AsyncIterator[ClusterBackend]:
    backend = ClusterBackend(hands.client, hands.namespace)
    async with asyncio.TaskGroup() as tasks:
        watch = tasks.create_task(backend.run())
        yield backend
        watch.cancel()


async def test_a_pod_that_was_made_in_place_of_an_evicted_one_is_not_taken_for_the_session(hands: Hands) -> None:
    holder = await hands.make("s1")
    await hands.vehicle.given(replace(holder, pod=await hands.make_pod()))
    await hands.take_pod()
    await hands.make_pod()
    async with next_process(hands) as backend:
        [session] = await backend.running()
        with pytest.raises(SessionFailed) as caught:
            async with asyncio.timeout(PATIENCE):
                _ = [output async for output in session.outputs()]
        assert caught.value.diagnosis.kind is FailureKind.STOPPED
    await hands.scaled_to_zero()


async def test_a_set_is_emptied_behind_its_session_although_the_api_server_was_away(
    hands: Hands, apiserver: ControlPlane, tmp_path: Path
) -> None:
    """Else the group's next session waits for the container that runs there, for as long as a start may take."""
    holder = await hands.make("s1")
    await hands.vehicle.given(replace(holder, pod=await hands.make_pod()))
    await hands.take_pod()
    await hands.make_pod()
    async with FaultProxy(apiserver) as proxy, await KubeClient.connect(proxy.kubeconfig(tmp_path)) as client:
        async with next_process(Hands(client, hands.namespace)) as backend:
            [session] = await backend.running()
            proxy.spoil("call", *[fault_proxy.answer(503)] * ATTEMPTS)
            with pytest.raises(SessionFailed):
                _ = [output async for output in session.outputs()]
        assert proxy.unused == 0
    async with asyncio.timeout(PATIENCE):
        await hands.scaled_to_zero()


@pytest.mark.parametrize("restarts", [0, 1])
async def test_a_container_that_was_made_anew_by_a_node_that_lost_count_is_not_taken_for_the_session(
    hands: Hands, restarts: int
) -> None:
    """It waits for an input as if it was the first one; the session would follow it until the silence limit."""
    holder = await hands.make("s1")
    await hands.vehicle.given(replace(holder, pod=await hands.make_pod("containerd://1"), container="containerd://1"))
    await hands.run("containerd://2", restarts)
    async with next_process(hands) as backend:
        [session] = await backend.running()
        with pytest.raises(SessionFailed) as caught:
            async with asyncio.timeout(PATIENCE):
                _ = [output async for output in session.outputs()]
        assert caught.value.diagnosis.kind is FailureKind.NODE_LOST
    await hands.scaled_to_zero()


async def test_a_log_that_was_asked_for_while_the_container_started_again_is_not_followed_for_ever(
    hands: Hands, apiserver: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the next container's, which waits for an input; what the agent said is in the log before it."""
    monkeypatch.setattr(pod_session, "LOG_ENDS_WITHIN", 0.2)
    holder = await hands.make("s1")
    await hands.vehicle.given(replace(holder, pod=await hands.make_pod("containerd://1"), container="containerd://1"))
    said = f'{wire.OUTPUT_START}\n{{"status": "success", "result": "hello"}}\n{wire.OUTPUT_END}\n'.encode()
    async with FaultProxy(apiserver) as proxy, await KubeClient.connect(proxy.kubeconfig(tmp_path)) as client:
        proxy.spoil("log", fault_proxy.instead(b" ", ends=False), fault_proxy.instead(said))
        async with next_process(Hands(client, hands.namespace)) as backend, asyncio.timeout(PATIENCE):
            [session] = await backend.running()
            following = asyncio.create_task(results(session))
            await proxy.seen("log", 1)
            await hands.run("containerd://2", 1, ended="containerd://1")
            assert await following == [(0, "hello")]
    await hands.scaled_to_zero()


async def test_the_pod_of_one_session_is_not_expected_of_the_next(hands: Hands) -> None:
    holder = replace(await hands.make("s1"), pod=await hands.make_pod())
    await hands.vehicle.given(holder)
    assert [held.pod for held in await hands.vehicle.all()] == [holder.pod]
    await hands.vehicle.release(holder)
    await hands.take_pod()
    await hands.tell(STATEFUL_SETS, SET, {"replicas": 0, "observedGeneration": 99})
    await hands.make("s2")
    assert [(held.ref.session, held.pod) for held in await hands.vehicle.all()] == [("s2", None)]


async def test_no_parked_agent_has_its_input_beside_another_agent_of_the_group(
    hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As two controllers may leave it that did not know of each other for a moment."""
    reached: list[str] = []

    async def attach(_client: KubeClient, name: str, **_: object) -> None:
        reached.append(name)
        raise NotFound(Target("attach", "pods", hands.namespace, name), "no node")

    monkeypatch.setattr(cluster, "attach", attach)
    given = replace(plan("main", "s1", pattern=Pattern.STATEFULSET, start_timeout=5), parked=True)
    async with next_process(hands) as backend:
        await backend.pods.synced(Deadline.after(PATIENCE))
        await backend.prepare(given)
        await hands.make_pod()
        await hands.make_another()
        await backend.pods.find(lambda pod: pod.metadata.name == "other", Deadline.after(PATIENCE))
        starting = asyncio.create_task(backend.start(SessionSpec(given, ready(b"{}"))))
        await hands.scaled_to_zero()
        await hands.take_pod()
        with pytest.raises(SessionFailed, match="still runs in the same group"):
            await starting
    assert reached == []


async def test_a_start_that_waits_for_the_last_pod_of_its_set_can_be_cancelled_at_once(hands: Hands) -> None:
    """A shutdown has half a minute, and a pod on a lost node does not go in that time."""
    holder = await hands.make("s1")
    await hands.make_pod()
    await hands.tell(PODS, POD, {"phase": "Succeeded"})
    async with next_process(hands) as backend:
        starting = asyncio.create_task(
            backend.start(SessionSpec(plan("main", "s2", pattern=Pattern.STATEFULSET), ready(b"")))
        )
        await hands.scaled_to_zero()
        starting.cancel()
        async with asyncio.timeout(PATIENCE):
            await asyncio.wait({starting})
        assert starting.cancelled()
    assert await hands.vehicle.find(holder.ref) is None


async def test_a_parked_agent_on_a_lost_node_keeps_no_message_waiting(
    hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pod never goes, because nobody there says so. It never had an input, so it may stay."""

    async def attach(_client: KubeClient, name: str, **_: object) -> None:
        raise NotFound(Target("attach", "pods", hands.namespace, name), "no node")

    monkeypatch.setattr(cluster, "attach", attach)
    monkeypatch.setattr(cluster, "UNUSED_GONE_WITHIN", 0.5)
    parked = replace(plan("main", "s1", start_timeout=PATIENCE), parked=True)
    async with next_process(hands) as backend:
        await backend.prepare(parked)
        await hands.make_lost_pod("s1")
        with pytest.raises(SessionFailed):
            await backend.start(SessionSpec(parked, ready(b"{}")))
        await hands.take_lost_pod(backend)
        await backend.prepare(replace(parked, ref=replace(parked.ref, session="s2")))
        assert await hands.client.get(JOBS, names.job("main", "s2"), namespace=hands.namespace)
    await hands.client.merge(PODS, "lost", {"metadata": {"finalizers": None}}, namespace=hands.namespace)


async def test_nor_does_one_that_an_earlier_process_parked_and_gave_no_input(hands: Hands) -> None:
    """Whether it had an input is in the database, be it dropped already when the next process looks."""
    parked = replace(plan("main", "s1", start_timeout=PATIENCE), parked=True)
    following = replace(plan("main", "s2", start_timeout=PATIENCE), parked=True)
    async with next_process(hands) as backend:
        await backend.prepare(parked)
        await hands.make_lost_pod("s1")
        await hands.take_lost_pod(backend)
        await hands.client.delete(JOBS, names.job("main", "s1"), namespace=hands.namespace)
    async with next_process(hands) as backend:
        assert (await backend.running(), await backend.once_parked()) == ([], {"s1"})
        await backend.pods.synced(Deadline.after(PATIENCE))
        with pytest.raises(SessionFailed, match="does not go away"):
            await backend.prepare(replace(plan("main", "s2", start_timeout=1), parked=True))
        backend.never_fed("s1")
        await backend.prepare(following)
        assert await hands.client.get(JOBS, names.job("main", "s2"), namespace=hands.namespace)
    await hands.client.merge(PODS, "lost", {"metadata": {"finalizers": None}}, namespace=hands.namespace)


async def test_what_is_known_of_a_parked_agent_is_not_forgotten_before_the_pods_were_seen(hands: Hands) -> None:
    parked = replace(plan("main", "s1", start_timeout=PATIENCE), parked=True)
    async with next_process(hands) as backend:
        await backend.prepare(parked)
        await hands.make_lost_pod("s1")
        await hands.take_lost_pod(backend)
        await hands.client.delete(JOBS, names.job("main", "s1"), namespace=hands.namespace)
    backend = ClusterBackend(hands.client, hands.namespace)
    backend.never_fed("s1")
    assert await backend.running() == []
    watch = asyncio.create_task(backend.run())
    await backend.prepare(replace(plan("main", "s2", start_timeout=5), parked=True))
    watch.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watch
    await hands.client.merge(PODS, "lost", {"metadata": {"finalizers": None}}, namespace=hands.namespace)
