"""One node: namespaces of its own with their own PID 1, and the node's programs inside.

Killing that PID 1 is a power loss: pods, mounts, network namespace, cable and packet filter rules
go with it. What lies in the node's folder (images, pod logs) stays and is used at the next start.
PID 1 only reaps; containerd, kubelet and kube-proxy are started from outside, so each of them can
be restarted without touching the node's pods.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import IO

from nanoclaw_dev import system
from nanoclaw_dev.cluster import archive, cgroups, network, packet_filter, processes, render
from nanoclaw_dev.cluster.control_plane import BOOT, ControlPlane, binaries
from nanoclaw_dev.cluster.processes import Program, write_private
from nanoclaw_dev.errors import SetupError


class Node:
    """Node `index` of the cluster whose control plane is given."""

    def __init__(self, control_plane: ControlPlane, index: int, *, timing: render.Timing) -> None:
        self.place = control_plane.instance.node(index)
        self.name = self.place.name
        self.kubeconfig = self.place.kubeconfig
        self._control_plane = control_plane
        self._processes = control_plane.processes
        self._timing = timing

    def power_on(self) -> None:
        """Start what does not run, without waiting for the API; needs the bridge.

        Returns when containers could be started. `join` makes it a node of the cluster.
        """
        init = self.init()
        if init is None:
            self.power_off()
            init = self._boot()
        network.plug_in(self.place)
        self._processes.ensure(self._containerd(init))
        self._processes.wait(
            self._containerd_answers, "containers can be started", self._named("containerd"), seconds=BOOT
        )
        self._import_pause_image()

    def join(self) -> None:
        """Start the programs that talk to the API, which should be ready by now."""
        for program in self._agents(self._running_init()):
            self._processes.ensure(program)

    def power_off(self) -> None:
        """Kill the node with everything on it, as if the cable was pulled. No error when it is off."""
        init = self._init()
        if init is not None:
            processes.kill(init)
        for part in ("kubelet", "kube-proxy", "containerd", "init"):
            self._processes.stop(self._named(part))
        network.unplug(self.place)
        cgroups.remove(self.place.cgroup)

    def healthy(self) -> bool:
        """Its programs run as wanted. Whether the API calls it ready is the cluster's question."""
        init = self.init()
        if init is None:
            return False
        return all(map(self._processes.as_wanted, [self._containerd(init), *self._agents(init)]))

    def started(self) -> float | None:
        """When the kubelet was started, in seconds since 1970; None when it does not run."""
        return self._processes.started(self._named("kubelet"))

    def import_image(self, file: Path) -> bool:
        """Give the node the images in an archive (docker-archive). False when it has them already."""
        record = self.place.folder / "images.json"
        known = json.loads(record.read_text()) if record.exists() else {}
        wanted = archive.identity(file)
        present = set(self._ctr("images", "list", "--quiet").split())
        if all(known.get(tag) == digest and tag in present for tag, digest in wanted.items()):
            return False
        with file.open("rb") as content:
            self._ctr("images", "import", "-", content=content)
        write_private(record, json.dumps({**known, **wanted}))
        return True

    def _boot(self) -> int:
        """New namespaces, furnished and connected. Returns the process id of their PID 1."""
        place = self.place
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
        cgroups.create(place.cgroup)
        program = Program(
            self._named("init"),
            (
                *("unshare", "--net", "--mount", "--propagation", "private", "--uts", "--ipc", "--pid"),
                *("--fork", "--kill-child", "--mount-proc"),
                *("--", str(system.required("catatonit")), "-P"),
            ),
        )
        self._processes.ensure(program)
        self._processes.wait(self._unshared, "the node has namespaces", program.name, seconds=BOOT)
        init = self._running_init()
        packet_filter.load(init, packet_filter.render(place.pod_network, packet_filter.CLOSED))
        network.connect(place, init)
        result = subprocess.run(
            [*_inside(init), "sh", "-s"], input=render.node_script(place), capture_output=True, text=True, check=False
        )
        if result.returncode:
            raise SetupError(f"The node {self.name} cannot be set up: {result.stderr.strip()[-300:]}.")
        return init

    def init(self) -> int | None:
        """The PID 1 of the node, by its number on this machine; None while the node is off or not furnished."""
        init = self._init()
        return init if init is not None and self._prepared(init) else None

    def _init(self) -> int | None:
        """The node's PID 1, furnished or not."""
        parent = self._processes.pid(self._named("init"))
        if parent is None:
            return None
        try:
            children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return int(children[0]) if children else None

    def _running_init(self) -> int:
        init = self._init()
        if init is None:
            raise SetupError(f"The node {self.name} is off; {self._processes.explain(self._named('init'))}.")
        return init

    def _unshared(self) -> bool:
        """PID 1 is the reaper itself, hence all namespaces are made and /proc is mounted."""
        init = self._init()
        return init is not None and Path(f"/proc/{init}/comm").read_text().strip() == "catatonit"

    def _prepared(self, init: int) -> bool:
        return Path(f"/proc/{init}/root{render.NODE_PREPARED}").exists()

    def _named(self, part: str) -> str:
        return f"{self.name}-{part}"

    def _containerd(self, init: int) -> Program:
        place = self.place
        plugins = system.required("ptp").parent
        command = render.containerd(place, system.required("containerd"))
        return Program(
            self._named("containerd"),
            self._watched(init, command),
            {
                place.folder / "containerd.toml": render.containerd_configuration(place, plugins),
                place.network_plugins / "10-pods.conflist": render.network_list(place),
            },
        )

    def _agents(self, init: int) -> list[Program]:
        place, programs, control_plane = self.place, binaries(), self._control_plane
        control_plane.authority.issue(render.node_request(place))
        kubelet = Program(
            self._named("kubelet"),
            self._watched(init, render.kubelet(place, programs)),
            {
                place.folder / "kubelet.json": render.kubelet_configuration(place, timing=self._timing),
                place.folder / "resolv.conf": render.resolver(place.instance),
                place.kubeconfig: control_plane.kubeconfig_of(place.name),
            },
        )
        proxy = Program(
            self._named("kube-proxy"),
            self._watched(init, render.proxy(place, programs)),
            {
                place.folder / "kube-proxy.json": render.proxy_configuration(place),
                place.folder / "kube-proxy.kubeconfig": control_plane.kubeconfig_of("kube-proxy"),
            },
        )
        return [proxy, kubelet]

    def _watched(self, init: int, command: tuple[str, ...]) -> tuple[str, ...]:
        """The command inside the node; it dies with the process on this side that is watched."""
        return (*_inside(init), "setpriv", "--pdeathsig", "KILL", "--", *command)

    def _containerd_answers(self) -> bool:
        command = [*_inside(self._running_init()), "ctr", "--connect-timeout", "1s", "version"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def _ctr(self, *arguments: str, content: IO[bytes] | None = None) -> str:
        command = [*_inside(self._running_init()), "ctr", "--namespace", "k8s.io", *arguments]
        result = subprocess.run(command, stdin=content or subprocess.DEVNULL, capture_output=True, check=False)
        if result.returncode:
            raise SetupError(
                f"`ctr {' '.join(arguments)}` failed on {self.name}: {result.stderr.decode(errors='replace')[-300:]}."
            )
        return result.stdout.decode()

    def _import_pause_image(self) -> None:
        """The container every pod begins with: Debian's static `catatonit`, which only waits and reaps."""
        program = system.required("catatonit").read_bytes()
        file = archive.write_image(
            self.place.folder / "pause.tar",
            render.PAUSE_IMAGE,
            files={"/catatonit": program},
            entrypoint=("/catatonit", "-P"),
        )
        self.import_image(file)


def _inside(init: int) -> tuple[str, ...]:
    return ("nsenter", f"--target={init}", "--net", "--mount", "--uts", "--ipc", "--pid", "--")
