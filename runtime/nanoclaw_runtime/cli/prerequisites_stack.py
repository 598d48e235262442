"""Finds who can read stacks: the platform's package, which offers its reader as an entry point.

The command line comes without that package too, in the controller's image; then it knows no stacks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from nanoclaw_runtime.cli.errors import CommandFailed
from nanoclaw_runtime.contract.needs import STACK_READERS, Needs, StackReader, StackUnusable


def read(stack: str, project: Path | None, environ: Mapping[str, str]) -> Needs:
    """What the stack needs. Raises CommandFailed with everything that is wrong with the stack."""
    try:
        return reader(entry_points(group=STACK_READERS))(stack, project, environ)
    except StackUnusable as error:
        raise CommandFailed(str(error)) from None


def reader(offered: Iterable[EntryPoint]) -> StackReader:
    """The reader among the entry points. Raises CommandFailed when there is none."""
    for each in offered:
        found: StackReader = each.load()
        return found
    raise CommandFailed("this `nanoclaw` can read no stacks; use the one of a checkout, `.venv/bin/nanoclaw`")
