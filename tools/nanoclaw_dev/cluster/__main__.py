"""`python -m nanoclaw_dev.cluster up|down|status`: the embedded cluster by itself."""

from __future__ import annotations

import argparse
import sys

from nanoclaw_dev import modules, system
from nanoclaw_dev.cluster.cluster import Cluster
from nanoclaw_dev.cluster.instance import Instance, instance_name
from nanoclaw_dev.errors import SetupError
from nanoclaw_dev.gomodules import build_missing
from nanoclaw_dev.progress import Progress


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
    """0 when pods can be started, 1 when not."""
    found = cluster.status()
    for name, pid in found.processes.items():
        progress.say(f"{name:28} {f'running ({pid})' if pid else 'not running'}")
    progress.say("ready" if found.ready else "not ready" if found.processes else "stopped")
    return 0 if found.ready else 1


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m nanoclaw_dev.cluster", description=__doc__)
    parser.add_argument("command", choices=["up", "down", "status"])
    parser.add_argument("--instance", default=instance_name(), metavar="NAME", help="one of several side by side")
    arguments = parser.parse_args()
    command = {"up": up, "down": down, "status": status}[arguments.command]
    try:
        return command(Cluster(Instance(arguments.instance)), Progress())
    except SetupError as error:
        sys.stderr.write(f"{error}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
