"""What the Makefile calls: `python -m nanoclaw_dev up|down|env|check|test|matrix|preview|render|bench|lock`.

A mistake of the machine or its user is one sentence on stderr and exit code 1; anything else that
goes wrong is a bug and shows its traceback.
"""

from __future__ import annotations

import argparse
import pkgutil
import sys

from nanoclaw_dev.errors import SetupError
from nanoclaw_dev.progress import Progress

COMMANDS = {
    "up": ("nanoclaw_dev.up:up", "everything up on this machine, and a first message answered"),
    "down": ("nanoclaw_dev.up:down", "destroy the stack, stop the cluster, leave nothing behind"),
    "env": ("nanoclaw_dev.up:env", "what a shell needs for `pulumi` on this machine's cluster"),
    "check": ("nanoclaw_dev.check:check", "format, lint, types, import contracts and the tests that need no binary"),
    "test": ("nanoclaw_dev.test:test", "the whole suite on the real engine and a real cluster"),
    "matrix": ("nanoclaw_dev.matrix:matrix", "every way to run agents, written to docs/conformance.md"),
    "preview": ("nanoclaw_dev.up:preview", "what `pulumi up` would change"),
    "render": ("nanoclaw_dev.render:render", "what a stack declares, as YAML files"),
    "bench": ("bench.harness:main", "measure, beside baselines, and write bench/results"),
    "lock": ("nanoclaw_dev.lock:lock", "the pinned requirements anew"),
}
"""Command → the function that does it, imported only then, and its line of help."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="nanoclaw_dev", description="The developer's commands of this checkout.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, (_, purpose) in COMMANDS.items():
        command = commands.add_parser(name, help=purpose, description=purpose)
        if name == "preview":
            command.add_argument("stack", nargs="?", default="local", help="local unless named")
        if name == "render":
            command.add_argument("stack")
            command.add_argument("--out", help="folder for the files; rendered/STACK unless named")
    options = vars(parser.parse_args(arguments))
    place, _ = COMMANDS[options.pop("command")]
    try:
        return pkgutil.resolve_name(place)(Progress(), **options) or 0
    except SetupError as problem:
        sys.stderr.write(f"{problem}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted\n")
        return 130


if __name__ == "__main__":
    sys.exit(main())
