"""Everything about one cluster that follows from its name.

Two clusters with different names share nothing, so they run side by side. Nothing in here
touches the machine; whether ports and addresses are free is asked elsewhere.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from nanoclaw_dev.errors import SetupError

DEFAULT_NAME = "local"
NAME = re.compile(r"[a-z][a-z0-9-]{0,29}")

FIRST_BLOCK, BLOCKS = 100, 140
# Second byte of the address range, 100 to 239: clear of the usual 10.0, 10.88 (Podman), 10.96 (Services)
# and 10.244 (Flannel); 10.128 to 10.131 (OpenShift) are inside and caught by the check for clashes.
FIRST_PORT = 21000
# Below the kernel's ephemeral ports (from 32768), above what services usually take.
MOST_NODES = 20


def state_folder() -> Path:
    """Where clusters keep their state: `NANOCLAW_STATE`, or the user's state folder."""
    if chosen := os.environ.get("NANOCLAW_STATE"):
        return Path(chosen).expanduser().resolve()
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(base).expanduser().resolve() / "nanoclaw"


def instance_name() -> str:
    """The name a person chose by `NANOCLAW_INSTANCE`, or the usual one."""
    return os.environ.get("NANOCLAW_INSTANCE") or DEFAULT_NAME


@dataclass(frozen=True)
class Instance:
    """Names, ports, addresses and folders of one cluster."""

    name: str = field(default_factory=instance_name)
    base: Path = field(default_factory=state_folder)

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise SetupError(
                f"The instance name {self.name!r} cannot be used: set NANOCLAW_INSTANCE to 1 to 30 lower-case letters, "
                "digits and hyphens, a letter first."
            )

    @cached_property
    def index(self) -> int:
        """0 to 139. Two names may share one; the second to start is refused then."""
        return int.from_bytes(hashlib.sha256(self.name.encode()).digest()[:4], "big") % BLOCKS

    @property
    def block(self) -> int:
        return FIRST_BLOCK + self.index

    @property
    def bridge(self) -> str:
        return f"nanoclaw-{self.block}"

    @property
    def network(self) -> str:
        """Nodes, pods and Services, all of it."""
        return f"10.{self.block}.0.0/16"

    @property
    def node_network(self) -> str:
        return f"10.{self.block}.0.0/24"

    @property
    def service_network(self) -> str:
        return f"10.{self.block}.240.0/20"

    @property
    def first_service(self) -> str:
        """The address of the Service `kubernetes` in every cluster: the first of the range."""
        return f"10.{self.block}.240.1"

    @property
    def dns_service(self) -> str:
        """The address of the Service `kube-dns`: in the part of the range that is never given out by chance."""
        return f"10.{self.block}.240.10"

    @property
    def bridge_address(self) -> str:
        return f"10.{self.block}.0.1"

    def _port(self, offset: int) -> int:
        return FIRST_PORT + 10 * self.index + offset

    @property
    def api_port(self) -> int:
        return self._port(0)

    @property
    def etcd_port(self) -> int:
        return self._port(1)

    @property
    def etcd_peer_port(self) -> int:
        return self._port(2)

    @property
    def controller_manager_port(self) -> int:
        return self._port(3)

    @property
    def scheduler_port(self) -> int:
        return self._port(4)

    @property
    def folder(self) -> Path:
        """All state of the cluster; readable by its owner only, since keys lie in it."""
        return self.base / self.name

    @property
    def lock(self) -> Path:
        """Beside the folder, so that removing the folder keeps the lock meaningful."""
        return self.base / f"{self.name}.lock"

    @property
    def certificates(self) -> Path:
        return self.folder / "certificates"

    @property
    def configuration(self) -> Path:
        return self.folder / "configuration"

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "kubeconfig"

    @property
    def shape(self) -> Path:
        """What the cluster is made of; see `shape`."""
        return self.folder / "shape.json"

    @property
    def etcd_data(self) -> Path:
        return self.folder / "etcd"

    @property
    def volumes(self) -> Path:
        """Data of persistent volumes, one folder each."""
        return self.folder / "volumes"

    @property
    def volume_plugins(self) -> Path:
        """Where the controller manager looks for drivers of volumes."""
        return self.folder / "volume-plugins"

    @property
    def processes(self) -> Path:
        return self.folder / "processes"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @property
    def cgroup(self) -> str:
        return f"/nanoclaw/{self.name}"

    def node(self, index: int) -> NodePlace:
        """The place of node 1, 2, … in this cluster."""
        if not 1 <= index <= MOST_NODES:
            raise ValueError(index)
        return NodePlace(self, index)


@dataclass(frozen=True)
class NodePlace:
    """Names, addresses and folders of one node."""

    instance: Instance
    index: int

    @property
    def name(self) -> str:
        return f"node-{self.index}"

    def others(self) -> list[NodePlace]:
        """The places of all other nodes the cluster could have."""
        return [self.instance.node(index) for index in range(1, MOST_NODES + 1) if index != self.index]

    @property
    def interface(self) -> str:
        """The host's end of the node's cable; at most 15 characters."""
        return f"nanoclaw-{self.instance.block}n{self.index}"

    @property
    def address(self) -> str:
        return f"10.{self.instance.block}.0.{10 + self.index}"

    @property
    def pod_network(self) -> str:
        return f"10.{self.instance.block}.{self.index}.0/24"

    @property
    def folder(self) -> Path:
        return self.instance.folder / "nodes" / self.name

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "kubeconfig"

    @property
    def cgroup(self) -> str:
        return f"{self.instance.cgroup}/{self.name}"

    @property
    def containerd(self) -> Path:
        """Images and containers; kept over restarts."""
        return self.folder / "containerd"

    @property
    def network_results(self) -> Path:
        """What network plugins gave to pods, by libcni; forgotten with the node's power."""
        return self.folder / "cni-results"

    @property
    def network_records(self) -> Path:
        """Which pod has which address: a file for each network a container was given."""
        return self.network_results / "results"

    @property
    def network_plugins(self) -> Path:
        return self.folder / "cni"

    @property
    def volume_plugins(self) -> Path:
        """Where the kubelet looks for drivers of volumes."""
        return self.folder / "volume-plugins"
