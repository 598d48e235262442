"""Real clusters for all tests that need one, each started once a session and always torn down."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog
from hypothesis import HealthCheck, settings

from nanoclaw_dev.cluster.cluster import Cluster
from nanoclaw_dev.cluster.control_plane import ControlPlane
from tests.support import cluster as support

settings.register_profile("usual", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# How long an example takes, or is in the making, says how busy the machine is, and nothing of the product.
settings.register_profile("quick", settings.get_profile("usual"), max_examples=20)
# For `make check`; `make test` takes the usual hundred.
settings.load_profile("usual")

_BY_DEFAULT = structlog.get_config()["processors"][:-1]
_PLAIN = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
# As in the product: colouring the source of every frame takes longer than most of what raises it.
structlog.configure(processors=[*_BY_DEFAULT, _PLAIN])


@pytest.fixture(scope="session")
def apiserver() -> Iterator[ControlPlane]:
    """etcd and kube-apiserver on loopback; no controllers, no nodes, no root needed."""
    support.need_control_plane()
    support.remove_abandoned()
    control_plane = ControlPlane(support.free_instance("apiserver"))
    try:
        with control_plane:
            yield control_plane
    finally:
        control_plane.remove()


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A whole cluster of one node, with the tests' busybox image on it."""
    support.need_node()
    support.remove_abandoned()
    running = Cluster(support.free_instance("cluster"))
    try:
        with running:
            running.import_image(support.busybox_archive(tmp_path_factory.mktemp("image")))
            yield running
    finally:
        running.remove()


@pytest.fixture(scope="session")
def nodes3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of three nodes that notices a dead one soon, with the tests' busybox image on each.

    For fixtures that last; a test that harms a node takes `wide_cluster`.
    """
    support.need_node()
    support.remove_abandoned()
    running = Cluster(support.free_instance("wide"), nodes=3, fast_failure=True)
    try:
        with running:
            running.import_image(support.busybox_archive(tmp_path_factory.mktemp("image")))
            yield running
    finally:
        running.remove()


@pytest.fixture
def wide_cluster(nodes3: Cluster) -> Iterator[Cluster]:
    """The cluster of three nodes, whole again after the test, whatever befell its nodes."""
    yield nodes3
    support.revive(nodes3)


@pytest.fixture
def wide_namespace(nodes3: Cluster) -> Iterator[str]:
    """A namespace of this test's own on the cluster of three nodes."""
    with support.temporary_namespace(nodes3) as name:
        yield name


@pytest.fixture
def namespace(apiserver: ControlPlane) -> Iterator[str]:
    """A namespace of this test's own on the API server."""
    with support.temporary_namespace(apiserver) as name:
        yield name


@pytest.fixture
def cluster_namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace of this test's own on the cluster."""
    with support.temporary_namespace(cluster) as name:
        yield name
