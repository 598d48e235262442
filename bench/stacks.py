"""How long a preview and an `up` take with 10, 100 and 500 groups, and where the time goes.

The real engine and a real API server without nodes: what pods take is `start`'s to measure, so the
Deployment is not awaited. Beside it, in the same run: an `up` of a program that declares nothing,
the program without an engine, a flat program with the same claims and no components, and the same
objects sent to the API server by hand, one after the other.

    python -m bench.stacks [groups ...]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from bench import table
from nanoclaw_dev import engine_binaries, gomodules, modules, system
from nanoclaw_dev.cluster.control_plane import ControlPlane
from nanoclaw_dev.cluster.instance import Instance
from nanoclaw_dev.engine import Engine
from nanoclaw_dev.engine_binaries import EngineBinaries
from nanoclaw_dev.paths import CHECKOUT
from nanoclaw_dev.progress import Progress, Step
from nanoclaw_dev.trial import PROGRAM, STACK, write_project

RESULTS = Path(__file__).parent / "results"
SIZES = (10, 100, 500)

OURS = (
    """\
import pulumi
def unawaited(arguments):
    if arguments.type_ != "kubernetes:apps/v1:Deployment":
        return None
    metadata = dict(arguments.props["metadata"]) | {{"annotations": {{"pulumi.com/skipAwait": "true"}}}}
    return pulumi.ResourceTransformResult({{**arguments.props, "metadata": metadata}}, arguments.opts)
pulumi.runtime.register_resource_transform(unawaited)
"""
    + PROGRAM
)
NOTHING = "# {checkout}\n"
FLAT = """\
# {checkout}
import json, pulumi, pulumi_kubernetes as kubernetes
settings = json.loads(pulumi.Config("nanoclaw").require("settings"))
provider = kubernetes.Provider("cluster", kubeconfig=settings["cluster"]["kubeconfig"])
options = pulumi.ResourceOptions(provider=provider)
space = kubernetes.core.v1.Namespace("flat", metadata={{"name": settings["namespace"]["name"]}}, opts=options)
for group in settings["groups"]:
    for purpose in ("group", "ipc", "sessions"):
        name = f"nanoclaw-{{purpose}}-{{group['folder']}}"
        metadata = {{"name": name, "namespace": space.metadata.name, "annotations": {{"pulumi.com/skipAwait": "true"}}}}
        kubernetes.core.v1.PersistentVolumeClaim(name, metadata=metadata, spec={{
            "accessModes": ["ReadWriteMany"], "resources": {{"requests": {{"storage": "1Gi"}}}}}}, opts=options)
"""


WHERE = """\
What the program and the bare API take is little; a large first `up` is nearly all engine. It writes the whole state
before and after each object, which grows with the square of their number; a group's component is one entry more, the
difference to the flat program. With `layout: shared` a group is a line in one ConfigMap, with `per-group` one claim.
"""


class Trial:
    """A stack of so many groups in a namespace of its own."""

    def __init__(self, binaries: EngineBinaries, plane: ControlPlane, folder: Path, program: str, groups: int) -> None:
        self._plane, self._folder, self._groups = plane, folder, groups
        self.namespace = folder.name
        write_project(folder, self._config(groups), program)
        self._engine = Engine(binaries, state=folder / "engine", passphrase=STACK, project=folder)
        self._engine.init(STACK)

    def preview(self) -> float:
        return _timed(lambda: self._engine.preview(STACK))

    def up(self, step: Step) -> float:
        return _timed(lambda: self._engine.up(STACK, step))

    def grow(self) -> None:
        """One group more in the stack file."""
        file = self._folder / "stacks" / f"Pulumi.{STACK}.yaml"
        stack = yaml.safe_load(file.read_text())
        stack["config"] |= {f"nanoclaw:{key}": value for key, value in self._config(self._groups + 1).items()}
        file.write_text(yaml.safe_dump(stack))

    def manifests(self) -> list[Mapping[str, Any]]:
        """The objects of the stack, secrets left out."""
        found = (each["inputs"] for each in self._engine.resources(STACK) if each["type"].startswith("kubernetes:"))
        return [each for each in found if each["kind"] != "Secret"]

    def end(self) -> None:
        self._engine.end_strays()
        self._plane.api.delete(f"/api/v1/namespaces/{self.namespace}")

    def _config(self, groups: int) -> dict[str, Any]:
        return {
            "protectData": False,
            "settings": {
                "namespace": {"name": self.namespace},
                "cluster": {"kubeconfig": str(self._plane.kubeconfig)},
                "controller": {"image": "localhost/controller:1"},
                "runtime": {"agent": {"image": "localhost/agent:1"}},
                "groups": [{"folder": f"group-{number}", "name": f"Group {number}"} for number in range(groups)],
            },
        }


def _timed(work: Callable[[], object]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started


def measure(binaries: EngineBinaries, plane: ControlPlane, folder: Path, groups: int, step: Step) -> list[str]:
    """A row of the table for a number of groups; seconds."""
    ours = Trial(binaries, plane, folder / f"ours-{groups}", OURS, groups)
    row = [ours.preview(), ours.up(step), ours.preview()]
    ours.grow()
    row += [ours.preview(), ours.up(step)]
    objects = ours.manifests()
    ours.end()
    flat = Trial(binaries, plane, folder / f"flat-{groups}", FLAT, groups)
    row.append(flat.up(step))
    flat.end()
    row += [_program(groups), _by_hand(plane, f"hand-{groups}", objects)]
    return [f"{groups} ({len(objects)})", *(f"{seconds:.1f}" for seconds in row)]


def _program(groups: int) -> float:
    """The program under the SDK's mocks: reading, checking and declaring, with nobody who makes anything."""
    settings = {
        "cluster": {"kubeconfig": os.devnull},
        "controller": {"image": "localhost/controller:1"},
        "runtime": {"agent": {"image": "localhost/agent:1"}},
        "groups": [{"folder": f"group-{number}", "name": f"Group {number}"} for number in range(groups)],
    }
    with tempfile.NamedTemporaryFile(suffix=".yaml") as kubeconfig:
        settings["cluster"] = {"kubeconfig": kubeconfig.name}
        question = {"stack": "bench", "config": {"nanoclaw:settings": json.dumps(settings)}, "secret_keys": []}
        command = [sys.executable, "-m", "tests.infra.recording"]
        return _timed(
            lambda: subprocess.run(
                command, cwd=CHECKOUT, input=json.dumps(question), capture_output=True, text=True, check=True
            )
        )


def _by_hand(plane: ControlPlane, namespace: str, objects: list[Mapping[str, Any]]) -> float:
    """The same objects in another namespace, by server-side apply, one after the other."""
    plane.api.apply(
        f"/api/v1/namespaces/{namespace}", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
    )
    started = time.monotonic()
    for each in objects:
        if each["kind"] == "Namespace":
            continue
        metadata = each["metadata"] | {"namespace": namespace}
        version = each["apiVersion"]
        root = f"/apis/{version}" if "/" in version else f"/api/{version}"
        resource = "networkpolicies" if each["kind"] == "NetworkPolicy" else f"{each['kind'].lower()}s"
        plane.api.apply(f"{root}/namespaces/{namespace}/{resource}/{metadata['name']}", {**each, "metadata": metadata})
    seconds = time.monotonic() - started
    plane.api.delete(f"/api/v1/namespaces/{namespace}")
    return seconds


def main(sizes: list[int]) -> None:
    """Measure and write `stacks.md`."""
    progress = Progress()
    system.check_linux()
    binaries = engine_binaries.find(progress)
    gomodules.build_missing(modules.CLUSTER, progress)
    about = table.machine()
    with tempfile.TemporaryDirectory(prefix="nanoclaw-bench-") as scratch:
        folder = Path(scratch)
        plane = ControlPlane(Instance(f"stacks-{os.getpid()}", folder / "cluster"), controllers=True)
        try:
            with plane:
                with progress.step("An empty program") as step:
                    nothing = Trial(binaries, plane, folder / "nothing", NOTHING, 0)
                    empty = [nothing.preview(), nothing.up(step)]
                    nothing.end()
                rows = []
                for groups in sizes:
                    with progress.step(f"{groups} groups") as step:
                        rows.append(measure(binaries, plane, folder, groups, step))
        finally:
            plane.remove()
    _write(about, empty, rows)


def _write(about: str, empty: list[float], rows: list[list[str]]) -> None:
    head = (
        "groups (objects)", "first preview", "first up", "preview, no change", "preview, one group more",
        "up, one group more", "up, flat program", "program alone", "objects by hand",
    )  # fmt: skip
    lines = ["# Previews and ups", "", about, "", "Seconds, once each; three claims a group (`layout: per-type`).", ""]
    lines += [
        f"| {' | '.join(head)} |",
        f"|---|{'--:|' * (len(head) - 1)}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
    lines += [
        "",
        f"An empty program, which is the engine alone: preview {empty[0]:.1f} s, up {empty[1]:.1f} s.",
        "",
        WHERE,
    ]
    (RESULTS / "stacks.md").write_text("\n".join(lines))
    sys.stdout.write("\n".join(lines))


if __name__ == "__main__":
    main([int(each) for each in sys.argv[1:]] or [*SIZES])
