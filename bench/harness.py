"""`make bench`: an installation of its own on a cluster of its own, everything measured in one run.

The baselines run interleaved with ours on the same machine, so that what else the machine does
meets all of them alike. Results go to `bench/results/`.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path

from bench import gateway, queue, start
from nanoclaw_dev import engine_binaries, gomodules, images, modules, system
from nanoclaw_dev.cluster.cluster import Cluster
from nanoclaw_dev.cluster.instance import Instance
from nanoclaw_dev.docker_engine import DockerEngine
from nanoclaw_dev.progress import Progress
from nanoclaw_dev.trial import Installation

RESULTS = Path(__file__).parent / "results"

SETTINGS = {
    # A session ends a second after its answer, so that the next round starts cold again.
    "runtime": {"maxConcurrentSessions": 10, "idleTimeout": 1, "closeGrace": 10},
    "groups": [
        {"folder": folder, "name": folder, "requiresTrigger": False} for folder in (*start.GROUPS, start.BASELINE)
    ],
}


def main(progress: Progress) -> None:
    """Measure and write the results. Needs root, as the embedded cluster does."""
    queue.measure(RESULTS, progress)
    gateway.measure(RESULTS, progress)
    system.check_root()
    packages = {**system.CLUSTER_PACKAGES, **system.IMAGE_PACKAGES, **system.DOCKER_PACKAGES}
    system.install_missing(packages, progress)
    binaries = engine_binaries.find(progress)
    gomodules.build_missing(modules.CLUSTER, progress)
    with tempfile.TemporaryDirectory(prefix="nanoclaw-bench-") as scratch:
        folder = Path(scratch)
        cluster = Cluster(Instance(f"bench-{os.getpid()}", folder / "cluster"))
        try:
            with cluster, DockerEngine(folder / "docker") as docker:
                installation = Installation.up(cluster, binaries, folder / "stack", settings=SETTINGS)
                _, agent = images.build_images(progress)
                docker.load(agent.archive)
                asyncio.run(start.measure(installation, docker, agent.reference, RESULTS, progress))
        finally:
            cluster.remove()
