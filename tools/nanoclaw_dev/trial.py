"""An installation for trying: `pulumi up` of the checkout's program on a cluster.

The cluster tests and the benchmarks stand on this. Its groups, settings and claims are the caller's;
the program, the engine, the images and the way to the API are what users get. Not here: what is said
in its chats (`chat`).
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from nanoclaw_dev import images
from nanoclaw_dev.chat import Chat
from nanoclaw_dev.cluster.cluster import Cluster
from nanoclaw_dev.engine import Engine
from nanoclaw_dev.engine_binaries import EngineBinaries
from nanoclaw_dev.paths import CHECKOUT
from nanoclaw_dev.progress import Progress
from nanoclaw_runtime.cli.installation import Target
from nanoclaw_runtime.cli.remote import Remote

STACK = "trial"

PROGRAM = """\
import runpy, sys
sys.path.insert(0, {checkout!r})
runpy.run_path({checkout!r} + "/__main__.py")
"""


SIZES = dict.fromkeys(("group", "ipc", "sessions", "project", "global", "store", "data"), "64Mi")


@dataclass(frozen=True)
class Installation:
    """What `pulumi up` made, and how to take it down."""

    engine: Engine
    cluster: Cluster
    namespace: str
    key: str
    """The literal of the model key: it may be found nowhere but in its Secret."""

    @classmethod
    def up(
        cls, cluster: Cluster, binaries: EngineBinaries, folder: Path, *, settings: dict[str, Any], **config: Any
    ) -> Installation:
        """`pulumi up` of a stack of its own in a namespace of its own, with the project's images."""
        progress = Progress()
        runtime, agent = images.build_images(progress)
        for image in (runtime, agent):
            cluster.import_image(image.archive)
        namespace, key = namespace_of(folder), f"sk-{folder.name}-{secrets.token_hex(8)}"
        place = cluster.instance
        base = {
            "namespace": {"name": namespace},
            "cluster": {"kubeconfig": str(cluster.kubeconfig)},
            "network": {"apiServer": {"cidrs": [f"{place.bridge_address}/32"], "ports": [place.api_port]}},
            "storage": {"sizes": SIZES},
            "controller": {"image": runtime.reference},
        }
        settings["runtime"] = {"agent": _agent(agent.reference)} | settings.get("runtime", {})
        write_project(folder, {"settings": base | settings, "protectData": False} | config)
        engine = Engine(binaries, state=folder / "engine", passphrase=STACK, project=folder)
        installation = cls(engine, cluster, namespace, key)
        try:
            engine.init(STACK)
            engine.set_secret(STACK, "nanoclaw:credentials.ANTHROPIC_API_KEY", key)
            with progress.step("pulumi up") as step:
                engine.up(STACK, step)
        except BaseException:
            engine.end_strays()
            raise
        return installation

    def change(self, changed: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """`pulumi up` with other settings; the stack keeps its secrets."""
        file = self.engine.project / "stacks" / f"Pulumi.{STACK}.yaml"
        stack = yaml.safe_load(file.read_text())
        stack["config"]["nanoclaw:settings"] = changed(stack["config"]["nanoclaw:settings"])
        file.write_text(yaml.safe_dump(stack))
        with Progress().step("pulumi up") as step:
            self.engine.up(STACK, step)

    def leave(self) -> None:
        """Delete the namespace without waiting for its end, on a cluster that goes soon, too."""
        self.cluster.control_plane.api.delete(f"/api/v1/namespaces/{self.namespace}")
        self.engine.end_strays()
        shutil.rmtree(self.engine.project, ignore_errors=True)

    def down(self) -> None:
        with Progress().step("pulumi destroy") as step:
            self.engine.destroy(STACK, step)
        self.engine.end_strays()
        shutil.rmtree(self.engine.project, ignore_errors=True)

    @contextlib.asynccontextmanager
    async def chat(self) -> AsyncIterator[Chat]:
        async with await Remote.connect(Target(self.cluster.kubeconfig, namespace=self.namespace)) as remote:
            yield Chat(remote)


def namespace_of(folder: Path) -> str:
    """Where the installation of a project goes."""
    return f"trial-{folder.name.lower().replace('_', '-')}"


def open_nodes(cluster: Cluster, folder: Path) -> dict[str, Any]:
    """What an operator does by hand for the pattern nodelocal: a namespace that permits it, a folder on each node."""
    name = namespace_of(folder)
    level = {"pod-security.kubernetes.io/enforce": "privileged"}
    cluster.control_plane.api.apply(
        f"/api/v1/namespaces/{name}",
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": level}},
    )
    for node in cluster.nodes:
        own = node.place.folder / Path(node_root(folder)).relative_to("/var/lib")
        own.mkdir(mode=0o750)
        shutil.chown(own, 1000, 1000)
    return {"namespace": {"name": name, "create": False}}


def node_root(folder: Path) -> str:
    """Below the one folder that each node of the embedded cluster has to itself."""
    return f"/var/lib/kubelet/{namespace_of(folder)}"


def _agent(image: str) -> dict[str, Any]:
    resources = {"cpuRequest": "20m", "memoryRequest": "32Mi", "cpuLimit": "1", "memoryLimit": "128Mi"}
    return {"image": image, "imagePullPolicy": "Never", "resources": resources}


def write_project(folder: Path, config: dict[str, Any], program: str = PROGRAM) -> None:
    """A project with the checkout's program, the caller's interpreter and one stack."""
    definition = yaml.safe_load((CHECKOUT / "Pulumi.yaml").read_text())
    definition["runtime"]["options"]["virtualenv"] = sys.prefix
    stack = {f"nanoclaw:{name}": value for name, value in config.items()}
    stack["pulumi:disable-default-providers"] = ["kubernetes"]
    (folder / "stacks").mkdir(parents=True)
    (folder / "__main__.py").write_text(program.format(checkout=str(CHECKOUT)))
    (folder / "Pulumi.yaml").write_text(yaml.safe_dump(definition))
    (folder / "stacks" / f"Pulumi.{STACK}.yaml").write_text(yaml.safe_dump({"config": stack}))
