from __future__ import annotations

import base64
import ipaddress
import json
import subprocess
import tomllib
from pathlib import Path

import pytest

from nanoclaw_dev.cluster import render
from nanoclaw_dev.cluster.instance import MOST_NODES, Instance

INSTANCE = Instance("some", Path("/base with 'quotes'"))
NODE = INSTANCE.node(2)
BINARIES = render.Binaries(kubernetes=Path("/kubernetes"), etcd=Path("/etcd"))
QUICK = render.Timing(fast_failure=True)
USUAL = render.Timing()


def flags(command):
    """Flag → value of a command line; a flag without value is an empty string."""
    return dict(argument.removeprefix("--").partition("=")[::2] for argument in command[1:])


def hosts(urls):
    return {url.split("//")[1].rpartition(":")[0] for url in urls.split(",")}


def test_the_store_listens_on_loopback_and_asks_for_certificates():
    found = flags(render.etcd(INSTANCE, BINARIES))
    assert hosts(found["listen-client-urls"]) == hosts(found["listen-peer-urls"]) == {"127.0.0.1"}
    assert {"client-cert-auth", "peer-client-cert-auth"} <= found.keys()
    assert found["listen-client-urls"].startswith("https://")


def test_the_api_server_listens_on_one_address():
    found = flags(render.api_server(INSTANCE, BINARIES, address=INSTANCE.bridge_address, timing=USUAL))
    assert found["bind-address"] == found["advertise-address"] == INSTANCE.bridge_address
    assert found["secure-port"] == str(INSTANCE.api_port)
    assert found["etcd-servers"] == f"https://127.0.0.1:{INSTANCE.etcd_port}"
    assert found["authorization-mode"] == "Node,RBAC"


def test_an_api_server_on_loopback_claims_no_service_of_its_own():
    alone = flags(render.api_server(INSTANCE, BINARIES, address="127.0.0.1", timing=USUAL))
    assert alone["endpoint-reconciler-type"] == "none"


def test_the_controllers_listen_on_loopback():
    manager = flags(render.controller_manager(INSTANCE, BINARIES, timing=USUAL))
    scheduler = flags(render.scheduler(INSTANCE, BINARIES))
    assert manager["bind-address"] == scheduler["bind-address"] == "127.0.0.1"
    assert manager["secure-port"] != scheduler["secure-port"]


def test_fast_failure_shortens_what_decides_about_silent_nodes():
    manager = flags(render.controller_manager(INSTANCE, BINARIES, timing=QUICK))
    server = flags(render.api_server(INSTANCE, BINARIES, address="127.0.0.1", timing=QUICK))
    kubelet = json.loads(render.kubelet_configuration(NODE, timing=QUICK))
    assert manager["node-monitor-grace-period"] == "8s"
    assert server["default-unreachable-toleration-seconds"] == "5"
    assert kubelet["nodeLeaseDurationSeconds"] == 4
    assert "nodeLeaseDurationSeconds" not in json.loads(render.kubelet_configuration(NODE, timing=USUAL))


def test_no_two_nodes_share_a_cgroup_an_address_or_a_folder():
    first, second = (json.loads(render.kubelet_configuration(INSTANCE.node(index), timing=USUAL)) for index in (1, 2))
    for key in ("cgroupRoot", "address", "tlsCertFile", "resolvConf", "volumePluginDir"):
        assert first[key] != second[key]
    elsewhere = json.loads(render.kubelet_configuration(Instance("other", INSTANCE.base).node(1), timing=USUAL))
    assert elsewhere["cgroupRoot"] != first["cgroupRoot"]


def test_the_kubelet_keeps_images_and_lets_nobody_in_without_a_certificate():
    found = json.loads(render.kubelet_configuration(NODE, timing=USUAL))
    assert found["imageGCHighThresholdPercent"] == 100
    assert found["readOnlyPort"] == 0
    assert found["authentication"]["anonymous"]["enabled"] is False
    assert found["authorization"]["mode"] == "Webhook"


def test_sockets_fit_into_108_bytes_whatever_the_folder():
    deep = Instance("deep", Path("/" + "x" * 200)).node(1)
    containerd = tomllib.loads(render.containerd_configuration(deep, Path("/usr/lib/cni")))
    kubelet = json.loads(render.kubelet_configuration(deep, timing=USUAL))
    assert kubelet["containerRuntimeEndpoint"] == f"unix://{containerd['grpc']['address']}"
    assert len(containerd["grpc"]["address"]) < 60
    assert len(containerd["state"]) < 60


def test_containerd_keeps_images_in_the_nodes_folder_and_uses_our_pause_image():
    found = tomllib.loads(render.containerd_configuration(NODE, Path("/plug'ins")))
    runtime = found["plugins"]["io.containerd.grpc.v1.cri"]
    assert found["root"] == str(NODE.containerd)
    assert runtime["sandbox_image"] == render.PAUSE_IMAGE
    assert runtime["cni"] == {"bin_dir": "/plug'ins", "conf_dir": str(NODE.network_plugins)}
    assert runtime["containerd"]["runtimes"]["runc"]["options"]["SystemdCgroup"] is False


def test_pods_get_addresses_of_their_node_and_no_translation():
    (plugin,) = json.loads(render.network_list(NODE))["plugins"]
    assert plugin["ipMasq"] is False
    assert plugin["ipam"]["ranges"] == [[{"subnet": NODE.pod_network}]]
    assert plugin["ipam"]["dataDir"].startswith("/run/")


def test_the_proxy_uses_nftables_and_leaves_the_machines_tables_alone():
    found = json.loads(render.proxy_configuration(NODE))
    assert found["mode"] == "nftables"
    assert found["conntrack"] == {"maxPerCore": 0}
    assert found["bindAddress"] == NODE.address


def test_the_node_script_is_shell_and_mounts_only_over_what_is_the_nodes():
    script = render.node_script(NODE)
    subprocess.run(["sh", "-n"], input=script, text=True, check=True)
    lines = script.splitlines()
    mounted = [line.split()[-1] for line in lines if line.startswith("mount --bind")]
    assert mounted == [*render.private_folders(NODE), *(f"/proc/sys/{name}" for name in render.KERNEL_SETTINGS)]
    # Nothing is shared before all of it is mounted, and no folder is made before /var is a layer of its own.
    assert [line for line in lines if line.startswith("mount")][-1] == "mount --make-rshared /"
    covered = max(index for index, line in enumerate(lines) if line.startswith("mount -t"))
    assert all(
        index > covered or line.split()[-1].startswith("/run/")
        for index, line in enumerate(lines)
        if line.startswith("mkdir")
    )
    written = [line.rpartition("> ")[2] for line in lines if ">" in line]
    # The only kernel settings written are those that network and host name namespaces keep apart.
    assert written == ["/proc/sys/kernel/hostname", "/proc/sys/net/ipv4/ip_forward"]


def test_a_kubeconfig_carries_everything_in_itself():
    text = render.kubeconfig("https://1.2.3.4:5", authority=b"ca", certificate=b"crt", key=b"key")
    found = json.loads(text)
    assert found["clusters"][0]["cluster"]["server"] == "https://1.2.3.4:5"
    user = found["users"][0]["user"]
    assert base64.b64decode(user["client-certificate-data"]) == b"crt"
    assert base64.b64decode(user["client-key-data"]) == b"key"
    assert found["current-context"] == found["contexts"][0]["name"]


@pytest.mark.parametrize("address", ["127.0.0.1", INSTANCE.bridge_address])
def test_the_api_server_is_known_by_every_address_it_is_called_by(address):
    server = next(request for request in render.requests(INSTANCE, address) if request.name == "api-server")
    assert {address, INSTANCE.first_service} <= set(server.addresses)
    assert all(ipaddress.ip_address(found) for found in server.addresses)


def test_a_kubelet_is_who_the_node_authorizer_expects():
    request = render.node_request(NODE)
    assert (request.user, request.group) == ("system:node:node-2", "system:nodes")
    assert NODE.address in request.addresses


def test_claims_get_our_class_and_wait_for_their_pod():
    usual, detachable = render.storage_classes()
    assert usual["metadata"]["annotations"] == {"storageclass.kubernetes.io/is-default-class": "true"}
    assert "annotations" not in detachable["metadata"]
    for found in (usual, detachable):
        assert (found["volumeBindingMode"], found["reclaimPolicy"]) == ("WaitForFirstConsumer", "Delete")


def test_a_node_knows_the_way_to_the_pods_of_every_other_there_could_be():
    routes = [line.split() for line in render.node_script(NODE).splitlines() if line.startswith("ip route add 10.")]
    known = {route[3]: route[5] for route in routes}
    assert known[INSTANCE.node(1).pod_network] == INSTANCE.node(1).address
    assert known[INSTANCE.node(MOST_NODES).pod_network] == INSTANCE.node(MOST_NODES).address
    assert NODE.pod_network not in known
    assert len(known) == MOST_NODES - 1
