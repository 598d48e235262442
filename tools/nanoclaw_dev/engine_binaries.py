"""Where the Pulumi engine comes from: PATH, our cache, the official download, or a build.

Whatever is found first that fits is taken; the last two fill the cache. An engine is the CLI with
its Python language host, and the Kubernetes provider. Running it is `engine`.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from nanoclaw_dev import gomodules, modules
from nanoclaw_dev.errors import SetupError
from nanoclaw_dev.modules import ENGINE_VERSION, PROVIDER_VERSION
from nanoclaw_dev.paths import CACHE
from nanoclaw_dev.progress import Progress

CLI, LANGUAGE_HOST, PROVIDER = "pulumi", "pulumi-language-python", "pulumi-resource-kubernetes"

RELEASES = "https://get.pulumi.com/releases"
NO_ANSWER = 5
# Seconds. A network that drops packets instead of refusing must not hold up the build for long.

_VERSION = re.compile(r"v?(\d+)\.(\d+)\.(\d+)")


@dataclass(frozen=True)
class EngineBinaries:
    """A usable engine."""

    cli: Path
    provider: Path
    origin: str
    """Where it was found, for a person."""


def find(progress: Progress) -> EngineBinaries:
    """The engine, made available first where that takes a download or a build.

    Raises SetupError when there is none and none can be had.
    """
    cli, origin = _cli(progress)
    return EngineBinaries(cli, _provider(progress), origin)


def present() -> EngineBinaries | None:
    """The engine that is on this machine already, or None."""
    cli = on_path() or _in_cache()
    provider = next((place for place in (_built_provider(), _downloaded_provider()) if place.exists()), None)
    return EngineBinaries(cli, provider, "present") if cli and provider else None


def _cli(progress: Progress) -> tuple[Path, str]:
    if found := on_path():
        return found, "on PATH"
    if found := _in_cache():
        return found, "in the cache"
    if _fetch_sdk(progress):
        return _downloaded_cli(), "downloaded"
    gomodules.build_missing(modules.ENGINE, progress)
    return _assembled(), "built"


def on_path() -> Path | None:
    """A CLI on PATH that is not older than the SDK and has a Python language host."""
    found = shutil.which(CLI)
    if found is None:
        return None
    cli = Path(found)
    host = cli.resolve().with_name(LANGUAGE_HOST).exists() or shutil.which(LANGUAGE_HOST) is not None
    return cli if host and _version(cli) >= _parsed(ENGINE_VERSION) else None


def _version(cli: Path) -> tuple[int, ...]:
    environment = os.environ | {"PULUMI_SKIP_UPDATE_CHECK": "1"}
    told = subprocess.run([cli, "version"], env=environment, capture_output=True, text=True, check=False)
    return _parsed(told.stdout)


def _parsed(text: str) -> tuple[int, ...]:
    match = _VERSION.match(text.strip())
    return tuple(int(part) for part in match.groups()) if match else (0,)


def _in_cache() -> Path | None:
    if _downloaded_cli().exists():
        return _downloaded_cli()
    return _assembled() if modules.ENGINE_CLI.built() and modules.ENGINE_LANGUAGE.built() else None


def _assembled() -> Path:
    """The built CLI with its language host beside it, where it looks first. Hard links: nothing is there twice."""
    parts = (modules.ENGINE_CLI, modules.ENGINE_LANGUAGE)
    place = CACHE / "engine" / "-".join(part.key() for part in parts)
    if not place.is_dir():
        place.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".engine-", dir=place.parent))
        for part in parts:
            for binary in part.place().iterdir():
                os.link(binary, partial / binary.name)
        partial.chmod(0o755)
        _settle(partial, place)
    return place / CLI


def _settle(partial: Path, place: Path) -> None:
    """Give a finished folder its name, unless somebody else was faster."""
    try:
        partial.rename(place)
    except OSError:
        shutil.rmtree(partial)
        if not place.is_dir():
            raise


def _downloaded_cli() -> Path:
    return CACHE / "download" / f"pulumi-{ENGINE_VERSION}" / CLI


def _downloaded_provider() -> Path:
    return CACHE / "download" / f"resource-kubernetes-{PROVIDER_VERSION}" / PROVIDER


def _built_provider() -> Path:
    return modules.ENGINE_PROVIDER.place() / PROVIDER


def _provider(progress: Progress) -> Path:
    for place in (_built_provider(), _downloaded_provider()):
        if place.exists():
            return place
    if _fetch_provider(progress):
        return _downloaded_provider()
    gomodules.build_missing([modules.ENGINE_PROVIDER], progress)
    return _built_provider()


def _fetch_sdk(progress: Progress) -> bool:
    system, machine = _platform("x64")
    return fetch(
        f"{RELEASES}/sdk/pulumi-v{ENGINE_VERSION}-{system}-{machine}.tar.gz",
        f"{RELEASES}/sdk/pulumi-{ENGINE_VERSION}-checksums.txt",
        _downloaded_cli().parent,
        progress,
    )


def _fetch_provider(progress: Progress) -> bool:
    system, machine = _platform("amd64")
    release = f"https://github.com/pulumi/pulumi-kubernetes/releases/download/v{PROVIDER_VERSION}"
    return fetch(
        f"{release}/{PROVIDER}-v{PROVIDER_VERSION}-{system}-{machine}.tar.gz",
        f"{release}/pulumi-kubernetes_{PROVIDER_VERSION}_checksums.txt",
        _downloaded_provider().parent,
        progress,
    )


def _platform(intel: str) -> tuple[str, str]:
    """Operating system and processor as release files name them; `intel` is their word for x86-64."""
    machine = platform.machine().lower()
    return sys.platform, {"x86_64": intel, "amd64": intel, "aarch64": "arm64"}.get(machine, machine)


def fetch(archive_url: str, checksums_url: str, place: Path, progress: Progress) -> bool:
    """Download an archive and unpack its files flat into `place`; False when it cannot be had from here.

    The archive is checked against the release's own list of SHA-256 sums, which comes from the same
    place: that finds a damaged file, not a forged release. Raises SetupError when it does not match.
    """
    name = archive_url.rsplit("/", 1)[-1]
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".download-", dir=place.parent) as scratch:
        archive = Path(scratch) / name
        try:
            with urllib.request.urlopen(checksums_url, timeout=NO_ANSWER) as answer:
                sums = answer.read().decode()
            with (
                progress.step(f"Downloading {name}"),
                urllib.request.urlopen(archive_url, timeout=NO_ANSWER) as answer,
                archive.open("wb") as out,
            ):
                shutil.copyfileobj(answer, out)
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError):
            return False
        expected = next((line.split()[0] for line in sums.splitlines() if line.split()[1:] == [name]), None)
        with archive.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != expected:
            raise SetupError(
                f"{archive_url} has the SHA-256 {found} and {checksums_url} says {expected or 'nothing about it'}: "
                "try again, or put a Pulumi engine on PATH."
            )
        unpacked = Path(scratch) / "unpacked"
        unpacked.mkdir()
        with tarfile.open(archive) as tar:
            for member in tar:
                if member.isfile():
                    member.name = Path(member.name).name
                    tar.extract(member, unpacked, filter="data")
        _settle(unpacked, place)
    return True
