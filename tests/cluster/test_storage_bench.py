"""`nanoclaw bench storage` on real nodes: what it measures, what it leaves out, and that nothing of it stays."""

from __future__ import annotations

import asyncio
import signal

import pytest

from nanoclaw_dev import images
from nanoclaw_dev.cluster.render import STORAGE_CLASS
from nanoclaw_dev.progress import Progress
from nanoclaw_runtime.domain.storage_advice import SEEN, Where
from nanoclaw_runtime.kube.client import KubeClient
from nanoclaw_runtime.kube.resources import CLAIMS, PODS, Resource
from nanoclaw_runtime.storage_probe import writes
from tests.support.command_line import COMMAND, CommandLine

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

NAMESPACES = Resource("Namespace", "namespaces", namespaced=False)
QUICK = ("--rounds", "1", "--seconds", "0.1")
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


@pytest.fixture(scope="session")
def runtime_image():
    return images.build_images(Progress())[0]


@pytest.fixture(scope="session")
def on_cluster(cluster, runtime_image):
    cluster.import_image(runtime_image.archive)
    return runtime_image.reference


@pytest.fixture(scope="session")
def on_wide_cluster(nodes3, runtime_image):
    nodes3.import_image(runtime_image.archive)
    return runtime_image.reference


class Bench:
    """The command, in a namespace that Pod Security restricts."""

    def __init__(self, cluster, namespace, image, client) -> None:
        self.namespace, self.client, self._image = namespace, client, image
        self.command = CommandLine(KUBECONFIG=str(cluster.kubeconfig))

    def line(self, *more):
        return ["bench", "storage", "-n", self.namespace, "--image", self._image, *QUICK, *more]

    async def told(self, *more):
        return await self.command.told(*self.line(*more))

    async def left(self):
        """Pods now, and claims, which go when their pods have ended."""
        pods = await self.client.list(PODS, namespace=self.namespace)
        async with asyncio.timeout(120):
            while claims := await self.client.list(CLAIMS, namespace=self.namespace):
                await asyncio.sleep(0.2)
        return [*claims, *pods]


async def opened(cluster, namespace, image, client):
    labelled = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": RESTRICTED}}
    await client.apply(NAMESPACES, labelled, manager="test")
    return Bench(cluster, namespace, image, client)


@pytest.fixture
async def bench(cluster, cluster_namespace, on_cluster, kube):
    return await opened(cluster, cluster_namespace, on_cluster, kube)


@pytest.fixture
async def wide_bench(nodes3, wide_namespace, on_wide_cluster):
    async with await KubeClient.connect(nodes3.kubeconfig) as client:
        yield await opened(nodes3, wide_namespace, on_wide_cluster, client)


def measured(found):
    return {(each["what"], each["where"]) for each in found["measured"]}


OWN = {(what, where) for what in writes.CASES for where in (Where.PLAIN, Where.CLAIM)}


def seen(*places):
    return {(what, where) for what in SEEN for where in (Where.PLAIN, *places)}


async def test_without_a_second_node_it_says_so_and_measures_the_rest(bench):
    found = await bench.told("--class", STORAGE_CLASS)
    assert measured(found) == OWN | seen(Where.SAME_NODE)
    assert any("no second node" in each for each in found["skipped"])
    assert found["advice"][0]["choice"] == "volume, on one node"
    assert await bench.left() == []


async def test_a_claim_of_one_pod_is_measured_by_one_pod(bench):
    found = await bench.told("--class", STORAGE_CLASS, "--mode", "ReadWriteOncePod")
    assert measured(found) == OWN | seen()
    assert found["advice"][0]["choice"] == "bridge"
    assert await bench.left() == []


@pytest.mark.wide
async def test_another_node_is_measured_where_there_is_one(wide_bench):
    found = await wide_bench.told("--class", STORAGE_CLASS)
    assert measured(found) == OWN | seen(Where.SAME_NODE, Where.OTHER_NODE)
    assert len(set(found["nodes"])) == 2
    assert await wide_bench.left() == []


@pytest.mark.wide
async def test_the_nodes_can_be_named(wide_bench):
    found = await wide_bench.told("--class", STORAGE_CLASS, "--nodes", "node-3,node-1")
    assert found["nodes"] == ["node-3", "node-1"]


async def test_a_claim_in_use_keeps_its_files_and_nothing_of_ours(bench, cluster):
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "used"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    await bench.client.create(CLAIMS, claim, namespace=bench.namespace)
    found = await bench.told("--claim", "used")
    assert measured(found) == OWN | seen(Where.SAME_NODE)
    assert any("one node" in each for each in found["skipped"])
    (folder,) = cluster.instance.volumes.glob(f"{bench.namespace}_used_*")
    assert list(folder.iterdir()) == []
    assert (await bench.client.get(CLAIMS, "used", namespace=bench.namespace))["status"]["phase"] == "Bound"


async def test_ctrl_c_leaves_neither_pods_nor_claim(bench):
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *bench.line("--class", STORAGE_CLASS, "--mode", "ReadWriteOnce"),  # two pods: nobody looks for a second node
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=bench.command.environment,
    )
    assert process.stderr is not None
    while "node's disk" not in (step := (await process.stderr.readline()).decode()):
        assert step, "it ended before it measured"
    process.send_signal(signal.SIGINT)
    await process.communicate()
    assert process.returncode != 0
    assert await bench.left() == []


@pytest.mark.parametrize(
    ("line", "words"),
    [
        pytest.param(("--claim", "none"), "there is no claim 'none'", id="no-claim"),
        pytest.param(("--class", "none"), "there is no StorageClass 'none'; there are", id="no-class"),
    ],
)
async def test_what_is_not_there_is_said_at_once(bench, line, words):
    status, out, err = await bench.command.run(*bench.line(*line))
    assert (status, out) == (1, "")
    assert words in err
    assert await bench.left() == []
