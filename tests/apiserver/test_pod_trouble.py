"""Why a pod that was asked for does not come, as a real API server tells the controller with its own Role."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from nanoclaw_runtime.backends.pod_trouble import PodTrouble
from nanoclaw_runtime.contract import labels, names
from nanoclaw_runtime.contract.claims import Layout
from nanoclaw_runtime.contract.config import Pattern
from nanoclaw_runtime.contract.permissions import CONTROLLER_RULES, STATEFULSET_RULES, Rule
from nanoclaw_runtime.domain.errors import Diagnosis, FailureKind
from nanoclaw_runtime.kube.client import KubeClient
from nanoclaw_runtime.kube.deadline import Deadline
from nanoclaw_runtime.kube.reflector import Reflector
from nanoclaw_runtime.kube.resources import CLAIMS, EVENTS, JOBS, PODS, STATEFUL_SETS, Pod, Resource
from nanoclaw_runtime.manifests.job import agent_job
from nanoclaw_runtime.manifests.statefulset import agent_set
from tests.support.plans import plan

pytestmark = pytest.mark.apiserver

QUOTA = 'Error creating: pods "x" is forbidden: exceeded quota: nanoclaw, requested: pods=1, used: pods=5'


class Place:
    """A namespace in which the test is Kubernetes."""

    def __init__(self, admin: KubeClient, client: KubeClient, namespace: str) -> None:
        self.admin, self.client, self.namespace = admin, client, namespace

    async def trouble(self) -> Diagnosis | None:
        """What the controller finds, with its pods as a watch shows them."""
        pods = Reflector(self.client, PODS, Pod, namespace=self.namespace, labels=labels.AGENT_SELECTOR)
        async with asyncio.TaskGroup() as tasks:
            watch = tasks.create_task(pods.run())
            await pods.synced(Deadline.after(30))
            found = await PodTrouble(self.client, self.namespace, pods, Layout.PER_GROUP)("main", "s1")
            watch.cancel()
        return found

    async def job(self) -> dict[str, Any]:
        return await self.admin.create(JOBS, agent_job(plan("main", "s1")), namespace=self.namespace)

    async def pod(self, **status: Any) -> None:
        """The pod of that Job."""
        job = await self.job()
        template = job["spec"]["template"]
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": template["metadata"] | {"name": "p"}}
        await self.admin.create(PODS, pod | {"spec": template["spec"]}, namespace=self.namespace)
        change = {"status": {"phase": "Pending"} | status}
        await self.admin.merge(PODS, "p/status", change, namespace=self.namespace)

    async def claim(self) -> None:
        metadata = {"name": names.folder_claim("main")}
        spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
        claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}
        await self.admin.create(CLAIMS, claim, namespace=self.namespace)

    async def event(self, about: dict[str, Any], reason: str, message: str) -> None:
        subject = {"kind": about["kind"], "name": about["metadata"]["name"], "uid": about["metadata"]["uid"]}
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": "e"},
            "involvedObject": subject | {"namespace": self.namespace},
            "reason": reason,
            "message": message,
        }
        await self.admin.create(EVENTS, event, namespace=self.namespace)


@pytest.fixture
def contract_rules() -> tuple[Rule, ...]:
    return CONTROLLER_RULES + STATEFULSET_RULES


@pytest.fixture
async def place(admin: KubeClient, controller: KubeClient, namespace: str) -> Place:
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": names.AGENT_ACCOUNT}}
    await admin.create(Resource("ServiceAccount", "serviceaccounts"), account, namespace=namespace)
    return Place(admin, controller, namespace)


async def test_a_pod_that_nothing_speaks_against_is_no_trouble(place: Place) -> None:
    assert await place.trouble() is None
    await place.job()
    assert await place.trouble() is None


async def test_a_quota_is_told_from_the_job(place: Place) -> None:
    await place.event(await place.job(), "FailedCreate", QUOTA)
    found = await place.trouble()
    assert found is not None
    assert (found.kind, "exceeded quota" in found.operator) == (FailureKind.QUOTA, True)


async def test_a_quota_is_told_from_the_set_where_the_group_has_one(place: Place) -> None:
    given = agent_set(plan("main", "s1", pattern=Pattern.STATEFULSET))
    await place.event(await place.admin.create(STATEFUL_SETS, given, namespace=place.namespace), "FailedCreate", QUOTA)
    found = await place.trouble()
    assert found is not None
    assert found.kind is FailureKind.QUOTA


async def test_a_claim_that_is_not_there_is_named(place: Place) -> None:
    await place.pod()
    found = await place.trouble()
    assert found is not None
    assert (found.kind, names.folder_claim("main") in found.operator) == (FailureKind.VOLUME, True)


async def test_a_claim_that_is_not_bound_is_named(place: Place) -> None:
    await place.claim()
    await place.pod()
    found = await place.trouble()
    assert found is not None
    assert (found.kind, "is Pending" in found.operator) == (FailureKind.VOLUME, True)


async def test_a_pod_without_a_node_says_why(place: Place) -> None:
    await place.claim()
    full = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes: cpu"}
    await place.pod(conditions=[full])
    found = await place.trouble()
    assert found is not None
    assert (found.kind, "0/3 nodes: cpu" in found.operator) == (FailureKind.UNSCHEDULABLE, True)
