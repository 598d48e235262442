"""etcd and the API server, and on demand the controllers: a Kubernetes without nodes.

Enough for everything that is about the API. Needs no root as long as it listens on loopback.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import shutil
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from nanoclaw_dev import modules, system
from nanoclaw_dev.cluster import render
from nanoclaw_dev.cluster.api import Api
from nanoclaw_dev.cluster.certificates import Authority, key_pair
from nanoclaw_dev.cluster.instance import Instance
from nanoclaw_dev.cluster.processes import Processes, Program, write_private
from nanoclaw_dev.errors import SetupError
from nanoclaw_dev.progress import Progress, Step

ETCD, API_SERVER = "etcd", "kube-apiserver"
CONTROLLER_MANAGER, SCHEDULER = "kube-controller-manager", "kube-scheduler"

BOOT = 90.0
# Seconds until a component is given up; a quiet machine needs 4 for all of them.
GRACE = 20.0
# Seconds a component has to end in order before it is killed.
API_GRACE = 3.0
# The same for the API server: it would wait for the connections of nodes that are dead, and keeps nothing itself.


@contextlib.contextmanager
def locked(instance: Instance) -> Iterator[None]:
    """One command at a time starts or stops a cluster; the next one waits."""
    while True:
        instance.base.mkdir(parents=True, exist_ok=True)
        with instance.lock.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if os.fstat(lock.fileno()).st_nlink:  # else the cluster was removed meanwhile, and its lock with it
                yield
                return


def binaries() -> render.Binaries:
    """Where the built programs lie. Raises SetupError when they were not built."""
    if not all(module.built() for module in modules.CLUSTER):
        raise SetupError("The cluster's programs are not built: run `make up`, which builds them once a machine.")
    return render.Binaries(kubernetes=modules.KUBERNETES.place(), etcd=modules.ETCD.place())


class ControlPlane:
    """A control plane on `address`. Its state is kept when it stops, and used at the next start.

    As a context manager it runs for the length of the block, and dies with this process.
    """

    def __init__(
        self,
        instance: Instance,
        *,
        address: str = "127.0.0.1",
        controllers: bool = False,
        timing: render.Timing | None = None,
        attached: bool = False,
    ) -> None:
        self.instance, self.address = instance, address
        self.kubeconfig = instance.kubeconfig
        self.processes = Processes(instance.processes, instance.logs, attached=attached)
        self._controllers = controllers
        self._timing = timing or render.Timing()

    def __enter__(self) -> Self:
        self.processes.attached = True
        try:
            self.start(Progress(io.StringIO()))
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def server(self) -> str:
        """The URL of the API, for this machine and for nodes and pods of the cluster."""
        return f"https://{self.address}:{self.instance.api_port}"

    @property
    def api(self) -> Api:
        """The API as the cluster's administrator. Needs the certificates of a started cluster."""
        return Api.administrator(self.instance, self.address)

    @property
    def authority(self) -> Authority:
        return Authority(self.instance.certificates)

    def names(self) -> list[str]:
        """Its programs, in the order in which they start."""
        return [ETCD, API_SERVER, *([CONTROLLER_MANAGER, SCHEDULER] if self._controllers else [])]

    def start(self, progress: Progress) -> None:
        """Start what does not run, and return when the API is ready."""
        with locked(self.instance), progress.step("Starting the control plane") as step:
            self.launch(step)
            self.await_ready(step)

    def stop(self) -> None:
        """Stop everything that runs; no error when nothing does."""
        with locked(self.instance):
            self.halt()

    def remove(self) -> None:
        """Stop, and delete all objects with it."""
        with locked(self.instance):
            self.halt()
            shutil.rmtree(self.instance.folder, ignore_errors=True)
            self.instance.lock.unlink()

    def launch(self, step: Step) -> None:
        """Start the programs without waiting for them; for callers that hold the lock."""
        wanted = self._programs()
        for name in self.names():
            if not self.processes.pid(name):
                self.processes.stop(name)  # one that just died may still hold its port
        system.check_ports(self._ports_to_come())
        for name in (ETCD, API_SERVER):
            step.note(name)
            self.processes.ensure(wanted[name])

    def await_ready(self, step: Step) -> None:
        """Wait for the API, then start the controllers, which would only retry before."""
        step.note("waiting for the API")
        self.processes.wait(self.api.ready, "the API is ready", API_SERVER, seconds=BOOT)
        wanted = self._programs()
        for name in self.names()[2:]:
            self.processes.ensure(wanted[name])

    def halt(self) -> None:
        """Stop the programs, each before what it depends on; for callers that hold the lock."""
        for name in reversed(self.names()):
            self.processes.stop(name, grace=API_GRACE if name == API_SERVER else GRACE)

    def healthy(self) -> bool:
        """Every program runs as wanted and the API is ready."""
        if not self.instance.kubeconfig.exists():
            return False
        wanted = self._programs()
        return all(self.processes.as_wanted(wanted[name]) for name in self.names()) and self.api.ready()

    def _programs(self) -> dict[str, Program]:
        instance, places = self.instance, binaries()
        instance.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        authority = self.authority
        for request in render.requests(instance, self.address):
            authority.issue(request)
        authority.signing_key("tokens")
        write_private(self.kubeconfig, self.kubeconfig_of("admin"))
        instance.etcd_data.mkdir(mode=0o700, exist_ok=True)
        configuration = instance.configuration
        programs = [
            Program(ETCD, render.etcd(instance, places)),
            Program(API_SERVER, render.api_server(instance, places, address=self.address, timing=self._timing)),
            Program(
                CONTROLLER_MANAGER,
                render.controller_manager(instance, places, timing=self._timing),
                {configuration / "controller-manager.kubeconfig": self.kubeconfig_of("controller-manager")},
            ),
            Program(
                SCHEDULER,
                render.scheduler(instance, places),
                {configuration / "scheduler.kubeconfig": self.kubeconfig_of("scheduler")},
            ),
        ]
        return {program.name: program for program in programs}

    def kubeconfig_of(self, certificate: str) -> str:
        """The text of a kubeconfig for the user of a certificate of this cluster."""
        pki = self.instance.certificates
        user = key_pair(pki, certificate)
        return render.kubeconfig(
            self.server,
            authority=key_pair(pki, "authority").certificate.read_bytes(),
            certificate=user.certificate.read_bytes(),
            key=user.key.read_bytes(),
        )

    def _ports_to_come(self) -> list[tuple[str, int]]:
        instance = self.instance
        ports = {
            ETCD: [("127.0.0.1", instance.etcd_port), ("127.0.0.1", instance.etcd_peer_port)],
            API_SERVER: [(self.address, instance.api_port)],
            CONTROLLER_MANAGER: [("127.0.0.1", instance.controller_manager_port)],
            SCHEDULER: [("127.0.0.1", instance.scheduler_port)],
        }
        return [port for name in self.names() if not self.processes.pid(name) for port in ports[name]]
