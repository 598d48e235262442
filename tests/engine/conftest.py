from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from nanoclaw_dev import engine_binaries
from nanoclaw_dev.cluster.control_plane import ControlPlane
from nanoclaw_dev.engine import Engine
from nanoclaw_dev.paths import CHECKOUT
from nanoclaw_dev.progress import Progress
from tests.support import cluster as support

HERE = Path(__file__).parent

DONE = re.compile(r"\d+ done, (created|updated|deleted|replaced) (\S+) (\S+)")
"""What the engine notes of a resource it is through with."""

Change = tuple[str, str, str]
"""Operation, kind, name."""


@pytest.fixture(scope="session")
def binaries():
    found = engine_binaries.present()
    if found is None:
        support.unavailable("the Pulumi engine is not built: `make test` builds it")
    return found


@pytest.fixture(scope="session")
def control_plane():
    """An API with its controllers, which delete what a deleted namespace held, and no node."""
    support.need_control_plane()
    support.remove_abandoned()
    running = ControlPlane(support.free_instance("engine"), controllers=True)
    try:
        with running:
            yield running
    finally:
        running.remove()


class Doing:
    """A step that remembers what the engine did."""

    def __init__(self) -> None:
        self._done: set[Change] = set()

    def note(self, text: str) -> None:
        if match := DONE.fullmatch(text):
            done, kind, name = match.groups()
            self._done.add((done.removesuffix("d"), kind, name))

    def changes(self) -> set[Change]:
        """One a resource: what is replaced is also made and deleted."""
        replaced = {each[1:] for each in self._done if each[0] == "replace"}
        return {each for each in self._done if each[0] == "replace" or each[1:] not in replaced}


@dataclass
class Project:
    """A Pulumi project of a test with one stack, run by the real engine."""

    engine: Engine
    folder: Path
    namespace: str
    stack: str = "test"

    def write(self, *, layout: str = "per-type", protect: bool = False, groups: tuple[str, ...] = ("main",), **changes):
        """Write the stack file; `changes` replace whole parts of the settings."""
        settings = {
            "namespace": {"name": self.namespace},
            "cluster": {"kubeconfig": "$NANOCLAW_KUBECONFIG"},
            "controller": {"image": "localhost/controller:1"},
            "runtime": {"agent": {"image": "localhost/agent:1"}},
            "groups": [{"folder": folder, "name": folder} for folder in groups],
        }
        config = {
            "pulumi:disable-default-providers": ["kubernetes"],
            "nanoclaw:layout": layout,
            "nanoclaw:protectData": protect,
            "nanoclaw:settings": settings | changes,
        }
        file = self.folder / "stacks" / f"Pulumi.{self.stack}.yaml"
        known = file.exists()
        salt = yaml.safe_load(file.read_text()) if known else {}
        file.parent.mkdir(exist_ok=True)
        file.write_text(yaml.safe_dump(salt | {"config": config}))
        if not known:
            self.engine.init(self.stack)

    def up(self) -> set[Change]:
        """Each change of an object that was made, in the words of a preview."""
        doing = Doing()
        self.engine.up(self.stack, doing)
        return doing.changes()

    def destroy(self):
        with Progress().step("destroy") as step:
            self.engine.destroy(self.stack, step)

    def refresh(self):
        with Progress().step("refresh") as step:
            self.engine.refresh(self.stack, step)

    def pulumi(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The engine's own command line on this stack, for what the tools never type."""
        return subprocess.run(
            [self.engine.binaries.cli, *arguments, "--stack", self.stack, "--non-interactive"],
            cwd=self.folder,
            env=self.engine.environment(),
            capture_output=True,
            text=True,
            check=False,
        )

    def preview(self) -> set[Change]:
        return {
            (operation, urn.split("::")[2].rsplit("$", 1)[-1].rsplit(":", 1)[-1], urn.rsplit("::", 1)[-1])
            for urn, operation in self.engine.preview(self.stack).items()
        }


@pytest.fixture
def project(make_project):
    """A project whose stack is not up yet, in a namespace of its own."""
    with make_project() as project:
        yield project


@pytest.fixture(scope="session")
def make_project(tmp_path_factory, binaries, control_plane):
    """Makes such projects, for tests that share one."""

    @contextlib.contextmanager
    def make():
        yield from _project(tmp_path_factory.mktemp("project"), binaries, control_plane)

    return make


def _project(tmp_path, binaries, control_plane):
    shutil.copyfile(HERE / "program.py", tmp_path / "__main__.py")
    definition = yaml.safe_load((CHECKOUT / "Pulumi.yaml").read_text())
    definition["runtime"]["options"]["virtualenv"] = sys.prefix
    (tmp_path / "Pulumi.yaml").write_text(yaml.safe_dump(definition))
    engine = Engine(
        binaries,
        state=tmp_path / "engine",
        passphrase="test",
        variables={"NANOCLAW_KUBECONFIG": str(control_plane.kubeconfig), "NANOCLAW_CHECKOUT": str(CHECKOUT)},
        project=tmp_path,
    )
    yield Project(engine, tmp_path, namespace=f"engine-{uuid.uuid4().hex[:8]}")
    engine.end_strays()
