"""The tests' own clusters: names nobody else has, state that a killed test run does not leave for ever.

Fixtures are in the conftest files; here is what they share.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import subprocess
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest

from kubernetes import client, config, watch
from nanoclaw_dev import modules, system
from nanoclaw_dev.cluster import archive, network
from nanoclaw_dev.cluster.cluster import Cluster
from nanoclaw_dev.cluster.control_plane import ControlPlane
from nanoclaw_dev.cluster.instance import Instance
from nanoclaw_dev.errors import SetupError
from nanoclaw_dev.paths import CACHE
from nanoclaw_dev.progress import Progress

STATE = CACHE / "tests"
# One place for all test runs, so that a later run finds what a killed one left.

BUSYBOX_IMAGE = "localhost/nanoclaw-test/busybox:1"
"""A shell with the usual commands, there on every test cluster; never pulled."""

PATIENCE = 90
# Seconds a watch may take; nothing waits that long unless it fails.


def unavailable(reason: str) -> NoReturn:
    """This machine cannot run the layer: skipped with the reason, which CI does not accept."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def need_control_plane() -> None:
    """Skip unless the API server can run here."""
    try:
        system.check_linux()
    except SetupError as error:
        unavailable(str(error))
    if missing := [module.title for module in modules.CLUSTER if not module.built()]:
        unavailable(f"not built: {', '.join(missing)}; `make test` builds what is missing")
    if system.program("ip") is None:
        unavailable("not installed: iproute2, which tells the addresses in use")


def need_node() -> None:
    """Skip unless a real node can run here."""
    need_control_plane()
    try:
        system.check_root()
    except SetupError as error:
        unavailable(str(error))
    if missing := system.missing(system.CLUSTER_PACKAGES):
        unavailable(f"not installed: {', '.join(missing)}; `make test` installs what is missing")


def free_instance(purpose: str) -> Instance:
    """An instance whose ports and addresses nobody uses, named for this process, which has them until it ends."""
    for attempt in range(50):
        instance = Instance(f"{purpose}-{os.getpid()}-{attempt}", STATE)
        ports = [instance.api_port, instance.etcd_port, instance.etcd_peer_port]
        with contextlib.suppress(SetupError, BlockingIOError):
            _reserve(instance)
            system.check_ports(("127.0.0.1", port) for port in ports)
            network.check_addresses(instance)
            return instance
    raise SetupError("No address range is free for a test cluster: stop the clusters that run on this machine.")


def _reserve(instance: Instance) -> None:
    """Two processes that look at the same time would both find them free. Raises BlockingIOError."""
    file = STATE / "reserved" / str(instance.index)
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise


def files_below(folder: Path) -> Iterator[Path]:
    """All files there. What goes in the meantime is passed over; `rglob` fails of it."""
    for place, _, names in os.walk(folder):
        yield from filter(Path.is_file, (Path(place, name) for name in names))


def remove_abandoned() -> None:
    """Remove clusters of test runs whose process is gone; it could not do so itself."""
    for folder in STATE.glob("*-*-*"):
        owner = folder.name.split("-")[-2]
        if folder.is_dir() and owner.isdigit() and not Path(f"/proc/{owner}").exists():
            Cluster(Instance(folder.name, STATE)).remove()


def revive(cluster: Cluster) -> None:
    """Every node on, reachable, ready and open for pods again; at once when nothing befell them."""
    for node in cluster.nodes:
        node.in_service()
    cluster.start(Progress(io.StringIO()))
    for node in cluster.nodes:
        node.await_open()


def busybox_archive(folder: Path) -> Path:
    """The tests' image, made of Debian's static busybox with a link for every command it has."""
    program = system.required("busybox")
    listed = subprocess.run([program, "--list"], capture_output=True, text=True, check=True)
    return archive.write_image(
        folder / "busybox.tar",
        BUSYBOX_IMAGE,
        files={"/bin/busybox": program.read_bytes()},
        links={f"/bin/{command}": "busybox" for command in listed.stdout.split() if command != "busybox"},
        environment=("PATH=/bin",),
    )


def client_of(kubeconfig: Path) -> Any:
    """The synchronous API client, for arranging and asserting."""
    return config.new_client_from_config(str(kubeconfig))


@contextlib.contextmanager
def temporary_namespace(target: ControlPlane | Cluster) -> Iterator[str]:
    """A namespace nobody else uses, deleted at the end.

    Without a controller manager nobody makes the default service account in it, which pods
    need, nor finishes its deletion; both is done here then.
    """
    alone = isinstance(target, ControlPlane)
    with client_of(target.kubeconfig) as api:
        core = client.CoreV1Api(api)
        name = f"test-{uuid.uuid4().hex[:10]}"
        core.create_namespace({"metadata": {"name": name}})
        if alone:
            core.create_namespaced_service_account(name, {"metadata": {"name": "default"}})
        else:
            await_default_account(core, name)
        try:
            yield name
        finally:
            core.delete_namespace(name)
            if alone:
                core.replace_namespace_finalize(name, {"metadata": {"name": name}, "spec": {"finalizers": []}})


def await_default_account(core: Any, namespace: str) -> None:
    """Return when the controller manager has made the account that pods run as."""
    changes = watch.Watch().stream(core.list_namespaced_service_account, namespace, timeout_seconds=PATIENCE)
    if not any(change["object"].metadata.name == "default" for change in changes):
        raise SetupError(f"Nobody made the default service account of {namespace} within {PATIENCE} s.")


def pod_spec(command: str, *, node: str | None = None, claims: Sequence[str] = (), **container: Any) -> dict[str, Any]:
    """A pod of the tests' image that runs a shell command, with each claim below / by its name."""
    return {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 0,
        "nodeSelector": {"kubernetes.io/hostname": node} if node else {},
        "securityContext": {"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000},
        "volumes": [{"name": claim, "persistentVolumeClaim": {"claimName": claim}} for claim in claims],
        "containers": [
            {
                "name": "main",
                "image": BUSYBOX_IMAGE,
                "imagePullPolicy": "Never",
                "command": ["sh", "-c", command],
                "volumeMounts": [{"name": claim, "mountPath": f"/{claim}"} for claim in claims],
                **container,
            }
        ],
    }


def create_claim(core: Any, namespace: str, name: str, mode: str, **spec: Any) -> None:
    resources = {"requests": {"storage": "1Mi"}}
    core.create_namespaced_persistent_volume_claim(
        namespace, {"metadata": {"name": name}, "spec": {"accessModes": [mode], "resources": resources, **spec}}
    )


def create_pod(core: Any, namespace: str, name: str, command: str, **more: Any) -> None:
    """A pod of `pod_spec`, with its name as the label `app`."""
    core.create_namespaced_pod(
        namespace, {"metadata": {"name": name, "labels": {"app": name}}, "spec": pod_spec(command, **more)}
    )


def awaited(listing: Any, *arguments: Any, until: Callable[[Any], bool], **selection: Any) -> Any:
    """The first object of a list for which `until` holds, now or later; it is asked about changes, with their type."""
    watching = watch.Watch()
    for change in watching.stream(listing, *arguments, timeout_seconds=PATIENCE, **selection):
        if until(change):
            watching.stop()
            return change["object"]
    raise AssertionError(f"did not happen within {PATIENCE} s")


def awaited_pod(core: Any, namespace: str, name: str, *phases: str) -> Any:
    """The pod of a name once it is in one of the phases."""
    return awaited(
        core.list_namespaced_pod,
        namespace,
        field_selector=f"metadata.name={name}",
        until=lambda change: change["object"].status.phase in phases,
    )
