"""Sessions as Jobs on a real node: what every backend keeps, and what only this one shows."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from nanoclaw_dev.cluster.cluster import Cluster
from nanoclaw_runtime.backends.cluster import ClusterBackend
from nanoclaw_runtime.contract import names
from nanoclaw_runtime.contract.config import Resources
from nanoclaw_runtime.domain.errors import FailureKind, SessionFailed
from nanoclaw_runtime.kube.client import KubeClient
from nanoclaw_runtime.kube.errors import Forbidden, Target
from nanoclaw_runtime.kube.resources import EVENTS, JOBS, PODS, Resource
from tests.support.backend_suite import *  # noqa: F403
from tests.support.backend_suite import NOW, results, spec
from tests.support.fault_proxy import TcpProxy
from tests.support.job_site import ACCOUNTS, PATIENCE, JobSite, at_work
from tests.support.objects import plain_pod
from tests.support.parked_suite import *  # noqa: F403

pytestmark = pytest.mark.cluster

QUOTAS = Resource("ResourceQuota", "resourcequotas")


@pytest.fixture
async def site(kube: KubeClient, furnished: str) -> AsyncIterator[JobSite]:
    """An installation without a controller."""
    async with JobSite.open(kube, furnished) as opened:
        yield opened


@pytest.fixture
async def own_site(kube: KubeClient, cluster_namespace: str, script_agent_image: str) -> AsyncIterator[JobSite]:
    """The same in a namespace that this test may spoil."""
    await JobSite.furnish(kube, cluster_namespace)
    async with JobSite.open(kube, cluster_namespace) as opened:
        yield opened


@pytest.fixture
async def line(cluster: Cluster) -> AsyncIterator[TcpProxy]:
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    address = urlsplit(config["clusters"][0]["cluster"]["server"])
    async with TcpProxy(address.hostname, address.port) as proxy:
        yield proxy


@pytest.fixture
async def shaky(cluster: Cluster, line: TcpProxy, site: JobSite, tmp_path: Path) -> AsyncIterator[ClusterBackend]:
    """A backend whose connections can be cut."""
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    section = config["clusters"][0]["cluster"]
    section["tls-server-name"] = urlsplit(section["server"]).hostname
    section["server"] = f"https://127.0.0.1:{line.port}"
    (tmp_path / "line").write_text(yaml.safe_dump(config))
    async with await KubeClient.connect(tmp_path / "line") as client, at_work(client, site.namespace) as running:
        yield running


async def nothing_is_left(site: JobSite) -> None:
    assert await site.kube.list(JOBS, namespace=site.namespace) == []
    assert await site.kube.list(PODS, namespace=site.namespace) == []


async def test_a_finished_job_stays_for_the_operator_without_the_input(site: JobSite) -> None:
    session = await site.backend.start(spec("s1", "# password: swordfish-1234", "output done"))
    assert await results(session) == [(0, "done")]
    await session.stop(grace=NOW)
    assert await site.kube.get(JOBS, names.job("main", "s1"), namespace=site.namespace)
    for resource in (JOBS, PODS, EVENTS):
        assert "swordfish" not in str(await site.kube.list(resource, namespace=site.namespace))


async def test_a_lost_stream_leaves_no_gap_and_no_repetition(shaky: ClusterBackend, line: TcpProxy) -> None:
    lines = ("output one", "sleep 2", "output two", "echo aside >&2", "sleep 1", "output three")
    session = await shaky.start(spec("s1", *lines))
    seen = []
    async with contextlib.aclosing(session.outputs()) as outputs:
        async for output in outputs:
            seen.append((output.ordinal, output.output.result))
            if output.ordinal == 0:
                line.cut()
    assert seen == [(0, "one"), (1, "two"), (2, "three")]


async def test_a_deleted_pod_is_no_regular_end(site: JobSite) -> None:
    session = await site.backend.start(spec("s1", "output one", "sleep 1000"))
    outputs = session.outputs()
    assert (await anext(outputs)).output.result == "one"
    [pod] = await site.kube.list(PODS, namespace=site.namespace)
    await site.kube.delete(PODS, pod["metadata"]["name"], namespace=site.namespace)
    with pytest.raises(SessionFailed) as caught:
        await anext(outputs)
    assert caught.value.diagnosis.kind is FailureKind.STOPPED


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param(
            {"resources": Resources(cpu_request="500", cpu_limit="500"), "start_timeout": 6},
            (FailureKind.UNSCHEDULABLE, "Insufficient cpu"),
            id="too-big-for-any-node",
        ),
        pytest.param(
            {"folder": "unknown", "start_timeout": 6}, (FailureKind.VOLUME, "nanoclaw-group-unknown"), id="claim"
        ),
        pytest.param({"image": "Not/An Image"}, (FailureKind.IMAGE, "InvalidImageName"), id="no-image-name"),
    ],
)
async def test_a_start_that_cannot_work_is_diagnosed_and_undone(
    site: JobSite, changes: dict, expected: tuple[FailureKind, str]
) -> None:
    with pytest.raises(SessionFailed) as caught:
        await site.backend.start(spec("s1", **changes))
    assert caught.value.diagnosis.kind is expected[0]
    assert expected[1] in caught.value.diagnosis.operator
    await nothing_is_left(site)


async def admission_refuses_pods(site: JobSite) -> None:
    """It reads quotas through a watch of its own, so the first pods may come before it knows one."""
    path, target, probe = PODS.path(site.namespace), Target("create", PODS.plural, site.namespace), plain_pod("probe")
    with contextlib.suppress(Forbidden):
        async with asyncio.timeout(PATIENCE):
            while True:
                await site.kube.request("POST", path, target, query=[("dryRun", "All")], body=probe)
                await asyncio.sleep(0.1)


async def test_a_used_up_quota_is_told_at_once(own_site: JobSite) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
    await own_site.kube.create(QUOTAS, quota, namespace=own_site.namespace)
    await admission_refuses_pods(own_site)
    with pytest.raises(SessionFailed) as caught:
        await own_site.backend.start(spec("s1"))
    assert caught.value.diagnosis.kind is FailureKind.QUOTA
    await nothing_is_left(own_site)


async def test_an_admission_that_refuses_the_pod_is_told_at_once(own_site: JobSite) -> None:
    await own_site.kube.delete(ACCOUNTS, names.AGENT_ACCOUNT, namespace=own_site.namespace)
    with pytest.raises(SessionFailed) as caught:
        await own_site.backend.start(spec("s1"))
    assert caught.value.diagnosis.kind is FailureKind.REFUSED
    assert names.AGENT_ACCOUNT in caught.value.diagnosis.operator
    await nothing_is_left(own_site)
