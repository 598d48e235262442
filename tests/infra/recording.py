"""Run the Pulumi program without an engine and keep what it registered.

The monitor records each registration as the engine would get it: inputs as the Kubernetes JSON
they are, and the options. Whether the engine and a cluster accept them is `tests/engine`.
"""

from __future__ import annotations

import functools
import json
import os
import runpy
import sys
import tempfile
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pulumi
import yaml
from google.protobuf import json_format
from pulumi.runtime import mocks

from tests.support.forkserver import FORKS

CHECKOUT = Path(__file__).resolve().parents[2]
STACKS = sorted(file.stem for file in (Path(__file__).parent / "golden").glob("*.yaml"))
"""The stacks of this project: each has a golden file. Others in the folder are somebody's own."""

SIGNATURE = "4dabf18193072939515e22adb298388d"
SECRET = "1b47061264138c4ac30d75fd1eb44270"

VARIABLES = {
    "NANOCLAW_RUNTIME_IMAGE": "localhost/nanoclaw-runtime:test",
    "NANOCLAW_AGENT_IMAGE": "localhost/nanoclaw-echo-agent:test",
    "NANOCLAW_API_SERVER": "10.100.0.1",
    "NANOCLAW_API_PORT": "6443",
}


@dataclass(frozen=True)
class Registered:
    """One resource as the program registered it."""

    type: str
    name: str
    inputs: dict[str, Any]
    protect: bool
    retain: bool
    deleted_with: str
    ignored: list[str]

    @property
    def kind(self) -> str:
        return self.inputs.get("kind", self.type)

    @property
    def object_name(self) -> str:
        return self.inputs.get("metadata", {}).get("name", self.name)


class _Cloud(mocks.Mocks):
    """Gives generated names, as the provider does; everything else comes back as it went in."""

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str | None, dict]:
        if args.typ == "pulumi:index:Stash":
            return f"{args.name}-id", {**args.inputs, "output": args.inputs["input"]}
        if args.typ.startswith("kubernetes:"):
            metadata = {"name": f"{args.name}-0a1b2c3d", **args.inputs.get("metadata", {})}
            return f"{args.name}-id", {**args.inputs, "metadata": metadata}
        return f"{args.name}-id", args.inputs

    def call(self, args: mocks.MockCallArgs) -> tuple[dict, None]:
        return {}, None


class _Monitor(mocks.MockMonitor):
    def __init__(self) -> None:
        super().__init__(_Cloud())
        self.requests: list[Any] = []

    def RegisterResource(self, request):  # noqa: N802 (the name of the call)
        self.requests.append(request)
        return super().RegisterResource(request)


def configuration(stack: str, changes: Mapping[str, Any] | None = None) -> dict[str, str]:
    """The configuration of a committed stack as the engine hands it over, maps sorted; `changes` replace whole keys."""
    project = _committed(CHECKOUT / "Pulumi.yaml")
    defaults = {f"nanoclaw:{key}": entry["default"] for key, entry in project["config"].items() if "default" in entry}
    written = _committed(CHECKOUT / "stacks" / f"Pulumi.{stack}.yaml")["config"]
    merged = defaults | written | dict(changes or {})
    return {
        key: value if isinstance(value, str) else json.dumps(value, sort_keys=True) for key, value in merged.items()
    }


@functools.cache
def _committed(file: Path) -> dict[str, Any]:
    """A document that nobody may change."""
    return yaml.safe_load(file.read_text())


def settings(stack: str) -> dict[str, Any]:
    """A fresh copy of a committed stack's `nanoclaw:settings`."""
    return json.loads(configuration(stack)["nanoclaw:settings"])


def record(stack: str, config: Mapping[str, str], secret_keys: tuple[str, ...] = ()) -> list[Registered]:
    """Everything the program registers for this configuration, in order; recorded once a test run.

    Raises AssertionError with the program's message when it refuses.
    """
    answer = _answer(json.dumps({"stack": stack, "config": dict(config), "secret_keys": list(secret_keys)}))
    return [Registered(**each) for each in json.loads(answer)]


@functools.cache
def _answer(question: str) -> str:
    """Asked in a process of its own: the SDK keeps global state, and its mocks leave event loops behind.

    Forked from one that has the SDK loaded, which is most of the time a recording takes.
    """
    with tempfile.TemporaryDirectory(prefix="nanoclaw-recording-") as home:
        kubeconfig = Path(home) / ".kube" / "config"
        kubeconfig.parent.mkdir()
        kubeconfig.touch()
        environment = os.environ | VARIABLES | {"HOME": home, "NANOCLAW_KUBECONFIG": str(kubeconfig)}
        ours, theirs = FORKS.Pipe(duplex=False)
        child = FORKS.Process(target=_answer_in_child, args=(question, dict(environment), theirs))
        child.start()
        theirs.close()
        try:
            answer, refusal = ours.recv()
        finally:
            child.join()
            ours.close()
    assert not refusal, refusal
    return answer


def _answer_in_child(question: str, environment: dict[str, str], out: Connection) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(CHECKOUT)
    sys.path.insert(0, str(CHECKOUT))
    try:
        out.send((answer(json.loads(question)), ""))
    except BaseException:  # noqa: BLE001 (whatever it is, it is the answer)
        out.send(("", traceback.format_exc()))


def answer(question: dict[str, Any]) -> str:
    """What the program registers, as JSON. Once a process."""
    monitor = _Monitor()
    mocks.set_mocks(_Cloud(), project="nanoclaw", stack=question["stack"], preview=True, monitor=monitor)
    pulumi.runtime.set_all_config(question["config"], question["secret_keys"])

    @pulumi.runtime.test
    def program() -> None:
        runpy.run_path(str(CHECKOUT / "__main__.py"))

    program()
    return json.dumps([asdict(_registered(request)) for request in monitor.requests])


def _registered(request: Any) -> Registered:
    return Registered(
        type=request.type,
        name=request.name,
        inputs=_whole_numbers(json_format.MessageToDict(request.object)),
        protect=request.protect,
        retain=request.retainOnDelete,
        deleted_with=request.deletedWith,
        ignored=list(request.ignoreChanges),
    )


def _whole_numbers(value: Any) -> Any:
    """Protocol buffers have only floating point; manifests have whole numbers."""
    if isinstance(value, dict):
        return {key: _whole_numbers(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_whole_numbers(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def is_secret(value: Any) -> bool:
    """Whether a recorded value travels encrypted."""
    return isinstance(value, dict) and value.get(SIGNATURE) == SECRET


def manifests(registered: list[Registered]) -> list[dict[str, Any]]:
    """The Kubernetes objects among them as they reach the API server, secret values blanked."""
    return [_blanked(each.inputs) for each in registered if each.type.startswith("kubernetes:")]


def _blanked(value: Any) -> Any:
    if is_secret(value):
        return "<secret>"
    if isinstance(value, dict):
        return {key: _blanked(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_blanked(inner) for inner in value]
    return value


if __name__ == "__main__":
    sys.stdout.write(answer(json.load(sys.stdin)))
