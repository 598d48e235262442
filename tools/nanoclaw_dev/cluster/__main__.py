"""The embedded cluster by itself: start, look, stop, and what may befall its nodes.

`up --nodes 3` also adds nodes to a cluster that runs; `up` alone keeps what there is and brings
back every node that was switched off, killed or cut off.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from nanoclaw_dev import modules, system
from nanoclaw_dev.cluster.cluster import Cluster
from nanoclaw_dev.cluster.control_plane import locked
from nanoclaw_dev.cluster.instance import Instance, instance_name
from nanoclaw_dev.cluster.node import Node
from nanoclaw_dev.errors import SetupError
from nanoclaw_dev.gomodules import build_missing
from nanoclaw_dev.progress import Progress

VERBS: dict[str, tuple[Callable[[Node], None], str]] = {
    "power-off": (Node.power_off, "kill a node with everything on it"),
    "power-on": (Node.power_on, "start what does not run on a node, and wait until it is ready"),
    "kill-agents": (Node.kill_agents, "kill kubelet and containerd of a node; its containers live on"),
    "partition": (Node.partition, "cut a node off from everybody"),
    "heal": (Node.heal, "end a partition"),
    "out-of-service": (Node.out_of_service, "say that a node is off for certain, so that its pods are forgotten"),
    "in-service": (Node.in_service, "take that back"),
}
"""Command → what it does to a node, and its line of help."""


def up(cluster: Cluster, progress: Progress) -> int:
    system.check_root()
    system.install_missing(system.CLUSTER_PACKAGES, progress)
    build_missing(modules.CLUSTER, progress)
    cluster.start(progress)
    progress.say(f"Kubernetes is ready: export KUBECONFIG={cluster.kubeconfig}")
    return 0


def down(cluster: Cluster, progress: Progress) -> int:
    system.check_root()
    with progress.step("Stopping Kubernetes"):
        cluster.stop()
    progress.say(f"Its data is kept in {cluster.instance.folder}.")
    return 0


def status(cluster: Cluster, progress: Progress) -> int:
    """0 when pods can be started on every node, 1 when not."""
    found = cluster.status()
    for name, pid in found.processes.items():
        progress.say(f"{name:28} {f'running ({pid})' if pid else 'not running'}")
    if found.processes:
        for node in cluster.nodes:
            progress.say(f"{node.name:28} {'ready' if node.healthy() and node.ready() else 'not ready'}")
    progress.say("ready" if found.ready else "not ready" if found.processes else "stopped")
    return 0 if found.ready else 1


def befall(cluster: Cluster, verb: str, name: str) -> int:
    system.check_root()
    with locked(cluster.instance):
        if not cluster.processes.names():
            raise SetupError("The cluster is stopped: start it with `up`.")
        VERBS[verb][0](cluster.node(name))
    return 0


def arguments() -> argparse.Namespace:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--instance", default=instance_name(), metavar="NAME", help="one of several side by side")
    parser = argparse.ArgumentParser(prog="python -m nanoclaw_dev.cluster", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    start = commands.add_parser("up", parents=[common], help="start it, or what of it does not run")
    start.add_argument("--nodes", type=int, metavar="N", help="as many as at the last start unless named")
    start.add_argument(
        "--fast-failure",
        action=argparse.BooleanOptionalAction,
        help="notice a dead node after 8 seconds and evict its pods after 5 more, instead of 50 and 300",
    )
    commands.add_parser("down", parents=[common], help="stop it; its data is kept")
    commands.add_parser("status", parents=[common], help="what runs")
    for verb, (_, purpose) in VERBS.items():
        commands.add_parser(verb, parents=[common], help=purpose, description=purpose).add_argument("node")
    return parser.parse_args()


def main() -> int:
    chosen = vars(arguments())
    try:
        shape = {"nodes": chosen.get("nodes"), "fast_failure": chosen.get("fast_failure")}
        cluster = Cluster(Instance(chosen["instance"]), **shape)
        if "node" in chosen:
            return befall(cluster, chosen["command"], chosen["node"])
        return {"up": up, "down": down, "status": status}[chosen["command"]](cluster, Progress())
    except SetupError as error:
        sys.stderr.write(f"{error}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
