"""`make lock`: the pinned requirements anew from the ranges in the pyproject files.

Two files: what goes into the runtime's image, and what development and the Pulumi program need on
top, with the same versions. Pins that still fit stay; no address of an index gets in.
"""

from __future__ import annotations

import subprocess
import sys

from nanoclaw_dev.errors import SetupError
from nanoclaw_dev.paths import CHECKOUT
from nanoclaw_dev.progress import Progress

RUNTIME = "requirements/runtime.txt"
DEVELOPMENT = "requirements/development.txt"

_COMMON = (
    *("--quiet", "--universal", "--generate-hashes", "--python-version", "3.11"),
    *("--no-emit-index-url", "--no-emit-find-links", "--custom-compile-command", "make lock"),
)


def lock(progress: Progress) -> None:
    """Write both files. Raises SetupError with the resolver's last words."""
    with progress.step(f"Locking {RUNTIME}"):
        _compile("runtime/pyproject.toml", "--output-file", RUNTIME)
    with progress.step(f"Locking {DEVELOPMENT}"):
        _compile(
            *("pyproject.toml", "--group", "pyproject.toml:development", "--no-emit-package", "nanoclaw-runtime"),
            *("--constraints", "requirements/constraints.in", "--constraints", RUNTIME, "--output-file", DEVELOPMENT),
        )
    progress.say("The next `make` brings .venv up to date.")


def _compile(*arguments: str) -> None:
    command = [sys.executable, "-m", "uv", "pip", "compile", *_COMMON, *arguments]
    result = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    if result.returncode:
        raise SetupError(
            f"The requirements cannot be resolved: {' '.join(result.stderr.split())[-600:]} "
            "(change the range in the pyproject file that the resolver names)."
        )
