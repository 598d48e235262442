"""`make check`: what can be known about the code in a minute or two on two cores, without a binary of ours.

All steps run, even behind one that failed; a step's output is shown only when it failed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from nanoclaw_dev.paths import CACHE, CHECKOUT
from nanoclaw_dev.progress import Progress, duration

PROGRAMS = Path(sys.executable).parent
# The environment's own tools, whatever PATH says.

WITHOUT_BINARIES = "not apiserver and not engine and not cluster and not docker"


@dataclass(frozen=True)
class Step:
    """One tool of the environment and its arguments."""

    title: str
    command: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """What became of a step."""

    title: str
    passed: bool
    seconds: float
    output: str

    def line(self) -> str:
        return f"{'✓' if self.passed else '✗'} {self.title}  {duration(self.seconds)}"


STATIC = (
    Step("Format", ("ruff", "format", "--check", ".")),
    Step("Lint", ("ruff", "check", "--quiet", "--output-format", "concise", ".")),
    Step("Types", ("mypy",)),
    Step("Import contracts", ("lint-imports", "--no-logo")),
)
"""Steps that read the code without running it."""

WORKERS = 2 * (os.cpu_count() or 1)
"""Of pytest. Tests wait half of their time: for a pod, a lease, the end of a process."""

QUICK = ("--hypothesis-profile", "quick", "--ignore", "tests/exhaustive")
"""Fewer generated examples, and no search through all states; the whole suite has them."""

TESTS = Step(
    "Quick tests",
    ("pytest", "--quiet", "--numprocesses", str(WORKERS), "--dist", "worksteal", *QUICK, "-m", WITHOUT_BINARIES),
)


def environment() -> dict[str, str]:
    """The caller's; who wants no bytecode beside the code has it in our cache.

    Pytest rewrites every test file, and without bytecode each worker would do it at each run.
    """
    ours = dict(os.environ)
    if ours.pop("PYTHONDONTWRITEBYTECODE", ""):
        ours["PYTHONPYCACHEPREFIX"] = str(CACHE / "bytecode")
    return ours


def check(progress: Progress) -> int:
    """Run every step; returns the exit code."""
    outcomes = run([*STATIC, TESTS], progress)
    return 0 if all(outcome.passed for outcome in outcomes) else 1


def run(steps: list[Step], progress: Progress) -> list[Outcome]:
    """Run the steps one after the other; the output of those that fail follows behind all of them."""
    outcomes = [_run(step, progress) for step in steps]
    for outcome in outcomes:
        if not outcome.passed:
            progress.say(f"\n{outcome.title}:\n{outcome.output.strip()}")
    return outcomes


def _run(step: Step, progress: Progress) -> Outcome:
    program, *arguments = step.command
    started = time.monotonic()
    with progress.step(step.title) as shown:
        result = subprocess.run(
            [str(PROGRAMS / program), *arguments],
            cwd=CHECKOUT,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if result.returncode:
            shown.fail()
    return Outcome(step.title, not result.returncode, time.monotonic() - started, result.stdout)
