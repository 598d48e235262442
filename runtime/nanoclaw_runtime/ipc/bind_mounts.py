"""The folders of the tree that a container binds, made ready for the agent's user.

The engine would follow a link that an agent put in their place, and would leave folders that root
made to root. So each is walked without following links, and what belongs to root is given away.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from nanoclaw_runtime.contract.layout import Mount
from nanoclaw_runtime.ipc.archive import DEEPEST
from nanoclaw_runtime.ipc.descriptors import opened_folder

MODE = 0o775


def make_ready(tree: Path, mounts: Iterable[Mount], uid: int, gid: int) -> None:
    """Make what is missing; where we are root, give what root owns in the writable ones to the agent.

    What somebody else owns stays theirs. Only while no agent of the group runs. Raises OSError, also for a link
    on the way.
    """
    for mount in mounts:
        descriptor = _walked(tree, Path(mount.sub_path or "").parts)
        try:
            if not os.geteuid() and not mount.read_only:
                _give(descriptor, uid, gid)
        finally:
            os.close(descriptor)


def _walked(tree: Path, parts: Iterable[str]) -> int:
    descriptor = os.open(tree, os.O_RDONLY | os.O_DIRECTORY)
    for part in parts:
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, MODE, dir_fd=descriptor)
            child = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
        finally:
            os.close(descriptor)
        descriptor = child
    return descriptor


def _give(folder: int, uid: int, gid: int, depth: int = DEEPEST) -> None:
    """As deep as root makes anything. An agent may go deeper, and may make more than can be listed at once."""
    if os.fstat(folder).st_uid == 0:
        os.fchown(folder, uid, gid)
    with os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):  # a request of the agent before, say, that is dealt with now
                _give_one(entry, folder, uid, gid, depth)


def _give_one(entry: os.DirEntry[str], folder: int, uid: int, gid: int, depth: int) -> None:
    if entry.is_dir(follow_symlinks=False):
        if depth:
            with opened_folder(entry.name, folder) as inner:
                _give(inner, uid, gid, depth - 1)
    elif entry.stat(follow_symlinks=False).st_uid == 0:
        os.chown(entry.name, uid, gid, dir_fd=folder, follow_symlinks=False)
