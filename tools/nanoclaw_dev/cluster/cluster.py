"""The whole cluster: control plane, bridge, nodes, storage, names, network policies.

`start` is for every state it may find: nothing, everything running (then it is done at once), a
part that died, or only the folder of a machine that was rebooted. Objects and volumes are kept
until `remove`.
"""

from __future__ import annotations

import io
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from nanoclaw_dev import system
from nanoclaw_dev.cluster import cgroups, disks, dns, network, render
from nanoclaw_dev.cluster.control_plane import API_SERVER, BOOT, GRACE, ControlPlane, locked
from nanoclaw_dev.cluster.instance import MOST_NODES, Instance
from nanoclaw_dev.cluster.node import Node
from nanoclaw_dev.cluster.processes import Program
from nanoclaw_dev.cluster.shape import Shape
from nanoclaw_dev.errors import SetupError
from nanoclaw_dev.progress import Progress, Step

PROVISIONER, ENFORCER = "provisioner", "enforcer"
# Programs of our own beside the control plane: storage, and network policies.
NODE_SPACE = 2 * 1024**3
# Bytes, for each node beyond the first.
INOTIFY, NODE_INOTIFY = 8, 10
# Instances of the control plane and of each node: 6 and 8 were seen.


@dataclass(frozen=True)
class Status:
    """What runs. `ready` means that pods can be started."""

    ready: bool
    processes: dict[str, int | None]
    """Program → process id, None for one that should run and does not. Empty: the cluster is stopped."""


class Cluster:
    """One cluster. As a context manager it runs for the length of the block and dies with us.

    Number of nodes and timing, unless given, are those of its last start: at first one node, and
    Kubernetes' own timing. Fewer nodes than before removes the last ones, with what only they had.
    """

    def __init__(self, instance: Instance, *, nodes: int | None = None, fast_failure: bool | None = None) -> None:
        self._shape = Shape.of(instance, nodes=nodes, fast_failure=fast_failure)
        self._timing = render.Timing(fast_failure=self._shape.fast_failure)
        self.instance = instance
        self.control_plane = ControlPlane(
            instance, address=instance.bridge_address, controllers=True, timing=self._timing
        )
        self.processes = self.control_plane.processes
        self.nodes = [self._node(index + 1) for index in range(self._shape.nodes)]
        self.kubeconfig = instance.kubeconfig

    def __enter__(self) -> Self:
        self.processes.attached = True
        try:
            self.start(Progress(io.StringIO()))
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, progress: Progress) -> None:
        """Return when pods can be started. Raises SetupError before work starts where it cannot."""
        system.check_root()
        with locked(self.instance):
            if self._healthy() and self._dns_as_wanted() and not self._surplus():
                return
            if not self.processes.names():
                system.check_space(self.instance.folder, system.CLUSTER_SPACE + (len(self.nodes) - 1) * NODE_SPACE)
            cgroups.check_controllers(cgroups.hierarchies())
            network.check_addresses(self.instance)
            system.check_inotify(self._inotify_to_come())
            with progress.step("Starting Kubernetes") as step:
                self._start(step)

    def stop(self) -> None:
        """Stop everything and leave nothing but the folder with the data."""
        with locked(self.instance):
            self._stop()

    def remove(self) -> None:
        """Stop, and delete all data with it: objects, volumes, images, certificates."""
        with locked(self.instance):
            self._stop()
            shutil.rmtree(self.instance.folder, ignore_errors=True)
            self.instance.lock.unlink()

    def status(self) -> Status:
        names = self.processes.names()
        return Status(
            ready=bool(names) and self._healthy(), processes={name: self.processes.pid(name) for name in names}
        )

    def import_image(self, archive: Path) -> bool:
        """Give every node the images in an archive. False when all of them have it already."""
        with ThreadPoolExecutor(len(self.nodes)) as pool:
            return any([*pool.map(lambda node: node.import_image(archive), self.nodes)])

    def node(self, name: str) -> Node:
        """The node of a name. Raises SetupError when there is none."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise SetupError(
            f"The cluster has no node {name!r}: name one of {', '.join(each.name for each in self.nodes)}."
        )

    def _node(self, index: int) -> Node:
        return Node(self.control_plane, index, timing=self._timing)

    def _inotify_to_come(self) -> int:
        return NODE_INOTIFY * sum(node.init() is None for node in self.nodes) + INOTIFY * (not self.processes.names())

    def _surplus(self) -> list[Node]:
        """Nodes of earlier starts that are no longer wanted."""
        more = [self._node(index) for index in range(len(self.nodes) + 1, MOST_NODES + 1)]
        return [node for node in more if node.place.folder.exists()]

    def _remove_surplus(self) -> None:
        for node in self._surplus():
            node.power_off()
            self.control_plane.api.delete(f"/api/v1/nodes/{node.name}")
            shutil.rmtree(node.place.folder)

    def _stop(self) -> None:
        for node in [*self.nodes, *self._surplus()]:
            node.power_off()
        for name in (PROVISIONER, ENFORCER):
            self.processes.stop(name, grace=GRACE)
        self.control_plane.halt()
        network.remove_bridge(self.instance)

    def _start(self, step: Step) -> None:
        self._shape.record(self.instance)
        network.create_bridge(self.instance)
        for plugins in (self.instance.volume_plugins, *(node.place.volume_plugins for node in self.nodes)):
            disks.install(plugins)
        self.control_plane.launch(step)
        for node in self.nodes:
            step.note(f"{node.name}: namespaces and containerd")
            node.boot()
        self.control_plane.await_ready(step)
        self._remove_surplus()
        for each in render.storage_classes():
            self.control_plane.api.apply(f"/apis/storage.k8s.io/v1/storageclasses/{each['metadata']['name']}", each)
        for name in (PROVISIONER, ENFORCER):
            self.processes.ensure(self._own(name))
        for node in self.nodes:
            step.note(f"{node.name}: joining")
            node.join()
        self._apply_dns(step)
        for node in self.nodes:
            node.await_state(ready=True)

    def _healthy(self) -> bool:
        return (
            self.control_plane.healthy()
            and all(self.processes.as_wanted(self._own(name)) for name in (PROVISIONER, ENFORCER))
            and all(node.healthy() and node.ready() for node in self.nodes)
        )

    def _apply_dns(self, step: Step) -> None:
        """Takes no longer than a node takes to be ready, which it may not be yet. Nobody waits for the answers."""
        step.note("DNS")
        self.import_image(dns.image_archive())
        api, there = self.control_plane.api, f"/api/v1/namespaces/{dns.NAMESPACE}"
        self.processes.wait(lambda: api.exists(there), f"{there} exists", API_SERVER, seconds=BOOT)
        for path, manifest in dns.objects(self.instance):
            api.apply(path, manifest)

    def _dns_as_wanted(self) -> bool:
        return dns.as_wanted(self.instance, self.control_plane.api.get(dns.DEPLOYMENT))

    def _own(self, name: str) -> Program:
        instance = self.instance
        command = (sys.executable, "-m", f"nanoclaw_dev.cluster.{name}")
        arguments = (f"--instance={instance.name}", f"--base={instance.base}")
        # Which nodes there are they read at their start, from here.
        return Program(name, (*command, *arguments), {instance.shape: self._shape.text()})
