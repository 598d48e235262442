"""Where an installation runs, and what may befall it there."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Protocol

from nanoclaw_dev.cluster import cgroups
from nanoclaw_dev.cluster.cluster import Cluster
from nanoclaw_dev.trial import Installation
from nanoclaw_runtime.cli.installation import Target
from nanoclaw_runtime.cli.remote import Remote
from nanoclaw_runtime.contract import labels, names
from nanoclaw_runtime.kube.client import KubeClient
from nanoclaw_runtime.kube.resources import CLAIMS, PODS, Resource
from nanoclaw_runtime.manifests.pod import CONTAINER
from tests.support.docker_host import DockerHost

NODES = Resource("Node", "nodes", namespaced=False)
LOOK = 0.2


class NotHere(Exception):
    """This cannot befall the installation here; the text says why."""


class Place(Protocol):
    """A running installation. `group` names the one whose controller is meant, where there are several."""

    def remote(self) -> contextlib.AbstractAsyncContextManager[Remote]: ...

    async def kill_agent(self, session: str) -> None:
        """SIGKILL, as for want of memory."""
        ...

    async def kill_controller(self, group: str) -> None:
        """SIGKILL; it is started again by whoever does that here."""
        ...

    async def replace_controller(self, group: str) -> None:
        """As an update does: it is told to end, and another one begins."""
        ...

    def apart(self) -> contextlib.AbstractAsyncContextManager[None]:
        """Inside, agents start on other nodes than the controller's. Raises NotHere."""
        ...

    def without_node_of(self, session: str) -> contextlib.AbstractAsyncContextManager[None]:
        """The session's node loses its power, its operator says so; outside it has power again. Raises NotHere."""
        ...


class OnCluster:
    def __init__(self, installation: Installation, client: KubeClient) -> None:
        self.cluster: Cluster = installation.cluster
        self.namespace = installation.namespace
        self.client = client

    @contextlib.asynccontextmanager
    async def remote(self) -> AsyncIterator[Remote]:
        async with await Remote.connect(Target(self.cluster.kubeconfig, namespace=self.namespace)) as remote:
            yield remote

    async def kill_agent(self, session: str) -> None:
        self._kill(await self.agent(session), CONTAINER)

    async def kill_controller(self, group: str) -> None:
        self._kill(await self.controller(group), names.CONTROLLER_CONTAINER)

    async def replace_controller(self, group: str) -> None:
        pod = await self.controller(group)
        await self.client.delete(PODS, pod["metadata"]["name"], namespace=self.namespace)

    @contextlib.asynccontextmanager
    async def apart(self) -> AsyncIterator[None]:
        node = (await self.controller())["spec"]["nodeName"]
        await self.client.merge(NODES, node, {"spec": {"unschedulable": True}})
        try:
            yield
        finally:
            await self.client.merge(NODES, node, {"spec": {"unschedulable": None}})

    @contextlib.asynccontextmanager
    async def without_node_of(self, session: str) -> AsyncIterator[None]:
        node = self.cluster.node((await self.agent(session))["spec"]["nodeName"])
        try:
            await asyncio.to_thread(node.power_off)
            await asyncio.to_thread(node.await_state, ready=False)
            await asyncio.to_thread(node.out_of_service)
            yield
        finally:
            await asyncio.to_thread(node.power_on)
            await asyncio.to_thread(node.in_service)

    async def agent(self, session: str) -> dict[str, Any]:
        """The pod of a session."""
        [pod] = await self.client.list(PODS, namespace=self.namespace, labels=f"{labels.SESSION}={session}")
        return pod

    async def claims(self) -> list[dict[str, Any]]:
        return await self.client.list(CLAIMS, namespace=self.namespace)

    async def controller(self, _group: str = "") -> dict[str, Any]:
        """The pod of the controller that serves."""
        pods = await self.client.list(PODS, namespace=self.namespace, labels=labels.CONTROLLER_SELECTOR)
        [pod] = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
        return pod

    def _kill(self, pod: dict[str, Any], container: str) -> None:
        [identity] = [
            each["containerID"].rpartition("/")[2]
            for each in pod["status"]["containerStatuses"]
            if each["name"] == container
        ]
        for process in self._processes(pod["spec"]["nodeName"], identity):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    def _processes(self, node: str, container: str) -> list[int]:
        """Those of a container, by their numbers on this machine."""
        root = cgroups.hierarchies().roots[0] / self.cluster.node(node).place.cgroup.strip("/")
        # Pods of other rows come and go meanwhile, which `rglob` does not bear.
        [folder] = [folder for folder, _, _ in os.walk(root) if folder.endswith(f"/{container}")]
        found = [int(line) for line in (Path(folder) / "cgroup.procs").read_text().split()]
        assert found, f"container {container} has no process"
        return found


class OnNodes(OnCluster):
    """A controller a node, which its groups stay with: it comes back, and so do they."""

    async def controller(self, group: str = "") -> dict[str, Any]:
        """That of the node the group's agent is on."""
        selector = f"{labels.AGENT_SELECTOR},{labels.GROUP}={names.slug(group)}"
        agents = await self.client.list(PODS, namespace=self.namespace, labels=selector)
        [node] = {pod["spec"]["nodeName"] for pod in agents if pod["status"]["phase"] == "Running"}
        pods = await self.client.list(PODS, namespace=self.namespace, labels=labels.CONTROLLER_SELECTOR)
        [pod] = [pod for pod in pods if pod["spec"]["nodeName"] == node and "deletionTimestamp" not in pod["metadata"]]
        return pod

    @contextlib.asynccontextmanager
    async def apart(self) -> AsyncIterator[None]:
        yield

    @contextlib.asynccontextmanager
    async def without_node_of(self, session: str) -> AsyncIterator[None]:
        node = self.cluster.node((await self.agent(session))["spec"]["nodeName"])
        try:
            await asyncio.to_thread(node.power_off)
            await asyncio.to_thread(node.await_state, ready=False)
        finally:
            await asyncio.to_thread(node.power_on)
        yield


class OnDocker:
    """A Docker host: what is one node there, and who starts its controller again, is its owner's."""

    def __init__(self, host: DockerHost, engine: Any) -> None:
        self.host, self.engine = host, engine

    @contextlib.asynccontextmanager
    async def remote(self) -> AsyncIterator[Remote]:
        environment = self.host.environment
        target = Target(url=environment["NANOCLAW_URL"], token_file=self.host.tree / "store" / "api-token")
        assert str(target.token_file) == environment["NANOCLAW_TOKEN_FILE"]
        async with await Remote.connect(target) as remote:
            yield remote

    async def kill_agent(self, session: str) -> None:
        [container] = self._docker("ps", "--quiet", "--filter", f"label={labels.SESSION}={session}").split()
        self._docker("kill", "--signal", "KILL", container)

    async def kill_controller(self, _group: str) -> None:
        await self.host.kill()
        await self.host.start()

    async def replace_controller(self, _group: str) -> None:
        await self.host.kill(signal.SIGTERM)
        await self.host.start()

    @contextlib.asynccontextmanager
    async def apart(self) -> AsyncIterator[None]:
        raise NotHere("the controller is on the same host: when it is back, it starts what was not answered again")
        yield

    @contextlib.asynccontextmanager
    async def without_node_of(self, _session: str) -> AsyncIterator[None]:
        raise NotHere("there is one host")
        yield

    def _docker(self, *arguments: str) -> str:
        return subprocess.run(self.engine.command(*arguments), capture_output=True, text=True, check=True).stdout
