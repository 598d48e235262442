"""One node: a machine of its own, the programs that make it a node, and what may befall it.

What lies in the node's folder (images, pod logs) survives a power loss and is used at the next
start. containerd, kubelet and kube-proxy run on the machine but are started from outside, so each
of them can be restarted without touching the node's pods. Nobody but `Cluster.start` and `power_on`
brings back what was switched off or killed.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import IO

from nanoclaw_dev import system
from nanoclaw_dev.cluster import archive, membership, network, processes, render
from nanoclaw_dev.cluster.control_plane import API_SERVER, BOOT, ControlPlane, binaries
from nanoclaw_dev.cluster.machine import Machine, inside
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
        self._machine = Machine(self.place, self._processes)
        self._timing = timing

    def boot(self) -> None:
        """Start what does not run, without waiting for the API; needs the bridge.

        Returns when containers could be started. `join` makes it a node of the cluster.
        """
        if self.init() is None:
            self._halt()
            self._machine.on()
        network.plug_in(self.place)
        self._processes.ensure(self._containerd(self._machine.running_init()))
        self._processes.wait(
            self._containerd_answers, "containers can be started", self._named("containerd"), seconds=BOOT
        )
        self._import_pause_image()

    def join(self) -> None:
        """Start the programs that talk to the API, which should be ready by now."""
        for program in self._agents(self._machine.running_init()):
            self._processes.ensure(program)

    def power_on(self) -> None:
        """Start what does not run, and return when the API calls the node ready."""
        self.boot()
        self.join()
        self.await_state(ready=True)

    def power_off(self) -> None:
        """Kill the node with everything on it, as if its power cord was pulled. No error when it is off."""
        self._halt()

    def kill_agents(self) -> None:
        """Kill kubelet and containerd; containers live on, and nobody watches them. `power_on` starts both."""
        for part in ("kubelet", "containerd"):
            outer = self._processes.pid(self._named(part))
            for pid in [*processes.children(outer), outer] if outer else []:
                processes.kill(pid)

    def partition(self) -> None:
        """Cut the node off from the API, the other nodes and us; what runs on it runs on."""
        network.cut(self.place)

    def heal(self) -> None:
        """End a partition."""
        network.plug_in(self.place)

    def out_of_service(self) -> None:
        """Say, as an operator does who knows that the node is off, that its pods are gone."""
        membership.out_of_service(self._control_plane.api, self.name)

    def in_service(self) -> None:
        """Let pods come to the node again."""
        membership.in_service(self._control_plane.api, self.name)

    def await_state(self, *, ready: bool, seconds: float = BOOT) -> None:
        """Return when the API calls the node ready, or no longer. Raises SetupError when time is up."""
        state = "ready" if ready else "not ready"
        watched = self._named("kubelet") if ready else API_SERVER
        self._processes.wait(lambda: self.ready() is ready, f"{self.name} is {state}", watched, seconds=seconds)

    def await_open(self, *, seconds: float = BOOT) -> None:
        """Return when Kubernetes sends pods to the node, which is soon after it is ready."""
        api = self._control_plane.api
        self._processes.wait(
            lambda: not membership.troubled(api, self.name), f"{self.name} takes pods", API_SERVER, seconds=seconds
        )

    def ready(self) -> bool | None:
        """Whether the API calls the node ready, and does so since its kubelet was started; None if it is silent."""
        return membership.ready(self._control_plane.api, self.name, since=self.started() or 0.0)

    def healthy(self) -> bool:
        """Its programs run as wanted and its cable is in. Whether the API calls it ready is another question."""
        init = self.init()
        if init is None or not network.plugged_in(self.place):
            return False
        return all(map(self._processes.as_wanted, [self._containerd(init), *self._agents(init)]))

    def init(self) -> int | None:
        """The PID 1 of the node, by its number on this machine; None while the node is off or not furnished."""
        return self._machine.init()

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

    def _halt(self) -> None:
        self._machine.off()
        for part in ("kubelet", "kube-proxy", "containerd"):
            self._processes.stop(self._named(part))

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
        """The command on the node; it dies with the process on this side that is watched."""
        return (*inside(init), "setpriv", "--pdeathsig", "KILL", "--", *command)

    def _containerd_answers(self) -> bool:
        command = [*inside(self._machine.running_init()), "ctr", "--connect-timeout", "1s", "version"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def _ctr(self, *arguments: str, content: IO[bytes] | None = None) -> str:
        command = [*inside(self._machine.running_init()), "ctr", "--namespace", "k8s.io", *arguments]
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
