"""The folders of the cgroup tree that belong to a cluster.

Version 1 (one tree a controller) is what this was run on. Version 2 (one tree) follows its
documentation but was not tried: controllers are switched on from the root down to the folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nanoclaw_dev.cluster.processes import POLL
from nanoclaw_dev.errors import SetupError

NEEDED = frozenset({"cpu", "cpuset", "memory", "pids"})
# Controllers without which a kubelet does not start.
UNIFIED = Path("/sys/fs/cgroup")
EMPTY_AFTER = 60.0
# Seconds the kernel may take to let go of a folder whose processes were killed.


@dataclass(frozen=True)
class Hierarchies:
    """Where the cgroup trees of this machine are mounted."""

    version: int
    roots: tuple[Path, ...]
    controllers: frozenset[str]


def hierarchies() -> Hierarchies:
    """The trees of this machine, usable or not."""
    listed = UNIFIED / "cgroup.controllers"
    if listed.exists():
        return Hierarchies(2, (UNIFIED,), frozenset(listed.read_text().split()))
    return version_1(Path("/proc/self/mountinfo").read_text())


def check_controllers(found: Hierarchies) -> None:
    """Raises SetupError when a kubelet would not start with these."""
    if lacking := NEEDED - found.controllers:
        raise SetupError(
            f"The kernel offers no cgroup controller {', '.join(sorted(lacking))} below {UNIFIED}: mount it, or, in a "
            "container, start that container with the machine's cgroups."
        )


def version_1(mount_information: str) -> Hierarchies:
    """The trees in the text of /proc/self/mountinfo, each once."""
    roots, controllers = dict[Path, None](), set[str]()
    for line in mount_information.splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        place = Path(before.split(" ")[4])
        # A unified tree beside those of version 1 has no controllers, but containers get folders in it.
        if kind in {"cgroup", "cgroup2"} and place.is_relative_to(UNIFIED):
            roots[place] = None
            controllers.update(options.split(","))
    return Hierarchies(1, tuple(roots), frozenset(controllers))


def create(cgroup: str) -> None:
    """Make the folder `cgroup`, such as `/nanoclaw/local/node-1`, in every tree."""
    trees = hierarchies()
    for root in trees.roots:
        with _alone(root):
            _create(trees, root, cgroup)


def _create(trees: Hierarchies, root: Path, cgroup: str) -> None:
    folder = root
    for part in cgroup.strip("/").split("/"):
        if trees.version == 2:
            _pass_on(folder, trees.controllers)
        parent, folder = folder, folder / part
        folder.mkdir(exist_ok=True)
        for name in ("cpuset.cpus", "cpuset.mems"):
            # A new cpuset of version 1 has neither, and no process can enter it.
            if trees.version == 1 and (folder / name).exists() and not (folder / name).read_text().strip():
                (folder / name).write_text((parent / name).read_text())


@contextlib.contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Clusters share the folder above theirs: none removes it as empty while another makes its own in it."""
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _pass_on(folder: Path, controllers: frozenset[str]) -> None:
    wanted = " ".join(f"+{name}" for name in sorted(controllers))
    try:
        (folder / "cgroup.subtree_control").write_text(wanted)
    except OSError as error:
        raise SetupError(
            f"The cgroup controllers cannot be passed on below {folder} ({error.strerror}): run on the machine itself, "
            "or in a container that shares its cgroup namespace."
        ) from None


def remove(cgroup: str) -> None:
    """Remove the folder and what is below it from every tree, and parents that became empty.

    Only empty folders go: a process in one keeps it, and is a SetupError after some seconds.
    """
    for root in hierarchies().roots:
        top = root / cgroup.strip("/")
        if not top.is_dir():
            continue
        end = time.monotonic() + EMPTY_AFTER
        while not _removed(top):
            if time.monotonic() > end:
                raise SetupError(f"The cgroup {top} still has processes: end them and run the command again.")
            time.sleep(POLL)
        with _alone(root):
            for parent in top.parents:
                if parent == root:
                    break
                with contextlib.suppress(OSError):  # another cluster of ours is in it
                    parent.rmdir()


def _removed(top: Path) -> bool:
    for folder in sorted((path for path in top.rglob("*") if path.is_dir()), reverse=True):
        with contextlib.suppress(OSError):
            folder.rmdir()
    with contextlib.suppress(FileNotFoundError, OSError):
        top.rmdir()
    return not top.exists()
