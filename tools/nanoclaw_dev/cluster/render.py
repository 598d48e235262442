"""What the components are told: their flags and configuration files, as pure functions.

Nothing is read from or written to the machine here; the paths in the results are made elsewhere.
Configuration files are JSON where the component reads YAML, of which JSON is a part.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanoclaw_dev.cluster.certificates import Request, key_pair
from nanoclaw_dev.cluster.instance import Instance, NodePlace

PAUSE_IMAGE = "localhost/nanoclaw/pause:1"
STORAGE_CLASS, DETACHABLE_CLASS = "nanoclaw-local", "nanoclaw-detachable"
PROVISIONER = "nanoclaw.dev/local"
DETACHABLE = "detachable"
# A parameter of storage classes.
CLUSTER_DOMAIN = "cluster.local"

NODE_SOCKET = "/run/containerd/containerd.sock"
# /run is the node's own, so every node may use the same short path.
NODE_PREPARED = "/run/nanoclaw-prepared"
# Exists once the node's namespaces are furnished; gone with them.

KERNEL_SETTINGS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}
# What a kubelet insists on and would change for the whole machine. The node sees files with these
# values in their place, so the machine keeps its own.


@dataclass(frozen=True)
class Binaries:
    """Where the programs lie."""

    kubernetes: Path
    etcd: Path


@dataclass(frozen=True)
class Timing:
    """How soon a silent node is noticed and its pods are evicted: as Kubernetes has it, or within seconds."""

    fast_failure: bool = False

    def api_server(self) -> list[str]:
        if not self.fast_failure:
            return []
        return ["--default-not-ready-toleration-seconds=5", "--default-unreachable-toleration-seconds=5"]

    def controller_manager(self) -> list[str]:
        return ["--node-monitor-period=1s", "--node-monitor-grace-period=8s"] if self.fast_failure else []

    def kubelet(self) -> dict[str, Any]:
        # With its status a kubelet says which disks it uses; once in 10 s, and each pod with a disk would wait for it.
        soon = {"nodeStatusUpdateFrequency": "1s"}
        if self.fast_failure:
            return soon | {"nodeStatusReportFrequency": "2s", "nodeLeaseDurationSeconds": 4}
        return soon | {"nodeStatusReportFrequency": "5m"}


def requests(instance: Instance, address: str) -> tuple[Request, ...]:
    """The certificates of a control plane that listens on `address`."""
    return (
        Request("etcd", "etcd", addresses=("127.0.0.1",), hosts=("localhost",)),
        Request("etcd-client", "kube-apiserver"),
        Request(
            "api-server",
            "kube-apiserver",
            addresses=tuple(dict.fromkeys((address, "127.0.0.1", instance.first_service))),
            hosts=(
                "localhost",
                "kubernetes",
                "kubernetes.default",
                "kubernetes.default.svc",
                "kubernetes.default.svc.cluster.local",
            ),
        ),
        Request("api-server-to-kubelet", "kube-apiserver-kubelet-client", "system:masters"),
        Request("admin", "nanoclaw-admin", "system:masters"),
        Request("controller-manager", "system:kube-controller-manager"),
        Request("scheduler", "system:kube-scheduler"),
        Request("kube-proxy", "system:kube-proxy"),
    )


def node_request(place: NodePlace) -> Request:
    """The certificate a kubelet shows to the API server, as client and as server."""
    return Request(
        place.name, f"system:node:{place.name}", "system:nodes", addresses=(place.address,), hosts=(place.name,)
    )


def kubeconfig(server: str, *, authority: bytes, certificate: bytes, key: bytes) -> str:
    """A kubeconfig with everything in it, so that it works wherever it is copied to."""

    def encoded(data: bytes) -> str:
        return base64.b64encode(data).decode()

    return _json(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": "nanoclaw",
                    "cluster": {"server": server, "certificate-authority-data": encoded(authority)},
                }
            ],
            "users": [
                {
                    "name": "nanoclaw",
                    "user": {"client-certificate-data": encoded(certificate), "client-key-data": encoded(key)},
                }
            ],
            "contexts": [{"name": "nanoclaw", "context": {"cluster": "nanoclaw", "user": "nanoclaw"}}],
            "current-context": "nanoclaw",
        }
    )


def etcd(instance: Instance, binaries: Binaries) -> tuple[str, ...]:
    """The store, on loopback, for holders of a certificate only."""
    pki = instance.certificates
    server, authority = key_pair(pki, "etcd"), key_pair(pki, "authority")
    client = f"https://127.0.0.1:{instance.etcd_port}"
    peer = f"https://127.0.0.1:{instance.etcd_peer_port}"
    return (
        str(binaries.etcd / "etcd"),
        f"--name={instance.name}",
        f"--data-dir={instance.etcd_data}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster={instance.name}={peer}",
        f"--trusted-ca-file={authority.certificate}",
        f"--cert-file={server.certificate}",
        f"--key-file={server.key}",
        "--client-cert-auth",
        f"--peer-trusted-ca-file={authority.certificate}",
        f"--peer-cert-file={server.certificate}",
        f"--peer-key-file={server.key}",
        "--peer-client-cert-auth",
        "--log-level=warn",
    )


def api_server(instance: Instance, binaries: Binaries, *, address: str, timing: Timing) -> tuple[str, ...]:
    """The API server, listening on `address` and nothing else.

    On loopback there are no nodes and no pods, hence nobody for its own Service to point at.
    """
    pki = instance.certificates
    authority, server = key_pair(pki, "authority"), key_pair(pki, "api-server")
    store, kubelet = key_pair(pki, "etcd-client"), key_pair(pki, "api-server-to-kubelet")
    tokens = key_pair(pki, "tokens")
    alone = ["--endpoint-reconciler-type=none"] if address == "127.0.0.1" else []
    return (
        str(binaries.kubernetes / "kube-apiserver"),
        f"--bind-address={address}",
        f"--advertise-address={address}",
        f"--secure-port={instance.api_port}",
        f"--service-cluster-ip-range={instance.service_network}",
        f"--etcd-servers=https://127.0.0.1:{instance.etcd_port}",
        f"--etcd-cafile={authority.certificate}",
        f"--etcd-certfile={store.certificate}",
        f"--etcd-keyfile={store.key}",
        f"--client-ca-file={authority.certificate}",
        f"--tls-cert-file={server.certificate}",
        f"--tls-private-key-file={server.key}",
        f"--kubelet-certificate-authority={authority.certificate}",
        f"--kubelet-client-certificate={kubelet.certificate}",
        f"--kubelet-client-key={kubelet.key}",
        "--kubelet-preferred-address-types=InternalIP",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={tokens.certificate}",
        f"--service-account-signing-key-file={tokens.key}",
        "--profiling=false",
        *alone,
        *timing.api_server(),
    )


def controller_manager(instance: Instance, binaries: Binaries, *, timing: Timing) -> tuple[str, ...]:
    kubeconfig_file = instance.configuration / "controller-manager.kubeconfig"
    return (
        str(binaries.kubernetes / "kube-controller-manager"),
        "--bind-address=127.0.0.1",
        f"--secure-port={instance.controller_manager_port}",
        *_serving(instance, "controller-manager"),
        *_called_as(kubeconfig_file),
        "--leader-elect=false",
        "--use-service-account-credentials",
        f"--service-account-private-key-file={key_pair(instance.certificates, 'tokens').key}",
        f"--flex-volume-plugin-dir={instance.volume_plugins}",
        f"--root-ca-file={key_pair(instance.certificates, 'authority').certificate}",
        "--profiling=false",
        *timing.controller_manager(),
    )


def scheduler(instance: Instance, binaries: Binaries) -> tuple[str, ...]:
    return (
        str(binaries.kubernetes / "kube-scheduler"),
        "--bind-address=127.0.0.1",
        f"--secure-port={instance.scheduler_port}",
        *_serving(instance, "scheduler"),
        *_called_as(instance.configuration / "scheduler.kubeconfig"),
        "--leader-elect=false",
        "--profiling=false",
    )


def _serving(instance: Instance, name: str) -> tuple[str, ...]:
    pair = key_pair(instance.certificates, name)
    return (f"--tls-cert-file={pair.certificate}", f"--tls-private-key-file={pair.key}")


def _called_as(kubeconfig_file: Path) -> tuple[str, ...]:
    purposes = ("kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig")
    # There is no front proxy whose authority could be looked up.
    return (*(f"--{purpose}={kubeconfig_file}" for purpose in purposes), "--authentication-skip-lookup=true")


def storage_classes() -> list[dict[str, Any]]:
    """Folders on this machine, made once a pod needs them; the first is for claims that name no class.

    A volume of one node stays on the node of its first pod, or, of the detachable class, is attached where its pod is.
    """
    common = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "provisioner": PROVISIONER,
        "volumeBindingMode": "WaitForFirstConsumer",
        "reclaimPolicy": "Delete",
    }
    usual = {"name": STORAGE_CLASS, "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}
    return [
        {**common, "metadata": usual},
        {**common, "metadata": {"name": DETACHABLE_CLASS}, "parameters": {DETACHABLE: "true"}},
    ]


def kubelet_configuration(place: NodePlace, *, timing: Timing) -> str:
    pki = place.instance.certificates
    serving = key_pair(pki, place.name)
    return _json(
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": place.address,
            "readOnlyPort": 0,
            "tlsCertFile": str(serving.certificate),
            "tlsPrivateKeyFile": str(serving.key),
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(key_pair(pki, "authority").certificate)},
            },
            "authorization": {"mode": "Webhook"},
            "containerRuntimeEndpoint": f"unix://{NODE_SOCKET}",
            "cgroupDriver": "cgroupfs",
            # Never shared: a kubelet kills what it does not know below its own root.
            "cgroupRoot": place.cgroup,
            "failCgroupV1": False,
            "failSwapOn": False,
            "oomScoreAdj": 0,
            "makeIPTablesUtilChains": False,
            "clusterDNS": [place.instance.dns_service],
            "clusterDomain": CLUSTER_DOMAIN,
            "resolvConf": str(place.folder / "resolv.conf"),
            "volumePluginDir": str(place.volume_plugins),
            "evictionHard": {
                "memory.available": "100Mi",
                "nodefs.available": "1%",
                "nodefs.inodesFree": "1%",
                "imagefs.available": "1%",
            },
            # Images come from files, not from a registry: one that is removed does not come back.
            "imageGCHighThresholdPercent": 100,
            **timing.kubelet(),
        }
    )


def kubelet(place: NodePlace, binaries: Binaries) -> tuple[str, ...]:
    """Runs inside the node's namespaces, where the fixed paths below /var are its own."""
    return (
        str(binaries.kubernetes / "kubelet"),
        f"--config={place.folder / 'kubelet.json'}",
        f"--kubeconfig={place.kubeconfig}",
        f"--hostname-override={place.name}",
        f"--node-ip={place.address}",
        "--root-dir=/var/lib/kubelet",
        f"--cert-dir={place.folder / 'kubelet' / 'pki'}",
    )


def proxy_configuration(place: NodePlace) -> str:
    return _json(
        {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "clientConnection": {"kubeconfig": str(place.folder / "kube-proxy.kubeconfig")},
            "hostnameOverride": place.name,
            "bindAddress": place.address,
            "healthzBindAddress": "127.0.0.1:10256",
            "metricsBindAddress": "127.0.0.1:10249",
            "mode": "nftables",
            "clusterCIDR": place.instance.network,
            "conntrack": {"maxPerCore": 0},  # the table's size belongs to the machine, not to us
            "nftables": {"minSyncPeriod": "0.2s"},
        }
    )


def proxy(place: NodePlace, binaries: Binaries) -> tuple[str, ...]:
    return (str(binaries.kubernetes / "kube-proxy"), f"--config={place.folder / 'kube-proxy.json'}")


def containerd_configuration(place: NodePlace, plugins: Path) -> str:
    """`plugins` is the folder with the machine's CNI plugins."""
    return f"""\
version = 2
root = {_toml(place.containerd)}
state = "/run/containerd"
disabled_plugins = ["io.containerd.internal.v1.opt"]

[grpc]
  address = "{NODE_SOCKET}"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = true

  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = {_toml(plugins)}
    conf_dir = {_toml(place.network_plugins)}

  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"

    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
"""


def containerd(place: NodePlace, program: Path) -> tuple[str, ...]:
    return (str(program), f"--config={place.folder / 'containerd.toml'}")


def network_list(place: NodePlace) -> str:
    """How pods are wired: each with a cable to the node, which routes.

    No bridge in between, so all pod traffic passes the node's forward hook, also on machines
    whose bridges do not call the packet filter.
    """
    return _json(
        {
            "cniVersion": "0.4.0",
            "name": "pods",
            "plugins": [
                {
                    "type": "ptp",
                    "ipMasq": False,
                    "ipam": {
                        "type": "host-local",
                        "ranges": [[{"subnet": place.pod_network}]],
                        "routes": [{"dst": "0.0.0.0/0"}],
                        # Below /run, so that a power loss forgets the addresses of the pods it killed.
                        "dataDir": "/run/cni-addresses",
                    },
                }
            ],
        }
    )


def resolver(instance: Instance) -> str:
    """For pods that want their node's resolv.conf; never the machine's own, whose servers they cannot reach."""
    return f"nameserver {instance.dns_service}\n"


def private_folders(place: NodePlace) -> dict[str, Path]:
    """Fixed paths that programs on the node use → the node's own folder in their place."""
    return {
        "/var/lib/kubelet": place.folder / "kubelet",
        "/var/lib/cni": place.network_results,
        "/var/log/pods": place.folder / "pod-logs",
        "/var/log/containers": place.folder / "container-logs",
    }


def node_script(place: NodePlace) -> str:
    """Run by a shell in a node's new namespaces: makes them a node. Touches nothing outside them.

    Folders the fixed paths need are made in a layer over the machine's, never on the machine:
    removing one there would unmount it in every other node.
    """
    folder = _shell(place.instance.folder)
    layers = [line for name in ("lib", "log") for line in _layer(f"/var/{name}", f"/run/layers/{name}")]
    binds = [
        line
        for fixed, own in private_folders(place).items()
        for line in (f"mkdir -p {fixed}", f"mount --bind {_shell(own)} {fixed}")
    ]
    settings = [f"mount --bind {_shell(place.folder / 'kernel' / name)} /proc/sys/{name}" for name in KERNEL_SETTINGS]
    return "\n".join(
        [
            "set -e",
            f"echo {place.name} > /proc/sys/kernel/hostname",
            # The cluster's folder stays reachable, and on its own file system, wherever it lies.
            f"cd {folder}",
            "mount -t tmpfs -o mode=755 tmpfs /run",
            "mkdir /run/netns",
            *layers,
            f"mkdir -p {folder}",
            f"mount --no-canonicalize --bind . {folder}",
            "cd /",
            *binds,
            *settings,
            "mount --make-rshared /",  # mounts of containers must reach the kubelet; no way to the host
            "echo 1 > /proc/sys/net/ipv4/ip_forward",
            "ip link set lo up",
            f"ip address add {place.address}/24 dev eth0",
            "ip link set eth0 up",
            f"ip route add default via {place.instance.bridge_address}",
            # Of all there could be, so that a node added later needs nothing from the others.
            *(f"ip route add {other.pod_network} via {other.address}" for other in place.others()),
            f"touch {NODE_PREPARED}",
            "",
        ]
    )


def _layer(folder: str, own: str) -> tuple[str, str]:
    """Shell lines that put an empty, writable layer kept in `own` over a folder."""
    options = f"lowerdir={folder},upperdir={own},workdir={own}.work"
    return f"mkdir -p {own} {own}.work", f"mount -t overlay -o {options} overlay {folder}"


def _json(value: Any) -> str:
    return json.dumps(value, indent=2) + "\n"


def _toml(path: Path) -> str:
    return json.dumps(str(path))


def _shell(path: Path) -> str:
    return "'" + str(path).replace("'", "'\\''") + "'"
