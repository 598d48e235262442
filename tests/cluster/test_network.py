"""Names and network policies on a real node: what pods reach, before and after, and when things die."""

from __future__ import annotations

import time
from io import StringIO

import pytest

from kubernetes import client, watch
from nanoclaw_dev.cluster import processes
from nanoclaw_dev.cluster.dns import ACCOUNT, NAMESPACE
from nanoclaw_dev.progress import Progress
from tests.support import cluster as support
from tests.support.world import METADATA, OUTSIDE, PATIENCE, run

pytestmark = pytest.mark.cluster

EVERYTHING = {}
DNS_RULE = {
    "to": [
        {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
            "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
        }
    ],
    "ports": [{"port": 5353, "protocol": "UDP"}, {"port": 5353, "protocol": "TCP"}],
}


def create_pod(core, namespace, name, command):
    container = {
        "name": "main",
        "image": support.BUSYBOX_IMAGE,
        "imagePullPolicy": "Never",
        "command": ["sh", "-c", command],
        "ports": [{"name": "web", "containerPort": 8080}],
    }
    spec = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "containers": [container]}
    core.create_namespaced_pod(namespace, {"metadata": {"name": name, "labels": {"app": name}}, "spec": spec})


def awaited_pod(core, namespace, name, phase):
    only = {"field_selector": f"metadata.name={name}"}
    for change in watch.Watch().stream(core.list_namespaced_pod, namespace, timeout_seconds=PATIENCE, **only):
        if change["object"].status.phase == phase:
            return change["object"].status.pod_ip
    raise AssertionError(f"{name} was not {phase} within {PATIENCE} s")


def serve(core, namespace, *names):
    """Pods that listen on port 8080, each with a Service on port 80; their addresses."""
    for name in names:
        create_pod(core, namespace, name, "httpd -f -p 8080")
        ports = [{"port": 80, "targetPort": "web"}]
        core.create_namespaced_service(
            namespace, {"metadata": {"name": name}, "spec": {"selector": {"app": name}, "ports": ports}}
        )
    return [awaited_pod(core, namespace, name, "Running") for name in names]


def shell(core, namespace, pod, command):
    """What a shell command in a pod writes."""
    return run(core, namespace, pod, "sh", "-c", command)


def await_reached(core, namespace, pod, targets, expected):
    """Return when the pod reaches exactly the expected ones of the targets, which are name → address and port."""
    tries = [f"(nc -w 1 {target} < /dev/null > /dev/null 2>&1 && echo {name}) &" for name, target in targets.items()]
    end, found = time.monotonic() + PATIENCE, None
    while found != set(expected):
        assert time.monotonic() < end, f"{pod} reaches {found} and should reach {expected}"
        found = set(shell(core, namespace, pod, f"{' '.join(tries)} wait").split())


def create_policy(core, namespace, name, **spec):
    network = client.NetworkingV1Api(core.api_client)
    network.create_namespaced_network_policy(namespace, {"metadata": {"name": name}, "spec": spec})


def delete_policy(core, namespace, name):
    client.NetworkingV1Api(core.api_client).delete_namespaced_network_policy(name, namespace)


def only(name):
    return {"matchLabels": {"app": name}}


@pytest.mark.usefixtures("dns", "outside")
def test_a_pod_under_a_policy_reaches_what_is_allowed_by_address_and_by_name_and_nothing_else(
    cluster, core, cluster_namespace
):
    friend, stranger = serve(core, cluster_namespace, "friend", "stranger")
    create_pod(core, cluster_namespace, "caller", "sleep 1000")
    awaited_pod(core, cluster_namespace, "caller", "Running")
    targets = {
        "friend-by-address": f"{friend} 8080",
        "friend-by-name": "friend 80",
        "stranger-by-address": f"{stranger} 8080",
        "stranger-by-name": "stranger 80",
        "api": f"{cluster.instance.first_service} 443",
        "metadata": f"{METADATA} 80",
        "outside": f"{OUTSIDE} 80",
    }
    await_reached(core, cluster_namespace, "caller", targets, targets)

    create_policy(
        core,
        cluster_namespace,
        "closed",
        podSelector=only("caller"),
        policyTypes=["Egress"],
        egress=[DNS_RULE, {"to": [{"podSelector": only("friend")}], "ports": [{"port": "web"}]}],
    )
    await_reached(core, cluster_namespace, "caller", targets, {"friend-by-address", "friend-by-name"})
    assert "Address" in shell(core, cluster_namespace, "caller", "nslookup stranger")

    delete_policy(core, cluster_namespace, "closed")
    await_reached(core, cluster_namespace, "caller", targets, targets)


def test_a_pod_that_lets_only_some_in_is_closed_to_the_others(core, cluster_namespace):
    create_policy(
        core,
        cluster_namespace,
        "guarded",
        podSelector=only("guarded"),
        ingress=[{"from": [{"podSelector": only("guest")}]}],
    )
    (guarded,) = serve(core, cluster_namespace, "guarded")
    for name in ("guest", "burglar"):
        create_pod(core, cluster_namespace, name, "sleep 1000")
        awaited_pod(core, cluster_namespace, name, "Running")
    target = {"guarded": f"{guarded} 8080"}
    await_reached(core, cluster_namespace, "guest", target, target)
    await_reached(core, cluster_namespace, "burglar", target, {})


def test_a_pod_made_under_a_policy_never_gets_through_from_its_first_moment_on(core, cluster_namespace):
    (server,) = serve(core, cluster_namespace, "server")
    create_policy(core, cluster_namespace, "closed", podSelector=only("closed"), policyTypes=["Egress"])
    attempt = f"nc -w 1 {server} 8080 < /dev/null"
    command = f"for n in $(seq 20); do ({attempt} && echo through) & sleep 0.1; done; wait"
    create_pod(core, cluster_namespace, "closed", command)
    # Its own rules may come late on a busy machine.
    create_pod(core, cluster_namespace, "open", f"until {attempt}; do sleep 0.1; done; echo through")
    for name in ("closed", "open"):
        awaited_pod(core, cluster_namespace, name, "Succeeded")
    assert "through" not in core.read_namespaced_pod_log("closed", cluster_namespace)
    assert "through" in core.read_namespaced_pod_log("open", cluster_namespace)


@pytest.mark.usefixtures("dns")
def test_names_of_the_cluster_are_known_and_others_refused_at_once(core, cluster_namespace):
    serve(core, cluster_namespace, "web")
    service = core.read_namespaced_service("web", cluster_namespace)
    name = f"web.{cluster_namespace}.svc.cluster.local"
    # A Service made just now may not have been heard of yet.
    inside = shell(core, cluster_namespace, "web", f"until nslookup {name} > /found; do sleep 0.1; done; cat /found")
    outside = shell(core, cluster_namespace, "web", "nslookup example.com.")
    assert f"Address: {service.spec.cluster_ip}" in inside
    assert "NXDOMAIN" in outside
    assert "timed out" not in outside


def test_dns_that_somebody_deleted_is_there_again_after_a_start(cluster, core):
    apps = client.AppsV1Api(core.api_client)
    before = apps.read_namespaced_deployment(ACCOUNT, NAMESPACE)
    apps.delete_namespaced_deployment(ACCOUNT, NAMESPACE)
    cluster.start(Progress(StringIO()))
    after = apps.read_namespaced_deployment(ACCOUNT, NAMESPACE)
    assert after.metadata.uid != before.metadata.uid
    assert after.spec == before.spec


def test_policies_hold_after_the_api_the_node_and_the_enforcer_were_gone(cluster, core, cluster_namespace):
    create_policy(core, cluster_namespace, "closed", podSelector=only("closed"), policyTypes=["Egress"])
    (node,) = cluster.nodes
    processes.kill(cluster.status().processes["kube-apiserver"])
    node.power_off()
    cluster.start(Progress(StringIO()))
    for name in ("closed", "open"):
        create_pod(core, cluster_namespace, name, "sleep 1000")
        awaited_pod(core, cluster_namespace, name, "Running")
    (server,) = serve(core, cluster_namespace, "server")
    target = {"server": f"{server} 8080"}
    await_reached(core, cluster_namespace, "open", target, target)
    await_reached(core, cluster_namespace, "closed", target, {})

    processes.kill(cluster.status().processes["enforcer"])
    delete_policy(core, cluster_namespace, "closed")
    await_reached(core, cluster_namespace, "closed", target, {})
    cluster.start(Progress(StringIO()))
    await_reached(core, cluster_namespace, "closed", target, target)
