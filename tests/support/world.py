"""What lies around the pods of a test cluster: somebody beyond it who listens, and a shell in a pod."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from kubernetes.stream import stream

from kubernetes import client
from nanoclaw_dev.cluster.cluster import Cluster

PATIENCE = 120
# Seconds anything may take; nothing takes that long unless it fails.

METADATA, OUTSIDE = "169.254.169.254", "203.0.113.7"
# Where clouds keep their machines' credentials, and an address nobody has.
PORT = 80
# On which both listen.


@contextlib.contextmanager
def outside(cluster: Cluster, folder: Path) -> Iterator[None]:
    """Somebody beyond the cluster who serves `folder` at both outside addresses."""
    (node,) = cluster.nodes
    place, instance = node.place, cluster.instance
    cable, gateway = f"nanoclaw-{instance.block}out", f"10.{instance.block}.0.200"
    script = f"echo ready; read go; exec busybox httpd -f -p {PORT} -h {folder}"
    inside = subprocess.Popen(
        ["unshare", "--net", "sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert inside.stdin is not None
    assert inside.stdout is not None
    with inside:
        try:
            assert inside.stdout.readline() == "ready\n"
            _ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", str(inside.pid))
            _ip("link", "set", cable, "master", instance.bridge, "up")
            _ip("address", "add", f"{gateway}/24", "dev", "eth0", of=inside.pid)
            _ip("link", "set", "eth0", "up", of=inside.pid)
            _ip("route", "add", place.pod_network, "via", place.address, of=inside.pid)
            for address in (METADATA, OUTSIDE):
                _ip("address", "add", f"{address}/32", "dev", "eth0", of=inside.pid)
                _ip("route", "add", address, "via", gateway, of=node.init())
            inside.stdin.write("\n")
            inside.stdin.flush()
            yield
        finally:
            for address in (METADATA, OUTSIDE):
                with contextlib.suppress(subprocess.CalledProcessError):
                    _ip("route", "delete", address, of=node.init())
            with contextlib.suppress(subprocess.CalledProcessError):
                _ip("link", "delete", cable)  # the kernel takes its time with what a dead process leaves
            inside.kill()


def _ip(*arguments: str, of: int | None = None) -> None:
    """Run `ip` here, or in the network of a process."""
    inside = ["nsenter", f"--target={of}", "--net", "--"] if of else []
    subprocess.run([*inside, "ip", *arguments], check=True, capture_output=True)


def run(core: client.CoreV1Api, namespace: str, pod: str, *command: str) -> str:
    """What a command in a pod writes."""
    attached = stream(
        core.connect_get_namespaced_pod_exec,
        pod,
        namespace,
        command=[*command],
        stdout=True,
        stderr=True,
        _preload_content=False,
    )
    try:
        attached.run_forever(timeout=PATIENCE)
        return attached.read_all()
    finally:
        attached.sock.shutdown()  # its close() leaves the socket open once the server has ended the stream
