"""Attach to real containers: input with its end, two streams apart, and the ways it can break."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from nanoclaw_dev.cluster.cluster import Cluster
from nanoclaw_runtime.kube import attach as attach_module
from nanoclaw_runtime.kube.attach import V4, V5, AttachedStreams, attach
from nanoclaw_runtime.kube.client import KubeClient
from nanoclaw_runtime.kube.deadline import Deadline
from nanoclaw_runtime.kube.errors import DeadlineExceeded, PodGone, StreamLost
from nanoclaw_runtime.kube.reflector import Reflector
from nanoclaw_runtime.kube.resources import PODS, Pod
from tests.support.fault_proxy import TcpProxy
from tests.support.script_agent import script

pytestmark = pytest.mark.cluster

PATIENCE = 90.0


def pod_of(image: str, *, delay: int = 0) -> dict:
    container = {
        "name": "agent",
        "image": image,
        "imagePullPolicy": "Never",
        "stdin": True,
        "stdinOnce": True,
        "env": [{"name": "START_DELAY", "value": str(delay)}],
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "agent"},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "volumes": [{"name": "tmp", "emptyDir": {}}],
            "containers": [container],
        },
    }


class Target:
    """One pod, and what is seen of it."""

    def __init__(self, client: KubeClient, namespace: str, pods: Reflector[Pod]) -> None:
        self.client, self.namespace, self.pods = client, namespace, pods
        self.attached: list[AttachedStreams] = []

    async def start(self, image: str, *, delay: int = 0) -> None:
        await self.client.create(PODS, pod_of(image, delay=delay), namespace=self.namespace)
        running = lambda pod: pod is not None and pod.container("agent").running is not None  # noqa: E731
        await self.pods.until("agent", running, Deadline.after(PATIENCE))

    async def attach(
        self, *, client: KubeClient | None = None, protocols: tuple[str, ...] = (V5, V4)
    ) -> AttachedStreams:
        streams = await attach(
            client or self.client,
            "agent",
            container="agent",
            namespace=self.namespace,
            deadline=Deadline.after(PATIENCE),
            protocols=protocols,
        )
        self.attached.append(streams)
        return streams

    async def exit_code(self) -> int:
        ended = lambda pod: pod is not None and pod.container("agent").terminated is not None  # noqa: E731
        pod = await self.pods.until("agent", ended, Deadline.after(PATIENCE))
        assert pod is not None
        terminated = pod.container("agent").terminated
        assert terminated is not None
        return terminated.exit_code

    async def log(self) -> bytes:
        chunks = self.client.pod_log("agent", container="agent", namespace=self.namespace, follow=True)
        return b"".join([chunk async for chunk in chunks])


@pytest.fixture
async def target(kube: KubeClient, cluster_namespace: str) -> AsyncIterator[Target]:
    pods = Reflector(kube, PODS, Pod, namespace=cluster_namespace)
    task = asyncio.create_task(pods.run(), name="pods")
    made = Target(kube, cluster_namespace, pods)
    yield made
    for streams in made.attached:
        await streams.close()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@pytest.fixture
async def line(cluster: Cluster) -> AsyncIterator[TcpProxy]:
    """A cable between the client and the API server that can be cut."""
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    address = urlsplit(config["clusters"][0]["cluster"]["server"])
    async with TcpProxy(address.hostname, address.port) as proxy:
        yield proxy


@pytest.fixture
async def on_the_line(cluster: Cluster, line: TcpProxy, tmp_path: Path) -> AsyncIterator[KubeClient]:
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    section = config["clusters"][0]["cluster"]
    section["tls-server-name"] = urlsplit(section["server"]).hostname
    section["server"] = f"https://127.0.0.1:{line.port}"
    (tmp_path / "line").write_text(yaml.safe_dump(config))
    async with await KubeClient.connect(tmp_path / "line") as client:
        yield client


async def read(streams: AttachedStreams) -> bytes:
    return b"".join([data async for data in streams.output()])


async def test_input_arrives_with_its_end_and_streams_stay_apart(target: Target, script_agent_image: str) -> None:
    await target.start(script_agent_image)
    streams = await target.attach()
    assert streams.protocol == V5
    await streams.send(script("echo to-stdout", "echo to-stderr >&2", "exit 7"), Deadline.after(PATIENCE))
    assert await read(streams) == b"to-stdout\n"
    assert streams.stderr == "to-stderr\n"
    assert streams.complete
    assert await target.exit_code() == 7


async def test_a_large_input_waits_for_an_agent_that_does_not_read_yet(target: Target, script_agent_image: str) -> None:
    await target.start(script_agent_image, delay=3)
    padding = b"#" + b"x" * 98 + b"\n"
    stdin = script("wc -c < /tmp/input") + padding * 20_000
    streams = await target.attach()
    await streams.send(stdin, Deadline.after(PATIENCE))
    assert int(await read(streams)) == len(stdin)


async def test_output_larger_than_any_buffer_arrives_whole(target: Target, script_agent_image: str) -> None:
    await target.start(script_agent_image)
    streams = await target.attach()
    await streams.send(script("head -c 5000000 /dev/zero | tr '\\0' y"), Deadline.after(PATIENCE))
    assert await read(streams) == b"y" * 5_000_000


async def test_on_v4_the_end_of_the_connection_ends_the_input(target: Target, script_agent_image: str) -> None:
    await target.start(script_agent_image, delay=8)  # longer than a WebSocket waits for its close to be answered
    stdin = script("wc -c < /tmp/input") + (b"#" + b"x" * 98 + b"\n") * 20_000
    streams = await target.attach(protocols=(V4,))
    assert streams.protocol == V4
    await streams.send(stdin, Deadline.after(PATIENCE))
    with pytest.raises(StreamLost):
        await read(streams)
    assert int(await target.log()) == len(stdin)
    assert await target.exit_code() == 0


async def test_a_cut_line_is_not_taken_for_the_end(
    target: Target, on_the_line: KubeClient, line: TcpProxy, script_agent_image: str
) -> None:
    await target.start(script_agent_image)
    streams = await target.attach(client=on_the_line)
    await streams.send(script("echo first", "sleep 3", "echo second"), Deadline.after(PATIENCE))
    output = streams.output()
    assert await anext(output) == b"first\n"
    line.cut()
    with pytest.raises(StreamLost):
        await anext(output)
    assert not streams.complete
    assert await target.log() == b"first\nsecond\n"


async def test_a_line_that_falls_silent_is_noticed(
    target: Target,
    on_the_line: KubeClient,
    line: TcpProxy,
    script_agent_image: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attach_module, "PING_EVERY", 0.5)
    monkeypatch.setattr(attach_module, "SILENCE", 5.5)
    await target.start(script_agent_image)
    streams = await target.attach(client=on_the_line)
    await streams.send(script("echo first", "sleep 7", "echo second"), Deadline.after(PATIENCE))
    output = streams.output()
    # Quiet for longer than the limit, but the pings are answered.
    assert await anext(output) == b"first\n"
    assert await anext(output) == b"second\n"
    await output.aclose()


async def test_a_frozen_line_is_noticed(
    target: Target,
    on_the_line: KubeClient,
    line: TcpProxy,
    script_agent_image: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attach_module, "PING_EVERY", 0.5)
    await target.start(script_agent_image)
    streams = await target.attach(client=on_the_line)
    await streams.send(script("echo first", "sleep 60"), Deadline.after(PATIENCE))
    output = streams.output()
    assert await anext(output) == b"first\n"
    line.freeze()
    monkeypatch.setattr(attach_module, "SILENCE", 2.0)
    with pytest.raises(StreamLost, match="no answer to pings"):
        await anext(output)


async def test_an_agent_that_ends_unread_does_not_block_its_input(target: Target, script_agent_image: str) -> None:
    await target.start(script_agent_image, delay=1000)
    streams = await target.attach()
    await target.client.delete(PODS, "agent", namespace=target.namespace)
    with pytest.raises(StreamLost):
        await streams.send(b"#" * 50_000_000, Deadline.after(PATIENCE))


async def test_an_agent_that_never_reads_can_be_left(target: Target, script_agent_image: str) -> None:
    await target.start(script_agent_image, delay=1000)
    streams = await target.attach()
    with pytest.raises(DeadlineExceeded):
        await streams.send(b"#" * 50_000_000, Deadline.after(2))
    async with asyncio.timeout(PATIENCE / 2):
        await streams.close()


async def test_there_is_nothing_to_attach_to(target: Target, script_agent_image: str) -> None:
    with pytest.raises(PodGone, match="agent"):
        await target.attach()
