"""Keeps the packet filter of every node to what the cluster's network policies say.

Runs as a process of its own beside the control plane. Pods, namespaces and policies are followed in
the API; a new pod's address is read where its node's network plugins record it, which is before
the pod's first process starts. Rules that are loaded stay when this process or the API is away.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import signal
import threading
import time
from pathlib import Path
from typing import NoReturn

from nanoclaw_dev.cluster import packet_filter
from nanoclaw_dev.cluster.cluster import Cluster
from nanoclaw_dev.cluster.follow import Mirror, instance_of_arguments
from nanoclaw_dev.cluster.node import Node
from nanoclaw_dev.cluster.policies import Manifest, Namespace, Pod, World, namespace_of, placed, pod_of, policy_of
from nanoclaw_dev.errors import SetupError

PODS, NAMESPACES = "/api/v1/pods", "/api/v1/namespaces"
POLICIES = "/apis/networking.k8s.io/v1/networkpolicies"

TOGETHER = 0.02
# Seconds to wait for what comes with a change, before all of it is loaded at once.
LOOK = 1.0
# Seconds after which a node that was switched on meanwhile is noticed; no event tells.

CHANGES = fcntl.DN_CREATE | fcntl.DN_MODIFY | fcntl.DN_DELETE | fcntl.DN_MULTISHOT

log = logging.getLogger("enforcer")


def recorded_addresses(results: Path) -> dict[str, str]:
    """Address → uid of the pod that has it, as libcni has recorded in a folder."""
    found = {}
    for file in results.glob("pods-*"):
        try:
            record = json.loads(file.read_text())
            uid = dict(record["cniArgs"])["K8S_POD_UID"]
            found.update({each["address"].partition("/")[0]: uid for each in record["result"]["ips"]})
        except (FileNotFoundError, ValueError, KeyError):
            continue  # being written or removed; the end of that wakes us again
    return found


class Enforcer:
    """The rules of one cluster's nodes."""

    def __init__(self, cluster: Cluster) -> None:
        self._nodes = cluster.nodes
        self._wake = threading.Event()
        self._loaded: dict[str, tuple[int, str]] = {}
        self._watch_folders([node.place.network_records for node in cluster.nodes])
        api = cluster.control_plane.api
        self._pods: Mirror[Pod] = Mirror(api, PODS, pod_of, self._wake)
        self._namespaces: Mirror[Namespace] = Mirror(api, NAMESPACES, namespace_of, self._wake)
        self._policies: Mirror[Manifest] = Mirror(api, POLICIES, policy_of, self._wake)

    def run(self) -> NoReturn:
        """Until the process is ended."""
        while True:
            if self._wake.wait(LOOK):
                time.sleep(TOGETHER)
                self._wake.clear()
            elif not self._switched_on():
                continue
            if all(mirror.known() for mirror in (self._pods, self._namespaces, self._policies)):
                self._load()

    def _watch_folders(self, folders: list[Path]) -> None:
        """Wake up when anything in these folders changes. Before any thread is started."""
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGIO})
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
            fcntl.fcntl(os.open(folder, os.O_RDONLY | os.O_DIRECTORY), fcntl.F_NOTIFY, CHANGES)
        threading.Thread(target=self._await_signals, name="folders", daemon=True).start()

    def _await_signals(self) -> NoReturn:
        while True:
            signal.sigwait({signal.SIGIO})
            self._wake.set()

    def _switched_on(self) -> bool:
        """A node runs that has not got its rules."""
        return any((init := node.init()) and self._loaded.get(node.name, (0, ""))[0] != init for node in self._nodes)

    def _load(self) -> None:
        recorded: dict[str, str] = {}
        for node in self._nodes:
            recorded |= recorded_addresses(node.place.network_records)
        world = World(placed(self._pods.values(), recorded), self._namespaces.values(), self._policies.values())
        for node in self._nodes:
            self._load_on(node, world)

    def _load_on(self, node: Node, world: World) -> None:
        began = time.monotonic()
        rules = packet_filter.render(node.place.pod_network, world)
        init = node.init()
        if init is None or self._loaded.get(node.name) == (init, rules):
            return
        try:
            packet_filter.load(init, rules)
        except SetupError as error:
            log.warning("%s keeps its rules: %s", node.name, error)
            self._loaded.pop(node.name, None)  # so that the next look tries again
            return
        self._loaded[node.name] = init, rules
        took = (time.monotonic() - began) * 1000
        log.info("%s: %d pods, %d policies, in %.0f ms", node.name, len(world.pods), len(world.policies), took)


def main() -> None:
    Enforcer(Cluster(instance_of_arguments(__doc__))).run()


if __name__ == "__main__":
    main()
