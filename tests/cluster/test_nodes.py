"""Three nodes: what pods share across them, and what becomes of pods when a node fails."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kubernetes import client
from nanoclaw_dev.cluster import render
from nanoclaw_dev.cluster.cluster import Cluster
from tests.support import cluster as support
from tests.support.cluster import PATIENCE, awaited, awaited_pod, create_claim, create_pod, pod_spec
from tests.support.world import run

pytestmark = [pytest.mark.cluster, pytest.mark.wide]

SERVE = "httpd -f -p 8080"
STAY = [{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"}]
# A pod that tolerates this is not evicted from a node that does not answer.


@pytest.fixture
def core(wide_cluster):
    with support.client_of(wide_cluster.kubeconfig) as api:
        yield client.CoreV1Api(api)


@pytest.fixture
def nodes(wide_cluster):
    return wide_cluster.nodes


@pytest.fixture
def names(nodes):
    return [node.name for node in nodes]


def written(core, namespace, name, command, **more):
    """What a pod that ends well has written, and the node it was on."""
    create_pod(core, namespace, name, command, **more)
    pod = awaited_pod(core, namespace, name, "Succeeded", "Failed")
    text = core.read_namespaced_pod_log(name, namespace)
    assert pod.status.phase == "Succeeded", text
    return text, pod.spec.node_name


def create_service(core, namespace, name):
    spec = {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080}]}
    core.create_namespaced_service(namespace, {"metadata": {"name": name}, "spec": spec})


def create_deployment(core, namespace, name, spec):
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": spec | {"restartPolicy": "Always"}}
    client.AppsV1Api(core.api_client).create_namespaced_deployment(
        namespace,
        {"metadata": {"name": name}, "spec": {"selector": {"matchLabels": labels}, "template": template}},
    )


def unschedulable(change):
    conditions = change["object"].status.conditions or []
    return any(each.type == "PodScheduled" and each.status == "False" for each in conditions)


def serving(pod):
    """What is known of a pod's readiness: "False" as soon as its node is silent."""
    return {each.type: each.status for each in pod.status.conditions or []}.get("Ready")


def eventually(check):
    end = time.monotonic() + PATIENCE
    while not check():
        assert time.monotonic() < end
        time.sleep(0.1)


def commands_on(node):
    """The command lines of all processes on a node, as this machine sees them."""
    found = []
    for process in Path(f"/proc/{node.init()}/root/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ended just now
            found.append((process / "cmdline").read_text())
    return found


def test_three_nodes_are_ready_and_what_was_chosen_is_kept(wide_cluster, core, names):
    assert [node.metadata.name for node in core.list_node().items] == names == ["node-1", "node-2", "node-3"]
    assert all(node.ready() for node in wide_cluster.nodes)
    again = Cluster(wide_cluster.instance)
    assert [node.name for node in again.nodes] == names
    assert again.status().ready


def test_what_is_written_on_one_node_is_read_on_the_others(core, wide_namespace, names):
    create_claim(core, wide_namespace, "shared", "ReadWriteMany")
    first, *others = names
    written(core, wide_namespace, "writer", "echo hello > /shared/file", claims=("shared",), node=first)
    for name in others:
        text, node = written(core, wide_namespace, f"on-{name}", "cat /shared/file", claims=("shared",), node=name)
        assert (text, node) == ("hello\n", name)


def test_a_volume_of_one_node_keeps_its_pods_there(core, wide_namespace, names):
    claims = {"own": "ReadWriteOnce", "alone": "ReadWriteOncePod"}
    for claim, mode in claims.items():
        create_claim(core, wide_namespace, claim, mode)
    _, second, third = names
    written(core, wide_namespace, "writer", "echo hello | tee /own/file > /alone/file", claims=[*claims], node=second)
    text, node = written(core, wide_namespace, "anywhere", "cat /own/file /alone/file", claims=[*claims])
    assert (text, node) == ("hello\nhello\n", second)
    for claim in claims:
        create_pod(core, wide_namespace, f"{claim}-elsewhere", "true", claims=[claim], node=third)
        refused = awaited(
            core.list_namespaced_pod,
            wide_namespace,
            field_selector=f"metadata.name={claim}-elsewhere",
            until=unschedulable,
        )
        assert any("PersistentVolume's node affinity" in (each.message or "") for each in refused.status.conditions)


def test_a_detachable_volume_goes_where_its_pod_goes(core, wide_namespace, names):
    create_claim(core, wide_namespace, "disk", "ReadWriteOnce", storageClassName=render.DETACHABLE_CLASS)
    first, _, third = names
    written(core, wide_namespace, "writer", "echo hello > /disk/file", claims=("disk",), node=first)
    core.delete_namespaced_pod("writer", wide_namespace)
    text, node = written(core, wide_namespace, "reader", "cat /disk/file", claims=("disk",), node=third)
    assert (text, node) == ("hello\n", third)


def test_a_detachable_volume_is_refused_to_a_second_node_until_the_first_has_no_pod_with_it(
    core, wide_namespace, names
):
    create_claim(core, wide_namespace, "disk", "ReadWriteOnce", storageClassName=render.DETACHABLE_CLASS)
    first, _, third = names
    create_pod(core, wide_namespace, "holder", "echo hello > /disk/file; sleep 1000", claims=("disk",), node=first)
    awaited_pod(core, wide_namespace, "holder", "Running")
    create_pod(core, wide_namespace, "waiting", "cat /disk/file", claims=("disk",), node=third)
    awaited_refusal(core, wide_namespace, "waiting")
    text, _ = written(core, wide_namespace, "beside", "cat /disk/file", claims=("disk",), node=first)
    assert text == "hello\n"
    assert core.read_namespaced_pod("waiting", wide_namespace).status.phase == "Pending"
    core.delete_namespaced_pod("holder", wide_namespace, grace_period_seconds=1)
    awaited_pod(core, wide_namespace, "waiting", "Succeeded")
    assert core.read_namespaced_pod_log("waiting", wide_namespace) == "hello\n"


def awaited_refusal(core, namespace, pod):
    """Return when Kubernetes has said that the pod's volume is still at another node."""
    awaited(
        core.list_namespaced_event,
        namespace,
        field_selector=f"involvedObject.name={pod},reason=FailedAttachVolume",
        until=lambda change: "Multi-Attach error for volume" in change["object"].message,
    )


def test_pods_of_all_nodes_reach_a_service_by_name_and_a_pod_by_address(core, wide_namespace, names):
    create_pod(core, wide_namespace, "web", SERVE, node=names[0])
    create_service(core, wide_namespace, "web")
    address = awaited_pod(core, wide_namespace, "web", "Running").status.pod_ip
    asked = " && ".join(
        f"(until nc -w 2 {target} < /dev/null; do sleep 0.2; done) && echo {kind}"
        for kind, target in {"name": "web 80", "address": f"{address} 8080", "api": "kubernetes.default 443"}.items()
    )
    for name in names:
        create_pod(core, wide_namespace, f"on-{name}", asked, node=name)
    for name in names:
        awaited_pod(core, wide_namespace, f"on-{name}", "Succeeded")
        assert core.read_namespaced_pod_log(f"on-{name}", wide_namespace).split() == ["name", "address", "api"]


def test_a_network_policy_holds_on_the_way_between_nodes(core, wide_namespace, names):
    callers = dict(zip(("friend", "stranger"), names[1:], strict=True))
    create_pod(core, wide_namespace, "web", SERVE, node=names[0])
    for caller, name in callers.items():
        create_pod(core, wide_namespace, caller, "sleep 1000", node=name)
    address = awaited_pod(core, wide_namespace, "web", "Running").status.pod_ip
    for caller in callers:
        awaited_pod(core, wide_namespace, caller, "Running")

    def reached_by():
        attempt = f"nc -w 2 {address} 8080 < /dev/null > /dev/null 2>&1 && echo reached"
        return [caller for caller in callers if "reached" in run(core, wide_namespace, caller, "sh", "-c", attempt)]

    eventually(lambda: reached_by() == ["friend", "stranger"])
    allowed = {"podSelector": {"matchLabels": {"app": "friend"}}}
    client.NetworkingV1Api(core.api_client).create_namespaced_network_policy(
        wide_namespace,
        {
            "metadata": {"name": "friends"},
            "spec": {"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"from": [allowed]}]},
        },
    )
    eventually(lambda: reached_by() == ["friend"])


def test_pods_of_a_node_without_power_run_elsewhere_and_it_comes_back(core, wide_namespace, nodes):
    create_claim(core, wide_namespace, "disk", "ReadWriteOnce", storageClassName=render.DETACHABLE_CLASS)
    spec = pod_spec("hostname >> /disk/file; sleep 1000", claims=("disk",))
    # Not none: with that its object would go at once, as if somebody knew that it ended.
    create_deployment(core, wide_namespace, "service", spec | {"terminationGracePeriodSeconds": 1})
    listing = (core.list_namespaced_pod, wide_namespace)
    lost = awaited(*listing, until=lambda change: change["object"].status.phase == "Running")
    (node,) = [each for each in nodes if each.name == lost.spec.node_name]

    def written_by(pod):
        return run(core, wide_namespace, pod.metadata.name, "cat", "/disk/file").split()

    eventually(lambda: written_by(lost) == [lost.metadata.name])

    node.power_off()
    node.await_state(ready=False)
    assert node.init() is None
    replacement = awaited(*listing, until=lambda change: change["object"].spec.node_name not in {None, node.name})
    # Nobody knows whether the lost one still runs, and writes to the disk, until somebody says that it does not.
    awaited_refusal(core, wide_namespace, replacement.metadata.name)
    still = core.read_namespaced_pod(lost.metadata.name, wide_namespace)
    assert still.metadata.deletion_timestamp is not None
    node.out_of_service()
    awaited(
        *listing,
        resource_version=still.metadata.resource_version,
        until=lambda change: change["type"] == "DELETED" and change["object"].metadata.name == lost.metadata.name,
    )
    awaited_pod(core, wide_namespace, replacement.metadata.name, "Running")
    eventually(lambda: written_by(replacement) == [lost.metadata.name, replacement.metadata.name])

    node.in_service()
    node.power_on()
    text, where = written(core, wide_namespace, "after", "echo back", node=node.name)
    assert (text, where) == ("back\n", node.name)


def test_containers_outlive_the_agents_of_their_node_and_are_taken_on_again(core, wide_namespace, nodes):
    node = nodes[1]
    command = f"sleep 1000; echo {wide_namespace}"
    spec = pod_spec(command, node=node.name) | {"tolerations": STAY}
    core.create_namespaced_pod(wide_namespace, {"metadata": {"name": "survivor"}, "spec": spec})
    listing = (core.list_namespaced_pod, wide_namespace)
    before = awaited(*listing, until=lambda change: serving(change["object"]) == "True")

    node.kill_agents()
    awaited(*listing, until=lambda change: serving(change["object"]) == "False")
    assert any(wide_namespace in line for line in commands_on(node))
    assert not any("/kubelet\0" in line or "/containerd\0" in line for line in commands_on(node))

    node.power_on()
    after = awaited(*listing, until=lambda change: serving(change["object"]) == "True")
    assert run(core, wide_namespace, "survivor", "echo", "here") == "here\n"
    assert after.status.container_statuses[0].container_id == before.status.container_statuses[0].container_id
    assert after.status.container_statuses[0].restart_count == 0
    assert after.status.pod_ip == before.status.pod_ip


def test_a_node_that_is_cut_off_is_noticed_and_nothing_reaches_it_until_it_is_back(core, wide_namespace, nodes):
    node, other = nodes[2], nodes[0]
    spec = pod_spec(SERVE, node=node.name) | {"tolerations": STAY}
    core.create_namespaced_pod(wide_namespace, {"metadata": {"name": "web"}, "spec": spec})
    create_pod(core, wide_namespace, "caller", "sleep 1000", node=other.name)
    address = awaited_pod(core, wide_namespace, "web", "Running").status.pod_ip
    awaited_pod(core, wide_namespace, "caller", "Running")
    attempt = f"nc -w 1 {address} 8080 < /dev/null > /dev/null 2>&1 && echo reached || echo lost"

    def called():
        return run(core, wide_namespace, "caller", "sh", "-c", attempt).strip()

    eventually(lambda: called() == "reached")
    node.partition()
    node.await_state(ready=False)
    assert called() == "lost"
    assert not node.healthy()
    assert any(SERVE.replace(" ", "\0") in line for line in commands_on(node))

    node.heal()
    node.await_state(ready=True)
    eventually(lambda: called() == "reached")
    assert core.read_namespaced_pod("web", wide_namespace).status.container_statuses[0].restart_count == 0


def test_a_node_more_and_a_node_less_disturb_no_other(wide_cluster, core, wide_namespace, names, tmp_path):
    create_pod(core, wide_namespace, "resident", "sleep 1000", node=names[0])
    awaited_pod(core, wide_namespace, "resident", "Running")
    before = wide_cluster.status().processes

    place = wide_cluster.instance

    def start(nodes):
        subprocess.run(
            [sys.executable, "-m", "nanoclaw_dev.cluster", "up", f"--instance={place.name}", f"--nodes={nodes}"],
            env=os.environ | {"NANOCLAW_STATE": str(place.base)},
            check=True,
        )

    start(4)
    with_four = wide_cluster.status().processes
    added = Cluster(place).node("node-4")
    added.import_image(support.busybox_archive(tmp_path))
    create_pod(core, wide_namespace, "web", SERVE, node=names[1])
    address = awaited_pod(core, wide_namespace, "web", "Running").status.pod_ip
    reach = f"until nc -w 2 {address} 8080 < /dev/null; do sleep 0.2; done"
    written(core, wide_namespace, "caller", reach, node=added.name)
    start(3)
    without = wide_cluster.status().processes

    assert [node.metadata.name for node in core.list_node().items] == names
    assert not added.place.folder.exists()
    assert not Path("/sys/class/net", added.place.interface).exists()
    assert {name for name in before if before[name] != with_four[name]} == {"enforcer", "provisioner"}
    assert set(without) == set(before)
