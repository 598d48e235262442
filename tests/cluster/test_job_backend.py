"""Sessions as Jobs on a real node: they start, answer, end, break, and leave nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from nanoclaw_dev.cluster.cluster import Cluster
from nanoclaw_runtime.backends.base import RunningSession
from nanoclaw_runtime.backends.job import JobBackend
from nanoclaw_runtime.contract import claims, labels, names
from nanoclaw_runtime.contract.claims import Layout
from nanoclaw_runtime.contract.config import Resources
from nanoclaw_runtime.domain.errors import FailureKind, SessionFailed
from nanoclaw_runtime.domain.model import SessionSpec
from nanoclaw_runtime.kube.client import KubeClient
from nanoclaw_runtime.kube.deadline import Deadline
from nanoclaw_runtime.kube.resources import CLAIMS, JOBS, PODS, Resource
from tests.support.fault_proxy import TcpProxy
from tests.support.plans import plan
from tests.support.script_agent import IMAGE, script

pytestmark = pytest.mark.cluster

PATIENCE = 90.0
ACCOUNTS = Resource("ServiceAccount", "serviceaccounts")
QUOTAS = Resource("ResourceQuota", "resourcequotas")
NOW = timedelta(0)
SMALL = Resources(cpu_request="10m", memory_request="16Mi", cpu_limit="1", memory_limit="64Mi")


def spec(
    session: str, *lines: str, folder: str = "main", resources: Resources = SMALL, image: str = IMAGE, **more
) -> SessionSpec:
    return SessionSpec(plan(folder, session, image=image, resources=resources, **more), script(*lines))


@pytest.fixture
async def home(kube: KubeClient, cluster_namespace: str, script_agent_image: str) -> str:
    """A namespace with the agents' account and the claims of the groups main and team."""
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": names.AGENT_ACCOUNT}}
    await kube.create(ACCOUNTS, account, namespace=cluster_namespace)
    wanted = [*claims.installation_claims(Layout.PER_TYPE)]
    wanted += [claim for folder in ("main", "team") for claim in claims.group_claims(Layout.PER_TYPE, folder)]
    for claim in wanted:
        manifest = {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": claim.name},
            "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Mi"}}},
        }
        await kube.create(CLAIMS, manifest, namespace=cluster_namespace)
    return cluster_namespace


@contextlib.asynccontextmanager
async def at_work(client: KubeClient, namespace: str) -> AsyncIterator[JobBackend]:
    backend = JobBackend(client, namespace)
    task = asyncio.create_task(backend.run(), name="backend")
    try:
        yield backend
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture
async def backend(kube: KubeClient, home: str) -> AsyncIterator[JobBackend]:
    async with at_work(kube, home) as running:
        yield running


@pytest.fixture
async def line(cluster: Cluster) -> AsyncIterator[TcpProxy]:
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    address = urlsplit(config["clusters"][0]["cluster"]["server"])
    async with TcpProxy(address.hostname, address.port) as proxy:
        yield proxy


@pytest.fixture
async def shaky(cluster: Cluster, line: TcpProxy, home: str, tmp_path: Path) -> AsyncIterator[JobBackend]:
    """A backend whose connections can be cut."""
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    section = config["clusters"][0]["cluster"]
    section["tls-server-name"] = urlsplit(section["server"]).hostname
    section["server"] = f"https://127.0.0.1:{line.port}"
    (tmp_path / "line").write_text(yaml.safe_dump(config))
    async with await KubeClient.connect(tmp_path / "line") as client, at_work(client, home) as running:
        yield running


async def results(session: RunningSession, skip: int = 0) -> list[tuple[int, str | None]]:
    return [(output.ordinal, output.output.result) async for output in session.outputs(skip)]


async def failure(session: RunningSession) -> SessionFailed:
    with pytest.raises(SessionFailed) as caught:
        await results(session)
    return caught.value


async def nothing_is_left(kube: KubeClient, namespace: str) -> None:
    assert await kube.list(JOBS, namespace=namespace) == []
    assert await kube.list(PODS, namespace=namespace) == []


async def test_a_session_answers_and_ends(backend: JobBackend, kube: KubeClient, home: str) -> None:
    session = await backend.start(
        spec("s1", "output one", "echo noise", "output two >&1; echo aside >&2", "output three")
    )
    assert await results(session) == [(0, "one"), (1, "two"), (2, "three")]
    # The finished Job stays for a while, and stopping what has ended does not take it away.
    await session.stop(grace=NOW)
    assert await kube.get(JOBS, names.job("main", "s1"), namespace=home)


async def test_the_agent_sees_its_volumes_and_may_write_where_it_should(backend: JobBackend) -> None:
    writable = (
        "for d in /workspace/group /workspace/ipc /home/node /home/node/.claude /tmp; do : > $d/probe || exit 3; done"
    )
    protected = "if : > /workspace/project/probe; then exit 4; fi; if : > /probe; then exit 5; fi"
    session = await backend.start(spec("s1", writable, f"( {protected} ) 2>/dev/null || true", 'output "$HOME"'))
    assert await results(session) == [(0, "/home/node")]


async def test_what_an_agent_wrote_is_there_for_the_next_one(backend: JobBackend) -> None:
    first = await backend.start(spec("s1", "echo kept > /workspace/group/memory"))
    assert await results(first) == []
    second = await backend.start(spec("s2", 'output "$(cat /workspace/group/memory)"'))
    assert await results(second) == [(0, "kept")]


async def test_the_input_is_never_in_the_cluster(backend: JobBackend, kube: KubeClient, home: str) -> None:
    session = await backend.start(spec("s1", "# password: swordfish-1234", "output done"))
    assert await results(session) == [(0, "done")]
    for resource in (JOBS, PODS, Resource("Event", "events")):
        assert "swordfish" not in str(await kube.list(resource, namespace=home))


async def test_a_failing_agent_tells_its_code_and_last_words(backend: JobBackend) -> None:
    session = await backend.start(spec("s1", "output partial", "echo it broke >&2", "exit 3"))
    failed = await failure(session)
    assert (failed.diagnosis.kind, failed.diagnosis.exit_code) == (FailureKind.EXIT, 3)
    assert "it broke" in failed.diagnosis.operator


async def test_too_little_memory_is_named(backend: JobBackend) -> None:
    failed = await failure(await backend.start(spec("s1", "tail /dev/zero")))
    assert failed.diagnosis.kind is FailureKind.OUT_OF_MEMORY


async def test_a_lost_stream_leaves_no_gap_and_no_repetition(shaky: JobBackend, line: TcpProxy) -> None:
    lines = ("output one", "sleep 2", "output two", "echo aside >&2", "sleep 1", "output three")
    session = await shaky.start(spec("s1", *lines))
    seen = []
    async with contextlib.aclosing(session.outputs()) as outputs:
        async for output in outputs:
            seen.append((output.ordinal, output.output.result))
            if output.ordinal == 0:
                line.cut()
    assert seen == [(0, "one"), (1, "two"), (2, "three")]


async def test_a_second_controller_adopts_and_finishes_the_answer(
    backend: JobBackend, kube: KubeClient, home: str
) -> None:
    first = await backend.start(spec("s1", "output one", "output two", "sleep 3", "output three"))
    outputs = first.outputs()
    assert (await anext(outputs)).ordinal == 0
    await outputs.aclose()
    async with at_work(kube, home) as other:
        [adopted] = await other.running()
        assert adopted.ref == first.ref
        assert await results(adopted, skip=1) == [(1, "two"), (2, "three")]


async def test_a_log_that_lost_its_beginning_is_no_good_end(backend: JobBackend, kube: KubeClient, home: str) -> None:
    session = await backend.start(spec("s1", "output one", "output two"))
    assert await results(session) == [(0, "one"), (1, "two")]
    async with at_work(kube, home) as other:
        [adopted] = await other.running()
        with pytest.raises(SessionFailed, match="only 2 of at least 3 outputs"):
            await results(adopted, skip=3)


async def test_a_session_that_ended_unseen_is_still_found(backend: JobBackend, kube: KubeClient, home: str) -> None:
    first = await backend.start(spec("s1", "output one", "exit 4"))
    assert (await failure(first)).diagnosis.exit_code == 4
    async with at_work(kube, home) as other:
        [adopted] = await other.running()
        outputs = adopted.outputs()
        assert (await anext(outputs)).output.result == "one"
        with pytest.raises(SessionFailed) as caught:
            await anext(outputs)
    assert caught.value.diagnosis.exit_code == 4


async def test_stopping_ends_a_stubborn_agent(backend: JobBackend, kube: KubeClient, home: str) -> None:
    session = await backend.start(spec("s1", "trap '' TERM", "output one", "sleep 1000"))
    await session.stop(grace=NOW)
    await nothing_is_left(kube, home)
    assert await backend.running() == []
    await session.stop(grace=NOW)
    failed = await failure(session)
    assert failed.diagnosis.kind is FailureKind.STOPPED


async def test_an_agent_on_its_way_out_may_finish(backend: JobBackend, kube: KubeClient, home: str) -> None:
    session = await backend.start(spec("s1", "sleep 2", "output goodbye"))
    stopping = asyncio.create_task(session.stop(grace=timedelta(seconds=PATIENCE)))
    assert await results(session) == [(0, "goodbye")]
    await stopping
    assert await kube.get(JOBS, names.job("main", "s1"), namespace=home)


async def test_a_deleted_pod_is_no_regular_end(backend: JobBackend, kube: KubeClient, home: str) -> None:
    session = await backend.start(spec("s1", "output one", "sleep 1000"))
    outputs = session.outputs()
    assert (await anext(outputs)).output.result == "one"
    [pod] = await kube.list(PODS, namespace=home)
    await kube.delete(PODS, pod["metadata"]["name"], namespace=home)
    with pytest.raises(SessionFailed) as caught:
        await anext(outputs)
    assert caught.value.diagnosis.kind is FailureKind.STOPPED


async def test_the_next_session_of_a_group_waits_until_the_pod_is_gone(
    backend: JobBackend, kube: KubeClient, home: str
) -> None:
    first = await backend.start(spec("s1", "sleep 1000"))
    second = asyncio.create_task(backend.start(spec("s2", "output second")))
    other = await backend.start(spec("s3", "output other", folder="team"))
    assert await results(other) == [(0, "other")]
    assert not second.done()
    await first.stop(grace=NOW)
    assert await results(await second) == [(0, "second")]


async def test_a_predecessor_that_stays_is_named(backend: JobBackend) -> None:
    first = await backend.start(spec("s1", "sleep 1000"))
    with pytest.raises(SessionFailed, match="session s1 still runs"):
        await backend.start(spec("s2", start_timeout=1))
    await first.stop(grace=NOW)


async def test_a_cancelled_start_leaves_nothing(backend: JobBackend, kube: KubeClient, home: str) -> None:
    starting = asyncio.create_task(backend.start(spec("s1", env={"START_DELAY": "1000"}, folder="main")))
    await backend.pods.find(lambda pod: pod.metadata.label(labels.SESSION) == "s1", Deadline.after(PATIENCE))
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    await nothing_is_left(kube, home)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({"image": "localhost/not/there:1"}, (FailureKind.IMAGE, "localhost/not/there:1"), id="image"),
        pytest.param(
            {"resources": Resources(cpu_request="500", cpu_limit="500"), "start_timeout": 3},
            (FailureKind.UNSCHEDULABLE, "Insufficient cpu"),
            id="too-big-for-any-node",
        ),
        pytest.param(
            {"folder": "unknown", "start_timeout": 3}, (FailureKind.VOLUME, "nanoclaw-group-unknown"), id="claim"
        ),
        pytest.param({"image": "Not/An Image"}, (FailureKind.IMAGE, "InvalidImageName"), id="no-image-name"),
    ],
)
async def test_a_start_that_cannot_work_is_diagnosed_and_undone(
    backend: JobBackend, kube: KubeClient, home: str, changes: dict, expected: tuple[FailureKind, str]
) -> None:
    with pytest.raises(SessionFailed) as caught:
        await backend.start(spec("s1", **changes))
    assert caught.value.diagnosis.kind is expected[0]
    assert expected[1] in caught.value.diagnosis.operator
    await nothing_is_left(kube, home)


async def test_a_used_up_quota_is_told_at_once(backend: JobBackend, kube: KubeClient, home: str) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
    await kube.create(QUOTAS, quota, namespace=home)
    with pytest.raises(SessionFailed) as caught:
        await backend.start(spec("s1"))
    assert caught.value.diagnosis.kind is FailureKind.QUOTA
    await nothing_is_left(kube, home)


async def test_an_admission_that_refuses_the_pod_is_told_at_once(
    backend: JobBackend, kube: KubeClient, home: str
) -> None:
    await kube.delete(ACCOUNTS, names.AGENT_ACCOUNT, namespace=home)
    with pytest.raises(SessionFailed) as caught:
        await backend.start(spec("s1"))
    assert caught.value.diagnosis.kind is FailureKind.REFUSED
    assert names.AGENT_ACCOUNT in caught.value.diagnosis.operator
    await nothing_is_left(kube, home)
