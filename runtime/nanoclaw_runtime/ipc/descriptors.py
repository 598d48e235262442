"""Paths in folders an agent writes to, walked by descriptor so that no link is ever followed.

An agent may be hostile, and it may put anything anywhere below its own folders: links, pipes,
folders in place of files. Whatever is opened here is what it was taken for, or an OSError.
Not here: what the files mean (`mailbox`, `requests`, `snapshots`).
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def opened_folder(path: Path | str, parent: int | None = None) -> Iterator[int]:
    """A descriptor of the folder; raises NotADirectoryError for a link, even to a folder."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def replace_file(folder: int, name: str, content: bytes) -> None:
    """Make `name` a file with this content, whole or not at all, whatever was there before.

    A folder of that name is moved aside: emptying it would be the agent's choice of work for us.
    """
    temporary = f".{name}.{secrets.token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    try:
        with os.fdopen(os.open(temporary, flags, 0o664, dir_fd=folder), "wb") as file:
            file.write(content)
        _move_folder_aside(folder, name)
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=folder)
        raise


def _move_folder_aside(folder: int, name: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            os.rename(name, f".{name}.{secrets.token_hex(8)}", src_dir_fd=folder, dst_dir_fd=folder)
