"""Makes .venv: the locked packages, every one checked by its hash, and the checkout itself.

It runs before anything is installed, so it uses the standard library alone. A finished environment carries a
stamp of what it was made from: without the stamp it was interrupted and is made anew, with another
one it is brought up to date.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

from nanoclaw_dev.errors import SetupError
from nanoclaw_dev.paths import CHECKOUT
from nanoclaw_dev.progress import Progress

VENV = CHECKOUT / ".venv"
STAMP = VENV / ".nanoclaw"
LOCK = CHECKOUT / "requirements" / "development.txt"
PROJECTS = (CHECKOUT / "runtime", CHECKOUT)


def main() -> int:
    """Bring .venv up to date; returns the exit code."""
    try:
        # Two `make` at once: the second waits, then finds everything done.
        with Path(__file__).open() as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            make_environment(Progress())
    except SetupError as problem:
        sys.stderr.write(f"{problem}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def make_environment(progress: Progress) -> None:
    """Do as little as needed; a tenth of a second when nothing changed.

    Raises SetupError with one sentence and the remedy.
    """
    wanted = stamp()
    found = STAMP.read_text() if STAMP.exists() and runs() else None
    if found == wanted:
        return
    if found is None:
        check_venv_module(progress)
        with progress.step("Making the virtual environment"):
            shutil.rmtree(VENV, ignore_errors=True)
            venv.EnvBuilder(with_pip=True, symlinks=True).create(VENV)
    STAMP.unlink(missing_ok=True)
    install(progress)
    STAMP.write_text(wanted)


def stamp() -> str:
    """A hash of everything that decides what is installed."""
    digest = hashlib.sha256(LOCK.read_bytes())
    for project in PROJECTS:
        settings = tomllib.loads((project / "pyproject.toml").read_text())
        parts = [settings["build-system"], settings["project"], settings["tool"]["hatch"]]
        digest.update(json.dumps(parts, sort_keys=True).encode())
    return digest.hexdigest()


def runs() -> bool:
    """Whether the environment's Python still starts; it does not when the machine's Python has gone."""
    try:
        return not subprocess.run([VENV / "bin" / "python", "-c", ""], capture_output=True, check=False).returncode
    except OSError:
        return False


def install(progress: Progress) -> None:
    packages = sum("==" in line for line in LOCK.read_text().splitlines())
    with progress.step(f"Installing {packages} Python packages"):
        pip("--require-hashes", "--requirement", str(LOCK))
    with progress.step("Installing the checkout itself"):
        # hatchling comes from the lock, so nothing is built with packages nobody pinned.
        editable = [argument for project in PROJECTS for argument in ("--editable", str(project))]
        pip("--no-deps", "--no-build-isolation", *editable)


def pip(*arguments: str) -> None:
    command = [
        str(VENV / "bin" / "python"),
        "-m",
        "pip",
        "--disable-pip-version-check",
        "install",
        "--quiet",
        *arguments,
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        lines = [line for line in result.stderr.splitlines() if line.strip()] or ["it said nothing"]
        raise SetupError(
            f"Installing Python packages into {VENV} failed ({lines[-1].strip()}): check that pip reaches its package "
            "index from here, then run the command again."
        )


def check_venv_module(progress: Progress) -> None:
    """Debian and Ubuntu leave `ensurepip` out of Python; as root it is installed, named beforehand."""
    if importlib.util.find_spec("ensurepip"):
        return
    package = "python{}.{}-venv".format(*sys.version_info[:2])
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise SetupError(f"Python's venv module is missing: run `sudo apt-get install {package}` or its like.")
    with progress.step(f"Installing the system package {package}"):
        install_package = ["apt-get", "install", "--yes", "--no-install-recommends", package]
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update"], env=environment, capture_output=True, check=False)
        result = subprocess.run(install_package, env=environment, capture_output=True, text=True, check=False)
        if result.returncode:
            raise SetupError(f"`{' '.join(install_package)}` failed: {' '.join(result.stderr.split())[-300:]}.")
