"""What storages are good for: `nanoclaw bench storage` on a cluster of three nodes, and the same measuring over real
network file systems on loopback.

The baseline, the node's plain disk, is measured in the same run, in turn with each claim (`storage_probe`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from bench import network_files, table
from nanoclaw_dev import images
from nanoclaw_dev.cluster.cluster import Cluster
from nanoclaw_dev.cluster.instance import Instance
from nanoclaw_dev.cluster.render import DETACHABLE_CLASS, STORAGE_CLASS
from nanoclaw_dev.progress import Progress
from nanoclaw_runtime.domain.storage_advice import RWO, RWX, SEEN, Measured, What, Where, advise

NAMESPACE: Final = "storage-bench"
ROUNDS: Final = 200
SECONDS: Final = 20
"""After which each part ends; what caches for long gives few figures."""

_COMMAND: Final = (sys.executable, "-c", "from nanoclaw_runtime.cli import main; main()")
_PROBE: Final = (sys.executable, "-m", "nanoclaw_runtime.storage_probe")
_HEAD: Final = "| {question} | storage | n | median | p99 | least | most |\n|---|---|--:|--:|--:|--:|--:|"
_WHERE: Final = {
    Where.PLAIN: "plain disk",
    Where.CLAIM: "{name}",
    Where.SAME_NODE: "{name}, same node",
    Where.OTHER_NODE: "{name}, other node",
}


_ABOUT: Final = """\
`nanoclaw bench storage`; [storage.md](../../docs/storage.md) tells how it measures and what the rows mean. `local` are
volumes of the embedded cluster: folders of one machine's disk, on three nodes. The network file systems are real ones
over loopback, with a client for each of two nodes; this kernel has no client of NFS or SMB, nor its own of CephFS. The
three of them are measured at the same time. With fewer than 100 figures p99 is the largest."""


@dataclass(frozen=True)
class Storage:
    """One storage and what was found of it."""

    name: str
    modes: Sequence[str]
    measured: Sequence[Measured]


def measure(results: Path, progress: Progress) -> None:
    """Everything that runs here, on a cluster of its own; writes `storage.md`."""
    about = table.machine()
    with tempfile.TemporaryDirectory(prefix="nanoclaw-bench-") as scratch:
        cluster = Cluster(Instance(f"storage-{os.getpid()}", Path(scratch)), nodes=3)
        try:
            with cluster:
                found = _claims(cluster, progress)
        finally:
            cluster.remove()
    text = _report(about, [*found, *_networks(progress)])
    table.write(results / "storage.md", text)
    progress.say(text)


def _claims(cluster: Cluster, progress: Progress) -> list[Storage]:
    runtime, _ = images.build_images(progress)
    cluster.import_image(runtime.archive)
    place = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    cluster.control_plane.api.create("/api/v1/namespaces", place)
    found = []
    for name, mode in ((STORAGE_CLASS, RWX), (DETACHABLE_CLASS, RWO)):
        with progress.step(f"Measuring claims of {name}, {mode}"):
            told = _told(cluster, ["--class", name, "--mode", mode, "--image", runtime.reference])
            measured = [msgspec.convert(each, Measured) for each in told["measured"]]
            found.append(Storage(f"local {mode}", [mode], measured))
    return found


def _told(cluster: Cluster, line: list[str]) -> Any:
    words = ["bench", "storage", "-o", "json", "-n", NAMESPACE, "--kubeconfig", str(cluster.kubeconfig)]
    limits = ["--rounds", str(ROUNDS), "--seconds", str(SECONDS)]
    done = subprocess.run([*_COMMAND, *words, *limits, *line], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def _networks(progress: Progress) -> list[Storage]:
    """All at the same time: what caches is waited for most of it."""
    with progress.step("Measuring network file systems"), ThreadPoolExecutor() as pool:
        found = list(pool.map(_network, network_files.KINDS))
    for each in found:
        if isinstance(each, str):
            progress.say(each)
    return [each for each in found if isinstance(each, Storage)]


def _network(name: str) -> Storage | str:
    """What was found, or why nothing was."""
    served, programs = network_files.KINDS[name]
    if missing := network_files.missing(programs):
        return f"{name} is left out: not installed: {', '.join(missing)}"
    with tempfile.TemporaryDirectory(prefix="nanoclaw-net-") as scratch:
        plain, place = Path(scratch) / "plain", Path(scratch) / "net"
        plain.mkdir()
        place.mkdir()
        try:
            with served(place) as (first, second):
                return Storage(name, [RWX], _between(first, second, plain))
        except (subprocess.SubprocessError, TimeoutError) as error:
            return f"{name} is left out: {error}"


def _between(first: Path, second: Path, plain: Path) -> list[Measured]:
    """Two clients of one file system, as pods of two nodes."""
    limits = ("--rounds", str(ROUNDS), "--seconds", str(SECONDS), "--pair", "far")
    answers = subprocess.Popen([*_PROBE, "answer", "--folder", str(second / "run"), *limits])
    try:
        asked = [*_PROBE, "measure", "--folder", str(first / "run"), "--plain", str(plain), *limits]
        said = subprocess.run(asked, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
    finally:
        answers.terminate()
        answers.wait()
    return [msgspec.convert(each["measured"], Measured) for each in map(json.loads, said) if "measured" in each]


def _report(about: str, found: Sequence[Storage]) -> str:
    own = [what for what in What if what not in SEEN and not what.is_rate]
    rates = [what for what in What if what.is_rate]
    return "\n\n".join(
        (
            "# Storage, as agents use it",
            about,
            _ABOUT,
            "## Until another pod sees it, ms\n\n" + _table("change", SEEN, found, 1e3),
            "## One operation, ms\n\n" + _table("operation", own, found, 1e3),
            "## Much at once, MB/s\n\np99 is what 99 of 100 reach. Server, client and disk share one machine.\n\n"
            + _table("way", rates, found, 1e-6),
            "## What is recommended\n\n" + "\n\n".join(_advice(each) for each in found),
        )
    )


def _table(question: str, whats: Sequence[What], found: Sequence[Storage], scale: float) -> str:
    rows = [
        _row(storage, each, scale)
        for what in whats
        for number, storage in enumerate(found)
        for each in storage.measured
        if each.what is what and (each.where is not Where.PLAIN or number == 0)
    ]
    return "\n".join([_HEAD.format(question=question), *rows])


def _row(storage: Storage, each: Measured, scale: float) -> str:
    numbers = [f"{value * scale:,.3g}" if value * scale < 100 else f"{value * scale:,.0f}" for value in
               (each.p50, each.p99, each.least, each.most)]  # fmt: skip
    if each.missed:
        numbers[-1] = f"never in {numbers[-1]}"
    where = _WHERE[each.where].format(name=storage.name)
    question = each.what.value.replace(", seen", "", 1)
    return f"| {question} | {where} | {each.count} | {' | '.join(numbers)} |"


def _advice(storage: Storage) -> str:
    said = [f"- {each.subject}: **{each.choice}**: {each.because}" for each in advise(storage.measured, storage.modes)]
    return "\n".join([f"**{storage.name}**", "", *said])
