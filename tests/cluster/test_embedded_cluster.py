"""The cluster everything else is tested on, itself: what it can do, what it survives, what it leaves."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from kubernetes.stream import stream

from kubernetes import client
from nanoclaw_dev.cluster import cgroups, processes, render
from nanoclaw_dev.cluster.cluster import Cluster
from nanoclaw_dev.cluster.control_plane import ControlPlane
from nanoclaw_dev.cluster.instance import BLOCKS, FIRST_BLOCK
from nanoclaw_dev.progress import Progress
from tests.support import cluster as support
from tests.support.cluster import PATIENCE, awaited, awaited_pod, create_claim, create_pod, pod_spec

pytestmark = pytest.mark.cluster

QUIET = Progress(StringIO())


@pytest.fixture
def api(cluster):
    with support.client_of(cluster.kubeconfig) as found:
        yield found


def test_the_node_is_ready_and_claims_get_our_storage_by_default(cluster, api):
    (node,) = client.CoreV1Api(api).list_node().items
    storage = {each.metadata.name: each for each in client.StorageV1Api(api).list_storage_class().items}
    assert {condition.type: condition.status for condition in node.status.conditions}["Ready"] == "True"
    assert node.status.node_info.kubelet_version == "v1.36.3"
    assert set(storage) == {render.STORAGE_CLASS, render.DETACHABLE_CLASS}
    default = "storageclass.kubernetes.io/is-default-class"
    assert [name for name, each in storage.items() if default in (each.metadata.annotations or {})] == [
        render.STORAGE_CLASS
    ]
    assert cluster.status().ready


def test_a_job_writes_to_claims_of_both_modes_and_the_next_pod_reads_it(api, cluster_namespace):
    core, batch = client.CoreV1Api(api), client.BatchV1Api(api)
    create_claim(core, cluster_namespace, "own", "ReadWriteOnce")
    create_claim(core, cluster_namespace, "shared", "ReadWriteMany")
    spec = pod_spec("echo first > /own/file && echo second > /shared/file", claims=("own", "shared"))
    batch.create_namespaced_job(
        cluster_namespace,
        {"metadata": {"name": "writer"}, "spec": {"backoffLimit": 0, "template": {"spec": spec}}},
    )
    job = awaited(
        batch.list_namespaced_job,
        cluster_namespace,
        until=lambda change: change["object"].status.succeeded or change["object"].status.failed,
    )
    assert job.status.succeeded == 1

    create_pod(core, cluster_namespace, "reader", "cat /own/file /shared/file", claims=("own", "shared"))
    awaited_pod(core, cluster_namespace, "reader", "Succeeded")
    assert core.read_namespaced_pod_log("reader", cluster_namespace) == "first\nsecond\n"


def test_a_deleted_claim_takes_its_volume_and_its_folder_along(cluster, api, cluster_namespace):
    core = client.CoreV1Api(api)
    create_claim(core, cluster_namespace, "short-lived", "ReadWriteOnce")
    create_pod(core, cluster_namespace, "user", "true", claims=("short-lived",))
    awaited_pod(core, cluster_namespace, "user", "Succeeded")
    claim = core.read_namespaced_persistent_volume_claim("short-lived", cluster_namespace)
    volume = core.read_persistent_volume(claim.spec.volume_name)
    folder = Path(volume.spec.local.path)
    assert folder.is_relative_to(cluster.instance.volumes)
    assert folder.is_dir()

    core.delete_namespaced_pod("user", cluster_namespace)
    core.delete_namespaced_persistent_volume_claim("short-lived", cluster_namespace)
    awaited(
        core.list_persistent_volume,
        field_selector=f"metadata.name={volume.metadata.name}",
        resource_version=volume.metadata.resource_version,  # it may be gone before the watch begins
        until=lambda change: change["type"] == "DELETED",
    )
    assert not folder.exists()


def test_a_claim_of_another_class_waits_for_its_own_provisioner(cluster, api, cluster_namespace):
    core, storage = client.CoreV1Api(api), client.StorageV1Api(api)
    name = f"never-{cluster_namespace}"
    storage.create_storage_class({"metadata": {"name": name}, "provisioner": "example.com/none"})
    try:
        create_claim(core, cluster_namespace, "foreign", "ReadWriteOnce", storageClassName=name)
        # A claim of ours, made later, is served: the provisioner has seen both.
        create_claim(core, cluster_namespace, "ours", "ReadWriteOnce")
        create_pod(core, cluster_namespace, "user", "true", claims=("ours",))
        awaited_pod(core, cluster_namespace, "user", "Succeeded")
        assert core.read_namespaced_persistent_volume_claim("foreign", cluster_namespace).status.phase == "Pending"
    finally:
        storage.delete_storage_class(name)


def test_a_pod_gets_what_is_sent_to_its_standard_input(api, cluster_namespace):
    core = client.CoreV1Api(api)
    create_pod(core, cluster_namespace, "listener", "read line; echo got $line", stdin=True)
    awaited_pod(core, cluster_namespace, "listener", "Running")
    attached = stream(
        core.connect_get_namespaced_pod_attach,
        "listener",
        cluster_namespace,
        stdin=True,
        stdout=True,
        stderr=True,
        _preload_content=False,
    )
    try:
        attached.write_stdin("hello\n")
        attached.run_forever(timeout=PATIENCE)
    finally:
        attached.sock.shutdown()  # its close() leaves the socket open once the server has ended the stream
    awaited_pod(core, cluster_namespace, "listener", "Succeeded")
    # Not what came over the connection: a container that ends at once may take its last words along.
    assert core.read_namespaced_pod_log("listener", cluster_namespace) == "got hello\n"


def test_pods_reach_each_other_through_a_service_and_the_api_through_its_own(api, cluster_namespace):
    core = client.CoreV1Api(api)
    core.create_namespaced_service(
        cluster_namespace,
        {
            "metadata": {"name": "web"},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
        },
    )
    create_pod(core, cluster_namespace, "web", "while true; do echo served | nc -l -p 8080; done")
    awaited_pod(core, cluster_namespace, "web", "Running")
    command = (
        "until nc -w 1 $WEB_SERVICE_HOST 80 < /dev/null | grep served; do sleep 0.1; done; "
        "nc -w 5 $KUBERNETES_SERVICE_HOST 443 < /dev/null && echo reached"
    )
    create_pod(core, cluster_namespace, "caller", command)
    awaited_pod(core, cluster_namespace, "caller", "Succeeded")
    assert core.read_namespaced_pod_log("caller", cluster_namespace).splitlines() == ["served", "reached"]


def test_only_loopback_and_the_own_bridge_are_listened_on(cluster):
    pids = {pid for pid in cluster.status().processes.values() if pid}
    listening = subprocess.run(["ss", "-ltnpH"], capture_output=True, text=True, check=True).stdout.splitlines()
    ours = [line.split()[3] for line in listening if any(f"pid={pid}," in line for pid in pids)]
    addresses = {address.rpartition(":")[0] for address in ours}
    assert addresses == {"127.0.0.1", cluster.instance.bridge_address}


def test_an_image_that_is_there_is_not_imported_again(cluster, tmp_path):
    assert not cluster.import_image(support.busybox_archive(tmp_path))


def test_starting_a_running_cluster_changes_nothing(cluster):
    before = cluster.status()
    cluster.start(QUIET)
    assert cluster.status() == before


def test_a_program_that_died_is_started_again_and_pods_live_on(cluster, api, cluster_namespace):
    core = client.CoreV1Api(api)
    create_pod(core, cluster_namespace, "survivor", "sleep 1000")
    awaited_pod(core, cluster_namespace, "survivor", "Running")
    before = cluster.status().processes
    killed = {"node-1-kubelet", "node-1-containerd", "kube-apiserver"}
    for name in killed:
        processes.kill(before[name])
    assert not cluster.status().ready

    cluster.start(QUIET)
    after = cluster.status()
    assert after.ready
    assert {name for name in before if before[name] != after.processes[name]} == killed
    (container,) = core.read_namespaced_pod("survivor", cluster_namespace).status.container_statuses
    assert container.restart_count == 0
    assert container.state.running


def test_after_a_crash_of_everything_objects_and_data_are_there(cluster, api, cluster_namespace):
    core = client.CoreV1Api(api)
    create_claim(core, cluster_namespace, "kept", "ReadWriteOnce")
    create_pod(core, cluster_namespace, "writer", "echo kept > /kept/file", claims=("kept",))
    awaited_pod(core, cluster_namespace, "writer", "Succeeded")
    for pid in cluster.status().processes.values():
        processes.kill(pid)
    assert not any(cluster.status().processes.values())

    cluster.start(QUIET)
    create_pod(core, cluster_namespace, "reader", "cat /kept/file", claims=("kept",))
    awaited_pod(core, cluster_namespace, "reader", "Succeeded")
    assert core.read_namespaced_pod_log("reader", cluster_namespace) == "kept\n"


def test_a_node_without_power_is_noticed_and_comes_back(cluster, api, cluster_namespace):
    core = client.CoreV1Api(api)
    (node,) = cluster.nodes
    node.power_off()
    assert not node.healthy()
    assert not Path(f"/sys/class/net/{node.place.interface}").exists()

    cluster.start(QUIET)
    create_pod(core, cluster_namespace, "after", "true")
    awaited_pod(core, cluster_namespace, "after", "Succeeded")


def test_two_control_planes_run_side_by_side(apiserver, namespace):
    other = ControlPlane(support.free_instance("beside"))
    try:
        with other, support.client_of(other.kubeconfig) as api:
            names = {item.metadata.name for item in client.CoreV1Api(api).list_namespace().items}
            assert "default" in names
            assert namespace not in names
    finally:
        other.remove()
    assert apiserver.healthy()


def machine(instance):
    """What a cluster could leave on this machine, without other clusters of ours that come and go."""
    commands = {
        "links": ["ip", "-brief", "link"],
        "addresses": ["ip", "-brief", "address"],
        "routes": ["ip", "route", "show", "table", "all"],
        "packet filter": ["nft", "list", "ruleset"],
    }
    state = {
        name: subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        for name, command in commands.items()
    }
    state["mounts"] = [line.split(" ", 2)[2] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    roots = cgroups.hierarchies().roots
    state["cgroups"] = [
        folder for root in roots for folder, _, _ in os.walk(root)
    ]  # which others' pods leave meanwhile
    state["kernel"] = [
        Path("/proc/sys", name).read_text()
        for name in (
            "vm/overcommit_memory",
            "vm/panic_on_oom",
            "kernel/panic",
            "kernel/panic_on_oops",
            "net/ipv4/ip_forward",
        )
    ]
    fixed = [
        "/run",
        "/run/netns",
        "/var/lib",
        "/var/log",
        "/var/lib/kubelet",
        "/var/lib/cni",
        "/opt",
        "/etc/cni",
        "/usr/libexec",
    ]
    state["folders"] = [
        str(path) for folder in fixed if Path(folder).is_dir() for path in Path(folder).iterdir() if path.is_dir()
    ]
    return {
        part: sorted(line for line in lines if not of_another(instance, line, lines)) for part, lines in state.items()
    }


def of_another(instance, line, beside):
    """The line is about another cluster of ours, or a Docker engine, which may run beside the tests."""
    if "docker" in line:
        return True
    numbers = {int(number) for found in re.findall(r"nanoclaw-(\d+)|\b10\.(\d+)\.", line) for number in found if number}
    folder, all_of_ours, below = line.partition("/nanoclaw")
    if all_of_ours and folder.startswith("/sys/fs/cgroup"):
        others = f"{folder}{all_of_ours}/"  # which share the folder above theirs
        return instance.name not in line and (
            bool(below) or any(each.startswith(others) and instance.name not in each for each in beside)
        )
    return bool(numbers & set(range(FIRST_BLOCK, FIRST_BLOCK + BLOCKS)) - {instance.block})


def test_a_stopped_cluster_leaves_nothing_but_its_folder(tmp_path):
    support.need_node()
    stopped = Cluster(support.free_instance("leaves"), nodes=3)
    before = machine(stopped.instance)
    try:
        with stopped, support.client_of(stopped.kubeconfig) as api:
            stopped.import_image(support.busybox_archive(tmp_path))
            core = client.CoreV1Api(api)
            support.await_default_account(core, "default")
            create_claim(core, "default", "data", "ReadWriteOnce")
            create_pod(core, "default", "left", "sleep 1000", claims=("data",))
            awaited_pod(core, "default", "left", "Running")
            first, second, third = stopped.nodes
            second.partition()
            third.kill_agents()
            during = machine(stopped.instance)
            first.power_off()
            pids = [pid for pid in stopped.status().processes.values() if pid]
        after = machine(stopped.instance)
        assert all(during[part] != before[part] for part in ("links", "addresses", "routes", "cgroups"))
        assert after == before
        assert len(pids) == 12  # six of the cluster, two whole nodes, without the agents of one
        assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    finally:
        stopped.remove()
    assert not stopped.instance.folder.exists()


def test_a_cluster_of_a_block_dies_with_the_process_that_opened_it(tmp_path):
    support.need_node()
    instance = support.free_instance("orphan")
    program = (
        "import sys; from pathlib import Path\n"
        "from nanoclaw_dev.cluster.cluster import Cluster\n"
        "from nanoclaw_dev.cluster.instance import Instance\n"
        "with Cluster(Instance(sys.argv[1], Path(sys.argv[2]))) as cluster:\n"
        "    print(*[pid for pid in cluster.status().processes.values()], flush=True)\n"
        "    sys.stdin.read()\n"
    )
    orphan = Cluster(instance)
    try:
        with subprocess.Popen(
            [sys.executable, "-c", program, instance.name, str(instance.base)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as owner:
            pids = [int(pid) for pid in owner.stdout.readline().split()]
            handles = [os.pidfd_open(pid) for pid in pids]
            owner.kill()
        for handle in handles:
            ended, _, _ = select.select([handle], [], [], PATIENCE)
            os.close(handle)
            assert ended
        assert len(pids) == 10
        assert not any(orphan.status().processes.values())
    finally:
        orphan.remove()
