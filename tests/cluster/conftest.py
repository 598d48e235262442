"""Our own client on a real node, and a namespace in which agents can run."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from nanoclaw_dev.cluster.cluster import Cluster
from nanoclaw_runtime.kube.client import KubeClient
from tests.support import script_agent


@pytest.fixture(scope="session")
def script_agent_image(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The image whose input is a shell script, on the node."""
    cluster.import_image(script_agent.image_archive(tmp_path_factory.mktemp("image")))
    return script_agent.IMAGE


@pytest.fixture
async def kube(cluster: Cluster) -> AsyncIterator[KubeClient]:
    async with await KubeClient.connect(cluster.kubeconfig) as client:
        yield client
