"""`make render`: what a stack declares, one YAML file an object, for a repository that a GitOps tool applies.

The real engine runs the real program, in a project and a state that are thrown away; no cluster is
asked and no passphrase is needed. Secrets are not written: the folder's README says which of them to
make. Equal stacks give equal files, so that a difference is always one of the stack.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from nanoclaw_dev import engine_binaries
from nanoclaw_dev.engine import Engine
from nanoclaw_dev.engine_binaries import EngineBinaries
from nanoclaw_dev.errors import SetupError
from nanoclaw_dev.paths import CHECKOUT
from nanoclaw_dev.progress import Progress, Step
from nanoclaw_infra.settings import RENDER_VARIABLE
from nanoclaw_infra.settings.secrets import API_TOKEN, CREDENTIALS
from nanoclaw_runtime.contract import names

README = "README.md"
_MARK = "<!-- Made by `make render`. Changes here are lost. -->"
# By which a folder of ours is known: no other is ever replaced.

_PROGRAM = """\
import os, runpy, sys
os.environ.pop("KUBECONFIG", None)  # a rendering provider refuses every kubeconfig
sys.path.insert(0, {checkout!r})
runpy.run_path({checkout!r} + "/__main__.py")
"""

_FIRST = {"Namespace", "StorageClass", "PriorityClass"}
_LAST = {"Deployment", "DaemonSet"}
# What other objects need, and what needs them: `kubectl apply -f FOLDER` goes by the names of files.
_RANDOM = {names.API_TOKEN, names.GATEWAY_KEY}
# Secrets that mean nothing to anybody else.


def render(progress: Progress, stack: str, out: str | None = None) -> None:
    """Write the objects of `stack` to rendered/<stack>, or to `out`, and replace what was rendered there before.

    Raises SetupError; the folder is then as it was.
    """
    document = _document(stack)
    target = Path(out).expanduser().absolute() if out else CHECKOUT / "rendered" / stack
    _check_ours(target)
    binaries = engine_binaries.find(progress)
    with progress.step(f"Rendering stack {stack}") as step:
        objects = rendered(binaries, stack, document, step)
        files = _files(objects)
        files[README] = _readme(stack, objects)
        _replace(target, files)
    progress.say(f"{len(files) - 1} objects are in {target}; its {README} names the Secrets to make.")


def rendered(binaries: EngineBinaries, stack: str, document: Mapping[str, Any], step: Step) -> list[str]:
    """The YAML of every object the program declares for this stack file, as the provider writes it."""
    with tempfile.TemporaryDirectory(prefix="nanoclaw-render-") as scratch:
        project, written = Path(scratch, "project"), Path(scratch, "objects")
        secrets = _write_project(project, stack, document)
        ours = {name: value for name, value in os.environ.items() if name.startswith("NANOCLAW_")}
        engine = Engine(
            binaries,
            state=Path(scratch, "engine"),
            passphrase="thrown away",
            variables=ours | {RENDER_VARIABLE: str(written)},
            project=project,
        )
        try:
            engine.init(stack)
            for path in secrets:
                engine.set_secret(stack, path, "made where the objects are applied")
            engine.up(stack, step)
        finally:
            engine.end_strays()
        return [file.read_text() for file in sorted(written.rglob("*.yaml"))]


def _document(stack: str) -> dict[str, Any]:
    folder = CHECKOUT / "stacks"
    try:
        found: dict[str, Any] = yaml.safe_load((folder / f"Pulumi.{stack}.yaml").read_text())
    except FileNotFoundError:
        known = ", ".join(sorted(file.name[7:-5] for file in folder.glob("Pulumi.*.yaml")))
        raise SetupError(f"There is no stack {stack!r} in {folder}: name one of {known} by STACK=….") from None
    except yaml.YAMLError as error:
        raise SetupError(f"The file of stack {stack!r} is no YAML: {' '.join(str(error).split())}.") from None
    return found


def _write_project(folder: Path, stack: str, document: Mapping[str, Any]) -> list[str]:
    """A project with the checkout's program and a copy of the stack; returns the secrets the copy still needs.

    Nothing encrypted is in the copy, since who renders need not be able to read it.
    """
    definition = yaml.safe_load((CHECKOUT / "Pulumi.yaml").read_text())
    definition["runtime"]["options"]["virtualenv"] = sys.prefix
    config = copy.deepcopy(document.get("config", {}))
    secrets = list(_taken_secrets(config))
    kubeconfig = folder / "kubeconfig"
    if isinstance(settings := config.get("nanoclaw:settings"), dict):
        settings["cluster"] = {"kubeconfig": str(kubeconfig)}
    (folder / "stacks").mkdir(parents=True)
    kubeconfig.touch()
    (folder / "Pulumi.yaml").write_text(yaml.safe_dump(definition))
    (folder / "__main__.py").write_text(_PROGRAM.format(checkout=str(CHECKOUT)))
    (folder / "stacks" / f"Pulumi.{stack}.yaml").write_text(yaml.safe_dump({"config": config}))
    return secrets


def _taken_secrets(config: dict[str, Any]) -> Iterator[str]:
    """Take what is encrypted out of `config`; yields the path of each value."""
    if API_TOKEN in config:
        del config[API_TOKEN]
        yield API_TOKEN
    credentials = config.pop(CREDENTIALS, {})
    if "secure" in credentials:
        raise SetupError(
            f"{CREDENTIALS} is encrypted as a whole, so nobody can tell which there are: give each a key of its own, "
            f"with `pulumi config set --secret --path '{CREDENTIALS}.NAME'`."
        )
    yield from (f"{CREDENTIALS}.{name}" for name in credentials)


def _files(objects: Iterable[str]) -> dict[str, str]:
    """Name of a file → its content, without Secrets and with names that follow from what the objects hold."""
    parsed = {text: yaml.safe_load(text) for text in objects}
    renamed = {
        each["metadata"]["name"]: _settled(each["metadata"]["name"], text)
        for text, each in parsed.items()
        if "pulumi.com/autonamed" in each["metadata"].get("annotations", {})
    }
    files = {}
    for each in parsed.values():
        kind = each["kind"]
        if kind != "Secret":
            name = renamed.get(each["metadata"]["name"], each["metadata"]["name"])
            file = f"{1 - (kind in _FIRST) + (kind in _LAST)}-{kind.lower()}-{name}.yaml"
            assert file not in files, file
            files[file] = _replaced(yaml.safe_dump(_plain(each), width=160), renamed)
    return files


def _plain(manifest: dict[str, Any]) -> dict[str, Any]:
    """Without the annotations that tell the engine something, and nobody else."""
    metadata = manifest["metadata"]
    kept = {key: value for key, value in metadata.get("annotations", {}).items() if not key.startswith("pulumi.com/")}
    rest = {key: value for key, value in metadata.items() if key != "annotations"}
    return manifest | {"metadata": rest | ({"annotations": kept} if kept else {})}


def _settled(name: str, text: str) -> str:
    """A generated name with a hash of the object in place of chance."""
    return f"{name.rpartition('-')[0]}-{hashlib.sha256(text.replace(name, '').encode()).hexdigest()[:8]}"


def _replaced(text: str, renamed: Mapping[str, str]) -> str:
    for old, new in renamed.items():
        text = text.replace(old, new)
    return text


def _readme(stack: str, objects: Iterable[str]) -> str:
    parsed = [yaml.safe_load(each) for each in objects]
    secrets = {each["metadata"]["name"]: each for each in parsed if each["kind"] == "Secret"}
    made = secrets.keys() | {each["spec"]["target"]["name"] for each in parsed if each["kind"] == "ExternalSecret"}
    lines = [_MARK, f"The objects of the stack `{stack}`, without its Secrets."]
    if secrets:
        lines.append("Make these where the objects are applied, once; values belong in no repository:")
    for name, each in secrets.items():
        value = '"$(openssl rand -base64 32)"' if name in _RANDOM else "…"
        keys = " ".join(f"--from-literal={key}={value}" for key in sorted(each.get("data") or each["stringData"]))
        lines.append(f"    kubectl create secret generic {name} -n {each['metadata']['namespace']} {keys}")
    if theirs := sorted({name for each in parsed if each["kind"] in _LAST for name in _named(each)} - made):
        lines.append(f"Named and made by somebody else: {', '.join(f'`{name}`' for name in theirs)}.")
    return "\n\n".join(lines) + "\n"


def _named(workload: Mapping[str, Any]) -> Iterator[str]:
    """Every Secret a Deployment or DaemonSet needs."""
    pod = workload["spec"]["template"]["spec"]
    yield from (each["name"] for each in pod.get("imagePullSecrets", ()))
    yield from (each["secret"]["secretName"] for each in pod["volumes"] if "secret" in each)


def _check_ours(target: Path) -> None:
    """Raises SetupError unless the folder is missing, empty, or one that was rendered."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    readme = target / README
    if target.is_symlink() or not readme.is_file() or not readme.read_text(errors="replace").startswith(_MARK):
        raise SetupError(f"{target} is no folder that was rendered: name another one by OUT=…, or remove it.")


def _replace(target: Path, files: Mapping[str, str]) -> None:
    """Put a folder with these files in the place of the one that is there: whole, or not at all."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _beside(target) as made, _beside(target) as old:
            for name, content in files.items():
                (made / name).write_text(content)
            made.chmod(0o755)
            if target.exists():
                target.rename(old)
            made.rename(target)
    except OSError as error:
        raise SetupError(f"{target} cannot be written ({error.strerror}): name another folder by OUT=….") from None


@contextlib.contextmanager
def _beside(target: Path) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
