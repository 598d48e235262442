"""Every verb of the client against a real API server, and the errors it makes of refusals."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from nanoclaw_dev.cluster.control_plane import ControlPlane
from nanoclaw_runtime.contract import labels, names
from nanoclaw_runtime.kube import client as client_module
from nanoclaw_runtime.kube.client import KubeClient
from nanoclaw_runtime.kube.errors import (
    AlreadyExists,
    Conflict,
    Forbidden,
    Invalid,
    NotConfigured,
    NotFound,
    Target,
    Unauthorized,
    Unavailable,
)
from nanoclaw_runtime.kube.resources import CONFIG_MAPS, JOBS, PODS, ConfigMap, Resource
from nanoclaw_runtime.kube.services import ServicePort
from nanoclaw_runtime.kube.watch import Watch
from nanoclaw_runtime.manifests.job import agent_job
from tests.apiserver.conftest import write_kubeconfig
from tests.support.objects import config_map, plain_pod
from tests.support.plans import plan

pytestmark = pytest.mark.apiserver

QUOTAS = Resource("ResourceQuota", "resourcequotas")
SECRETS = Resource("Secret", "secrets")


async def test_an_object_lives_and_dies(admin: KubeClient, namespace: str) -> None:
    made = await admin.create(CONFIG_MAPS, config_map("one", key="value"), namespace=namespace)
    read = await admin.get(CONFIG_MAPS, "one", namespace=namespace)
    assert read["metadata"]["uid"] == made["metadata"]["uid"]
    assert read["data"] == {"key": "value"}

    await admin.delete(CONFIG_MAPS, "one", namespace=namespace, uid=made["metadata"]["uid"])
    with pytest.raises(NotFound) as caught:
        await admin.get(CONFIG_MAPS, "one", namespace=namespace)
    assert (caught.value.target.verb, caught.value.target.name, caught.value.status) == ("get", "one", 404)
    assert str(caught.value).startswith(f"get configmaps {namespace}/one: ")


async def test_a_list_has_every_page(admin: KubeClient, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "PAGE", 2)
    for number in range(5):
        await admin.create(CONFIG_MAPS, config_map(f"page-{number}"), namespace=namespace)
    found = await admin.list(CONFIG_MAPS, namespace=namespace, fields="metadata.name!=kube-root-ca.crt")
    assert sorted(item["metadata"]["name"] for item in found) == [f"page-{number}" for number in range(5)]


async def test_labels_select(admin: KubeClient, namespace: str) -> None:
    await admin.create(PODS, plain_pod("a", colour="red"), namespace=namespace)
    await admin.create(PODS, plain_pod("b", colour="blue"), namespace=namespace)
    found = await admin.list(PODS, namespace=namespace, labels="colour=blue")
    assert [item["metadata"]["name"] for item in found] == ["b"]


async def test_a_misspelt_field_is_refused_by_the_server(admin: KubeClient, namespace: str) -> None:
    manifest = config_map("typo") | {"immutible": True}
    with pytest.raises(Invalid, match="immutible"):
        await admin.create(CONFIG_MAPS, manifest, namespace=namespace)


async def test_a_delete_for_another_object_of_the_name_is_a_conflict(admin: KubeClient, namespace: str) -> None:
    await admin.create(CONFIG_MAPS, config_map("one"), namespace=namespace)
    with pytest.raises(Conflict):
        await admin.delete(CONFIG_MAPS, "one", namespace=namespace, uid="00000000-0000-0000-0000-000000000000")


async def test_creating_what_is_ours_already_returns_it(admin: KubeClient, namespace: str) -> None:
    manifest = agent_job(plan("main", "s1"))
    first = await admin.create(JOBS, manifest, namespace=namespace, identity=labels.SESSION)
    second = await admin.create(JOBS, manifest, namespace=namespace, identity=labels.SESSION)
    assert second["metadata"]["uid"] == first["metadata"]["uid"]


async def test_creating_over_somebody_elses_object_is_refused(admin: KubeClient, namespace: str) -> None:
    other = agent_job(plan("main", "s1"))
    other["metadata"]["labels"][labels.SESSION] = "another"
    await admin.create(JOBS, other, namespace=namespace)
    with pytest.raises(AlreadyExists):
        await admin.create(JOBS, agent_job(plan("main", "s1")), namespace=namespace, identity=labels.SESSION)


async def test_a_used_up_quota_is_told_apart_from_a_missing_right(admin: KubeClient, namespace: str) -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "none"},
        "spec": {"hard": {"count/jobs.batch": "0"}},
    }
    made = await admin.create(QUOTAS, quota, namespace=namespace)
    # The quota controller does not run here, so we do its part: without a status nothing is counted.
    made["status"] = {"hard": {"count/jobs.batch": "0"}, "used": {"count/jobs.batch": "0"}}
    await admin.request("PUT", QUOTAS.path(namespace, "none", "status"), Target("update", "quota"), body=made)
    refused = await refusal(admin, namespace)
    assert refused.quota


async def refusal(admin: KubeClient, namespace: str) -> Forbidden:
    """Admission reads quotas through a watch of its own, so the first Jobs may come before it knows this one."""
    for number in range(100):
        try:
            await admin.create(JOBS, agent_job(plan("main", f"s{number}")), namespace=namespace)
        except Forbidden as refused:
            return refused
        await asyncio.sleep(0.1)
    pytest.fail("A quota of no Jobs let a hundred pass")


async def test_an_unknown_token_is_unauthorized(apiserver: ControlPlane, tmp_path: Path) -> None:
    kubeconfig = write_kubeconfig(tmp_path / "stranger", apiserver.kubeconfig, user={"token": "nobody"})
    async with await KubeClient.connect(kubeconfig) as client:
        with pytest.raises(Unauthorized):
            await client.list(PODS, namespace="default")


async def test_the_namespace_of_the_context_is_meant_when_none_is_named(controller: KubeClient, namespace: str) -> None:
    assert controller.namespace == namespace
    assert await controller.list(PODS) == []


async def test_the_command_line_learns_version_and_rights(controller: KubeClient) -> None:
    assert (await controller.version()).startswith("v1.")
    assert await controller.allowed("create", "jobs", group="batch")
    assert await controller.allowed("create", "pods", subresource="attach")
    assert not await controller.allowed("get", "secrets")


async def test_a_service_without_endpoints_is_the_api_servers_own_error(admin: KubeClient, namespace: str) -> None:
    with pytest.raises(NotFound):
        await ServicePort(admin, namespace, "nobody", "http").request("GET", "/health")


async def test_events_of_an_object_come_oldest_first(admin: KubeClient, namespace: str) -> None:
    pod = await admin.create(PODS, plain_pod("a"), namespace=namespace)
    for second, reason in ((2, "Later"), (1, "Sooner")):
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": reason.lower()},
            "involvedObject": {"kind": "Pod", "name": "a", "namespace": namespace, "uid": pod["metadata"]["uid"]},
            "reason": reason,
            "message": "told by a test",
            "lastTimestamp": f"2026-01-01T00:00:0{second}Z",
        }
        await admin.create(Resource("Event", "events"), event, namespace=namespace)
    events = await admin.events(pod["metadata"]["uid"], namespace=namespace)
    assert [event.reason for event in events] == ["Sooner", "Later"]


async def test_without_a_cluster_one_sentence_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NotConfigured, match="set KUBECONFIG or name a file"):
        await KubeClient.connect(tmp_path / "missing")


async def test_an_address_nobody_listens_on_is_unavailable(
    apiserver: ControlPlane, tmp_path: Path, nowhere: str
) -> None:
    kubeconfig = write_kubeconfig(tmp_path / "nowhere", apiserver.kubeconfig, server=nowhere)
    async with await KubeClient.connect(kubeconfig) as client:
        with pytest.raises(Unavailable, match="cannot be reached"):
            await client.request("GET", "/version", Target("get", "version"), repeat=False)


async def test_a_call_that_is_cancelled_leaves_no_connection_behind(apiserver: ControlPlane) -> None:
    """At whatever moment: a loop that ends soon after would leave its socket open."""
    before = open_sockets()
    for ticks in range(60):
        async with await KubeClient.connect(apiserver.kubeconfig) as client:
            await client.version()  # so that there is a connection for the next one
            cancelled = asyncio.create_task(client.list(PODS, namespace="default"))
            for _ in range(ticks):
                await asyncio.sleep(0)
            cancelled.cancel()
            await asyncio.gather(cancelled, return_exceptions=True)
        await asyncio.sleep(0)
        assert open_sockets() <= before


def open_sockets() -> set[str]:
    """Of this process, by what the kernel calls them."""
    found = set[str]()
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # that of the folder itself
            found |= {name} if (name := str(each.readlink())).startswith("socket:") else set()
    return found


async def test_the_contracts_role_is_enough(admin: KubeClient, controller: KubeClient, namespace: str) -> None:
    job = await controller.create(JOBS, agent_job(plan("main", "s1")), identity=labels.SESSION)
    assert await controller.list(JOBS, labels=labels.AGENT_SELECTOR)
    assert await controller.get(JOBS, job["metadata"]["name"])
    assert await controller.events(job["metadata"]["uid"]) == []
    await controller.delete(JOBS, job["metadata"]["name"], uid=job["metadata"]["uid"])

    await admin.create(CONFIG_MAPS, config_map(names.GROUPS_CONFIG), namespace=namespace)
    watch = Watch(controller, CONFIG_MAPS, ConfigMap, fields=f"metadata.name={names.GROUPS_CONFIG}")
    batches = watch.batches()
    assert [change.name for change in (await anext(batches)).changes] == [names.GROUPS_CONFIG]
    await batches.aclose()

    with pytest.raises(NotFound):  # not Forbidden
        await controller.get(PODS, "nobody")
    for subresource, method in (("log", "GET"), ("attach", "POST")):
        with pytest.raises((NotFound, Invalid)):
            await controller.request(method, PODS.path(namespace, "nobody", subresource), Target("try", "pods"))


@pytest.mark.parametrize(
    ("method", "path"),
    [
        pytest.param("GET", "/api/v1/namespaces/{}/secrets", id="list secrets"),
        pytest.param("GET", f"/api/v1/namespaces/{{}}/secrets/{names.CREDENTIALS}", id="read the credentials"),
        pytest.param("GET", "/api/v1/namespaces/{}/configmaps", id="list all config maps"),
        pytest.param("POST", "/api/v1/namespaces/{}/pods/x/exec", id="exec"),
        pytest.param("DELETE", "/api/v1/namespaces/{}/pods/x", id="delete a pod"),
        pytest.param("DELETE", "/api/v1/namespaces/{}/persistentvolumeclaims/x", id="delete a claim"),
        pytest.param("GET", "/apis/batch/v1/namespaces/default/jobs", id="look into another namespace"),
        pytest.param("GET", "/api/v1/nodes", id="list nodes"),
    ],
)
async def test_the_contracts_role_allows_nothing_else(
    controller: KubeClient, namespace: str, method: str, path: str
) -> None:
    with pytest.raises(Forbidden):
        await controller.request(method, path.format(namespace), Target("try", "this"))
