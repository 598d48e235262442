"""`make test`: the whole suite on the real engine and a real cluster, with everything it needs set up first."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import time

from nanoclaw_dev import check, engine_binaries, gomodules, images, modules, system
from nanoclaw_dev.check import PROGRAMS, Outcome
from nanoclaw_dev.errors import SetupError
from nanoclaw_dev.paths import CHECKOUT
from nanoclaw_dev.progress import Progress

MOST_CLUSTERS = 8
"""Workers at most, whatever the machine has: each starts a cluster of its own, of about a gigabyte."""

BY_FILE = ("--numprocesses", str(min(check.WORKERS, MOST_CLUSTERS)), "--dist", "loadfile", "--no-loadscope-reorder")
"""Each worker has files of its own, so that what a file starts is started once; in the order of their names: those
that need a cluster are long and come early, and the last minutes are even."""

CLOSING = re.compile(r"=+ .*\b(passed|failed|error|errors|skipped|deselected|no tests ran)\b.* =+")
"""Pytest's own last line."""


def test(progress: Progress) -> int:
    """Set up, check the code, run all tests; returns the exit code.

    Pytest's closing line is the last thing printed. What this machine cannot run is skipped with
    its reason, except with CI=true, where it is a failure. Raises SetupError.
    """
    unavailable = set_up(progress)
    outcomes = check.run([*check.STATIC], progress)
    progress.say()
    tests, closing = _pytest(progress)
    progress.say("\nSummary")
    for outcome in [*outcomes, tests]:
        progress.say(outcome.line())
    if unavailable:
        progress.say(f"- Not run here: {unavailable}")
    progress.say(closing)
    return 0 if all(outcome.passed for outcome in [*outcomes, tests]) else 1


def set_up(progress: Progress) -> str | None:
    """Everything the tests use: engine, cluster binaries, system packages, images.

    Returns why the layers that need a node cannot run on this machine, or None when they can.
    Raises SetupError when something can be had here but could not, and for that reason with CI=true.
    """
    unavailable = _no_node()
    if unavailable is None:
        packages = {**system.CLUSTER_PACKAGES, **system.IMAGE_PACKAGES, **system.DOCKER_PACKAGES}
        system.install_missing(packages, progress)
    engine_binaries.find(progress)
    if platform.system() == "Linux":
        gomodules.build_missing([*modules.CLUSTER, *modules.TESTING], progress)
    if unavailable is None:
        images.build_images(progress)
    return unavailable


def _no_node() -> str | None:
    try:
        system.check_root()
    except SetupError as reason:
        if os.environ.get("CI") == "true":
            raise
        return str(reason)
    return None


def _pytest(progress: Progress) -> tuple[Outcome, str]:
    """All tests but those of `make matrix`, with their output as it comes; the closing line is returned."""
    started = time.monotonic()
    command = [str(PROGRAMS / "pytest"), *BY_FILE, "-m", "not wide and not matrix"]
    process = subprocess.Popen(
        command,
        cwd=CHECKOUT,
        env=check.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    closing = ""
    try:
        for line in process.stdout:
            if closing:
                progress.say(closing)
                closing = ""
            text = line.rstrip("\n")
            if CLOSING.fullmatch(text):
                closing = text
            else:
                progress.say(text)
        code = process.wait()
    except KeyboardInterrupt:
        process.wait()  # it got the signal, too, and is stopping its clusters
        raise
    return Outcome("Tests", code == 0, time.monotonic() - started, ""), closing or f"pytest ended with code {code}"
