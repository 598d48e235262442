"""The project folder of an installation, made the same as a folder of this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nanoclaw_runtime.cli import carrying
from nanoclaw_runtime.cli.remote import Remote
from nanoclaw_runtime.domain import migration
from nanoclaw_runtime.domain.transfer import Area, FileList


@dataclass(frozen=True)
class Pushed:
    files: int
    """In the folder."""
    sent: int
    bytes: int
    """Of those that were sent."""
    removed: int
    links: int
    """Left out, like everything that is no plain file."""


async def push(remote: Remote, root: Path, found: FileList, *, dry_run: bool) -> Pushed:
    """Send what differs and remove what is not `found`; with `dry_run` only count it."""
    here = await carrying.files(remote, Area.PROJECT)
    plan = migration.file_plan(found, here, keep_newer=False)
    stale = sorted({file.path for file in here.files} - {file.path for file in found.files})
    if not dry_run:
        await carrying.remove_files(remote, stale, Area.PROJECT)  # first: one may lie where a folder has to be
        await carrying.send_files(remote, root, plan.changed, Area.PROJECT)
    return Pushed(files=plan.total, sent=len(plan.changed), bytes=plan.bytes, removed=len(stale), links=plan.links)
