"""An installation of a column, made as its owner makes one, and gone behind it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from nanoclaw_dev import engine_binaries
from nanoclaw_dev.cluster.cluster import Cluster
from nanoclaw_dev.docker_engine import DockerEngine
from nanoclaw_dev.trial import Installation, node_root, open_nodes
from nanoclaw_runtime.contract.config import Pattern
from nanoclaw_runtime.kube.client import KubeClient
from tests.matrix.columns import Column
from tests.matrix.place import OnCluster, OnDocker, OnNodes
from tests.support import cluster as support
from tests.support.docker_host import DockerHost


@contextlib.asynccontextmanager
async def on_cluster(column: Column, cluster: Cluster, folder: Path) -> AsyncIterator[OnCluster]:
    """By `pulumi up` of a stack."""
    on_nodes = column.pattern is Pattern.NODELOCAL
    made = (up_on_nodes if on_nodes else up)(cluster, folder, column.settings())
    try:
        async with await KubeClient.connect(cluster.kubeconfig) as client:
            yield (OnNodes if on_nodes else OnCluster)(made, client)
    finally:
        made.leave()


def up_on_nodes(cluster: Cluster, folder: Path, settings: dict[str, Any]) -> Installation:
    opened = settings | open_nodes(cluster, folder)
    opened["runtime"] = settings["runtime"] | {"pattern": "nodelocal", "nodeRoot": node_root(folder)}
    return up(cluster, folder, opened)


def up(cluster: Cluster, folder: Path, settings: dict[str, Any]) -> Installation:
    binaries = engine_binaries.present()
    if binaries is None:
        support.unavailable("the Pulumi engine is not built: `make test` builds it")
    return Installation.up(cluster, binaries, folder, settings=settings, layout="per-group")


@contextlib.asynccontextmanager
async def on_docker(column: Column, engine: DockerEngine, folder: Path, image: str) -> AsyncIterator[OnDocker]:
    """By `nanoclaw host`."""
    async with DockerHost.on(engine, folder, image) as host:
        settings = column.settings()
        host.settings["groups"] = settings["groups"]
        host.settings["runtime"] |= settings["runtime"]
        await host.start()
        yield OnDocker(host, engine)
