"""Our own client on a real node, and a namespace in which agents can run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from kubernetes import client, watch
from nanoclaw_dev.cluster.cluster import Cluster
from nanoclaw_dev.cluster.dns import ACCOUNT, NAMESPACE
from nanoclaw_runtime.kube.client import KubeClient
from tests.support import cluster as support
from tests.support import script_agent, world
from tests.support.job_site import JobSite


@pytest.fixture(scope="session")
def script_agent_image(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The image whose input is a shell script, on the node."""
    cluster.import_image(script_agent.image_archive(tmp_path_factory.mktemp("image")))
    return script_agent.IMAGE


@pytest.fixture
async def kube(cluster: Cluster) -> AsyncIterator[KubeClient]:
    async with await KubeClient.connect(cluster.kubeconfig) as client:
        yield client


@pytest.fixture(scope="module")
def furnished(cluster: Cluster, script_agent_image: str) -> Iterator[str]:
    """A namespace with what agents need, for tests that leave none of them behind."""
    with support.temporary_namespace(cluster) as name:
        asyncio.run(_furnish(cluster, name))
        yield name


async def _furnish(cluster: Cluster, namespace: str) -> None:
    async with await KubeClient.connect(cluster.kubeconfig) as client:
        await JobSite.furnish(client, namespace)


@pytest.fixture
def core(cluster: Cluster) -> Iterator[client.CoreV1Api]:
    with support.client_of(cluster.kubeconfig) as api:
        yield client.CoreV1Api(api)


@pytest.fixture
def dns(core: client.CoreV1Api) -> None:
    """The cluster's DNS answers; starting a cluster does not wait for that."""
    listing = client.AppsV1Api(core.api_client).list_namespaced_deployment
    only = {"field_selector": f"metadata.name={ACCOUNT}"}
    for change in watch.Watch().stream(listing, NAMESPACE, timeout_seconds=world.PATIENCE, **only):
        if change["object"].status.available_replicas:
            return
    raise AssertionError(f"no DNS within {world.PATIENCE} s")


@pytest.fixture
def outside(cluster: Cluster, tmp_path: Path) -> Iterator[None]:
    """Somebody beyond the cluster listens at `world.OUTSIDE` and `world.METADATA`."""
    with world.outside(cluster, tmp_path):
        yield
