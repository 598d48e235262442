"""The machine a node is: namespaces with a PID 1 of their own, a cable, a cgroup, a closed packet filter.

Killing that PID 1 is a power loss: pods, mounts, network namespace, cable and packet filter rules
go with it. PID 1 only reaps; what runs on the machine is started from outside, by others.
"""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path

from nanoclaw_dev import system
from nanoclaw_dev.cluster import cgroups, network, packet_filter, processes, render
from nanoclaw_dev.cluster.control_plane import BOOT
from nanoclaw_dev.cluster.instance import NodePlace
from nanoclaw_dev.cluster.processes import Processes, Program, write_private
from nanoclaw_dev.errors import SetupError


class Machine:
    """The machine at a place, on or off."""

    def __init__(self, place: NodePlace, started: Processes) -> None:
        self._place, self._processes = place, started
        self._name = f"{place.name}-init"

    def init(self) -> int | None:
        """The PID 1, by its number on the host; None while the machine is off or not furnished."""
        init = self._init()
        return init if init is not None and self._prepared(init) else None

    def running_init(self) -> int:
        """The PID 1. Raises SetupError when the machine is off."""
        init = self._init()
        if init is None:
            raise SetupError(f"The node {self._place.name} is off; {self._processes.explain(self._name)}.")
        return init

    def off(self) -> None:
        """Kill the machine with everything on it, as if its power cord was pulled. No error when it is off."""
        init = self._init()
        if init is not None:
            processes.kill(init)
        self._processes.stop(self._name)
        network.unplug(self._place)
        cgroups.remove(self._place.cgroup)

    def on(self) -> None:
        """New namespaces, furnished and connected; for a machine that is off. Needs no bridge yet."""
        self._make_folders()
        cgroups.create(self._place.cgroup)
        self._processes.ensure(self._program())
        self._processes.wait(self._unshared, "the node has namespaces", self._name, seconds=BOOT)
        init = self.running_init()
        packet_filter.load(init, packet_filter.render(self._place.pod_network, packet_filter.CLOSED))
        network.connect(self._place, init)
        script = render.node_script(self._place)
        result = subprocess.run([*inside(init), "sh", "-s"], input=script, capture_output=True, text=True, check=False)
        if result.returncode:
            raise SetupError(f"The node {self._place.name} cannot be set up: {result.stderr.strip()[-300:]}.")

    def _make_folders(self) -> None:
        place = self._place
        for folder in (
            *render.private_folders(place).values(),
            place.containerd,
            place.network_plugins,
            place.network_records,
        ):
            folder.mkdir(parents=True, exist_ok=True)
        for record in place.network_records.iterdir():
            record.unlink()  # the pods went with the power, and their addresses are given out anew
        for name, value in render.KERNEL_SETTINGS.items():
            write_private(place.folder / "kernel" / name, value + "\n")

    def _program(self) -> Program:
        return Program(
            self._name,
            (
                *("unshare", "--net", "--mount", "--propagation", "private", "--uts", "--ipc", "--pid"),
                *("--fork", "--kill-child", "--mount-proc"),
                *("--", str(system.required("catatonit")), "-P"),
            ),
        )

    def _init(self) -> int | None:
        """The PID 1, furnished or not."""
        parent = self._processes.pid(self._name)
        return next(iter(processes.children(parent)), None) if parent else None

    def _unshared(self) -> bool:
        """PID 1 is the reaper itself, hence all namespaces are made and /proc is mounted."""
        init = self._init()
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ended just now, and its parent says why
            return init is not None and Path(f"/proc/{init}/comm").read_text().strip() == "catatonit"
        return False

    def _prepared(self, init: int) -> bool:
        return Path(f"/proc/{init}/root{render.NODE_PREPARED}").exists()


def inside(init: int) -> tuple[str, ...]:
    """What to put before a command that is to run on the machine whose PID 1 is given."""
    return ("nsenter", f"--target={init}", "--net", "--mount", "--uts", "--ipc", "--pid", "--")
