"""Real network file systems over loopback, each with two clients: what two nodes would have of it.

The kernel here has no client of NFS, SMB, 9p or CephFS; it has FUSE, so these are file systems whose clients are
programs: SFTP (sshfs), GlusterFS and CephFS (ceph-fuse), with their own servers and their usual settings. What is not
installed is left out. Server and clients share this machine, so throughput says little; caching is the clients' own.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

Mounts = tuple[Path, Path]
SETTLE: Final = 60.0
"""Seconds for a server to answer."""

_SFTP_SERVER: Final = Path("/usr/lib/openssh/sftp-server")
_CEPH: Final = """\
[global]
fsid = {fsid}
mon host = {address}:{port}
public addr = {address}
auth cluster required = none
auth service required = none
auth client required = none
osd pool default size = 1
osd pool default min size = 1
mon allow pool size one = true
osd crush chooseleaf type = 0
bluestore block size = 2147483648
osd memory target = 1000000000
mon data avail crit = 1
run dir = {folder}
admin socket = {folder}/$name.$pid.asok
pid file = {folder}/$name.$pid.pid
log file = {folder}/$name.log
mon data = {folder}/mon
osd data = {folder}/osd
mds data = {folder}/mds
mgr data = {folder}/mgr
"""
_CEPH_PORT: Final = 16789
_GLUSTERD: Final = """\
volume management
    type mgmt/glusterd
    option working-directory {folder}/state
    option transport-type socket
    option transport.socket.listen-port {port}
    option run-directory {folder}/run
end-volume
"""


@contextlib.contextmanager
def sftp(folder: Path) -> Iterator[Mounts]:
    """sshfs with its usual cache of folders (20 s) and attributes (1 s); no ssh in between, the protocol is SFTP."""
    served, way = folder / "served", folder / "way"
    served.mkdir()
    way.write_text(f"#!/bin/sh\nexec {_SFTP_SERVER}\n")
    way.chmod(0o755)
    with _mounted(
        folder, lambda place: ["sshfs", "-f", "-o", f"ssh_command={way}", f"host:{served}", str(place)]
    ) as two:
        yield two


@contextlib.contextmanager
def gluster(folder: Path) -> Iterator[Mounts]:
    """One brick; attributes and entries are kept for a second."""
    address, brick = _address(), folder / "brick"
    for each in (brick, folder / "state", folder / "run"):
        each.mkdir()
    settings = folder / "glusterd.vol"
    settings.write_text(_GLUSTERD.format(folder=folder, port=24007))
    log = f"--log-file={folder}/glusterd.log"
    with _running(["glusterd", "-N", "-f", str(settings), log, f"--pid-file={folder}/glusterd.pid"]):
        _until(lambda: _says("gluster", "peer", "status"))
        _say("gluster", "--mode=script", "volume", "create", "bench", f"{address}:{brick}", "force")
        _say("gluster", "--mode=script", "volume", "start", "bench")
        try:
            client = ["glusterfs", "-N", f"--volfile-server={address}", "--volfile-id=bench"]
            with _mounted(folder, lambda place: [*client, f"--log-file={place}.log", str(place)]) as two:
                yield two
        finally:
            _say("gluster", "--mode=script", "volume", "stop", "bench", "force")


@contextlib.contextmanager
def ceph(folder: Path) -> Iterator[Mounts]:
    """One server of each kind; clients hold what they are granted until the metadata server calls it back."""
    settings, address, name = folder / "ceph.conf", _address(), str(uuid.uuid4())
    settings.write_text(_CEPH.format(folder=folder, fsid=name, address=address, port=_CEPH_PORT))
    for each in ("mon", "osd", "mds", "mgr"):
        (folder / each).mkdir()
    conf = ("-c", str(settings))
    monitors = str(folder / "monmap")
    _say("monmaptool", "--create", "--addv", "a", f"[v1:{address}:{_CEPH_PORT}]", "--fsid", name, monitors)
    _say("ceph-mon", *conf, "--mkfs", "-i", "a", "--monmap", monitors)
    with contextlib.ExitStack() as servers:
        servers.enter_context(_running(["ceph-mon", *conf, "-f", "-i", "a"]))
        _until(lambda: _says("ceph", *conf, "status"))
        servers.enter_context(_running(["ceph-mgr", *conf, "-f", "-i", "x"]))
        disk = str(uuid.uuid4())
        _say("ceph", *conf, "osd", "new", disk)
        _say("ceph-osd", *conf, "-i", "0", "--mkfs", "--osd-uuid", disk)
        servers.enter_context(_running(["ceph-osd", *conf, "-f", "-i", "0"]))
        servers.enter_context(_running(["ceph-mds", *conf, "-f", "-i", "a"]))
        for pool in ("meta", "data"):
            _say("ceph", *conf, "osd", "pool", "create", pool, "8")
        _say("ceph", *conf, "fs", "new", "bench", "meta", "data")
        _until(lambda: _says("ceph", *conf, "mds", "stat", wanted="up:active"))
        two = servers.enter_context(_mounted(folder, lambda place: ["ceph-fuse", *conf, "-f", str(place)]))
        yield two


KINDS: Final[dict[str, tuple[Callable[[Path], contextlib.AbstractContextManager[Mounts]], tuple[str, ...]]]] = {
    "SFTP (sshfs)": (sftp, ("sshfs", str(_SFTP_SERVER))),
    "GlusterFS": (gluster, ("glusterd", "glusterfs", "gluster")),
    "CephFS (ceph-fuse)": (ceph, ("ceph-mon", "ceph-mgr", "ceph-osd", "ceph-mds", "ceph-fuse", "ceph")),
}
"""By name: how it is run, and the programs it takes."""


def missing(programs: Sequence[str]) -> list[str]:
    return [each for each in programs if shutil.which(each) is None]


@contextlib.contextmanager
def _mounted(folder: Path, client: Callable[[Path], list[str]]) -> Iterator[Mounts]:
    """Two clients, each a process of ours, that both see the same files."""
    places = (folder / "first", folder / "second")
    with contextlib.ExitStack() as stack:
        for place in places:
            place.mkdir()
            stack.enter_context(_running(client(place)))
            stack.callback(subprocess.run, ["umount", "--lazy", str(place)], check=False)
            _until(place.is_mount)
        yield places


@contextlib.contextmanager
def _running(command: list[str]) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _address() -> str:
    """Of this machine; GlusterFS takes no loopback address."""
    return _answer("hostname", "-I").split()[0]


def _say(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=SETTLE, env=os.environ)


def _says(*command: str, wanted: str = "") -> bool:
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=SETTLE)
    return done.returncode == 0 and wanted in done.stdout


def _answer(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=SETTLE).stdout


def _until(done: Callable[[], bool]) -> None:
    until = time.monotonic() + SETTLE
    while not done():
        if time.monotonic() > until:
            raise TimeoutError(f"not there after {SETTLE:.0f} s")
        time.sleep(0.2)
