"""What this machine must have: Debian packages, root, cgroups, free ports, disk space, inotify instances.

Packages are found by the file they bring, so a machine that has containerd from elsewhere is
fine. Every check raises `SetupError` before any work starts; none of them changes anything.
Only `install_missing` does, and it says beforehand what.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from nanoclaw_dev.errors import SetupError
from nanoclaw_dev.progress import Progress

CLUSTER_PACKAGES: Mapping[str, str] = {
    "containerd": "containerd",
    "runc": "runc",
    "containernetworking-plugins": "ptp",
    "catatonit": "catatonit",
    "busybox-static": "busybox",
    "nftables": "nft",
    "iproute2": "ip",
    "conntrack": "conntrack",
    "util-linux": "nsenter",
}
"""What the embedded cluster runs on: Debian package → a program in it."""

IMAGE_PACKAGES: Mapping[str, str] = {"buildah": "buildah", "mmdebstrap": "mmdebstrap"}
"""What building the images needs."""

DOCKER_PACKAGES: Mapping[str, str] = {"docker.io": "dockerd"}
"""A Docker engine of one's own."""

SERVICES: Mapping[str, tuple[str, ...]] = {
    "containerd": ("containerd.service",),
    "docker.io": ("docker.socket", "docker.service"),
}
"""What packages start that we run ourselves."""

INOTIFY_LIMIT = Path("/proc/sys/fs/inotify/max_user_instances")

SEARCHED = ("/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/lib/cni", "/opt/cni/bin")
# Besides PATH: administrators' programs are not on everybody's, and CNI plugins on nobody's.

CLUSTER_SPACE = 4 * 1024**3
# Bytes. A node with the project's images takes 1.5 GB; the kubelet evicts pods long before zero.


def program(name: str) -> Path | None:
    """The full path of a program, or None."""
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *SEARCHED]))
    return Path(found) if found else None


def required(name: str) -> Path:
    """The full path of a program the cluster runs on. Raises SetupError naming its package."""
    found = program(name)
    if found is None:
        package = next((package for package, brings in CLUSTER_PACKAGES.items() if brings == name), name)
        raise SetupError(f"The program {name} is missing: install it with `apt-get install {package}`.")
    return found


def missing(packages: Mapping[str, str]) -> list[str]:
    """The packages whose program is not on this machine."""
    return [package for package, brings in packages.items() if program(brings) is None]


def install_missing(packages: Mapping[str, str], progress: Progress) -> None:
    """Install what is missing, as root on Debian or Ubuntu.

    Services that such a package starts (containerd, docker) are stopped and disabled again: we run
    our own. Raises SetupError with the command to run where it may not or cannot install.
    """
    wanted = missing(packages)
    if not wanted:
        return
    command = f"apt-get install {' '.join(wanted)}"
    if shutil.which("apt-get") is None:
        raise SetupError(f"These programs are missing and this is no Debian or Ubuntu: install {' '.join(wanted)}.")
    if os.geteuid() != 0:
        raise SetupError(f"System packages are missing and only root may install them: run `sudo {command}`.")
    with progress.step(f"Installing system packages: {' '.join(wanted)}") as step:
        if any(_run("apt-cache", "show", package).returncode for package in wanted):
            step.note("updating the package lists")
            _run("apt-get", "update")
        result = _install(wanted)
        if result.returncode:
            step.note("updating the package lists")
            _run("apt-get", "update")
            result = _install(wanted)
        if result.returncode:
            raise SetupError(f"`{command}` failed: {result.stderr.strip()[-300:]}.")
        if Path("/run/systemd/system").is_dir():
            for package in SERVICES.keys() & set(wanted):
                _run("systemctl", "disable", "--now", *SERVICES[package])
    if still := missing({package: packages[package] for package in wanted}):
        raise SetupError(f"The packages {' '.join(still)} are installed but bring not what is needed: see `{command}`.")


def _install(packages: list[str]) -> subprocess.CompletedProcess[str]:
    waiting = "DPkg::Lock::Timeout=300"  # another apt may be at work; seconds
    return _run("apt-get", "install", "--yes", "--no-install-recommends", "-o", waiting, *packages)


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    # RUNLEVEL=1 keeps invoke-rc.d from starting services.
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def check_linux() -> None:
    if sys.platform != "linux":
        raise SetupError(
            f"The embedded cluster needs Linux and this is {sys.platform}: name another cluster in the stack."
        )


def check_root() -> None:
    check_linux()
    if os.geteuid() != 0:
        raise SetupError("The embedded cluster needs root: run the command as root, or name a cluster in the stack.")


def check_ports(ports: Iterable[tuple[str, int]]) -> None:
    """Each (address, port) can be listened on, as far as one can know beforehand."""
    for address, port in ports:
        with contextlib.closing(socket.socket()) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((address, port))
            except OSError as error:
                raise SetupError(
                    f"Port {port} on {address} cannot be used ({error.strerror}): stop what listens there, or set "
                    "NANOCLAW_INSTANCE to another name, from which other ports follow."
                ) from None


def check_space(folder: Path, needed: int = CLUSTER_SPACE) -> None:
    """`folder`, or the nearest one above it that exists, has `needed` bytes free."""
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise SetupError(
            f"The cluster needs {needed / 1024**3:.0f} GB of free disk space and {folder} has {free / 1024**3:.1f} GB: "
            "free some, or set NANOCLAW_STATE to a folder on a larger disk."
        )


def check_inotify(needed: int) -> None:
    """So many inotify instances can be made: what runs short of them later fails with words nobody understands.

    They are made, because nothing tells how many a user has, and closed again.
    """
    make = ctypes.CDLL(None).inotify_init1
    with contextlib.ExitStack() as made:
        for free in range(needed):
            instance = make(os.O_CLOEXEC)
            if instance < 0:
                raise SetupError(
                    f"The cluster needs {needed} inotify instances and {free} are left of the "
                    f"{INOTIFY_LIMIT.read_text().strip()} one user may have: stop another cluster, or run "
                    "`sysctl -w fs.inotify.max_user_instances=1024`."
                )
            made.callback(os.close, instance)
