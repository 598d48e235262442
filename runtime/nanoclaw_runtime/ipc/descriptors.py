"""Paths in folders an agent writes to, walked by descriptor so that no link is ever followed.

An agent may be hostile, and it may put anything anywhere below its own folders: links, pipes,
folders in place of files. Whatever is opened here is what it was taken for, or an OSError.
Not here: what the files mean (`mailbox`, `requests`, `snapshots`).
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

FOLDER_MODE: Final = 0o775
"""Of folders we make in group volumes: the agent has our group, if not our uid."""

MOVED_AT_ONCE: Final = 1000
"""Folders of a folder that is removed."""


@contextlib.contextmanager
def opened_folder(path: Path | str, parent: int | None = None) -> Iterator[int]:
    """A descriptor of the folder; raises NotADirectoryError for a link, even to a folder."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def walked_folder(root: Path, *parts: str) -> Iterator[int]:
    """A descriptor of `root/part/part…`; of the parts none may be a link. Raises OSError."""
    with contextlib.ExitStack() as stack:
        descriptor = stack.enter_context(opened_folder(root))
        for part in parts:
            descriptor = stack.enter_context(opened_folder(part, descriptor))
        yield descriptor


def make_folder(name: str, parent: int) -> None:
    """Make a folder inside another; a file or link that stands in its place goes. Raises OSError."""
    try:
        os.mkdir(name, FOLDER_MODE, dir_fd=parent)
    except FileExistsError:
        try:
            with opened_folder(name, parent):
                return
        except OSError as error:
            if error.errno not in {errno.ENOTDIR, errno.ELOOP}:
                raise
        os.unlink(name, dir_fd=parent)
        os.mkdir(name, FOLDER_MODE, dir_fd=parent)


def remove_tree(name: str, parent: int) -> None:
    """Remove a file, a link or a folder with all it holds; nothing there is fine. Raises OSError.

    Folders in it are moved up beside it first: an agent may nest them deeper than a stack or the
    open descriptors of a process reach.
    """
    pending = [name]
    while pending:
        try:
            os.unlink(pending[-1], dir_fd=parent)
        except FileNotFoundError:
            pass
        except (IsADirectoryError, PermissionError):
            with contextlib.suppress(FileNotFoundError):  # somebody else removes it, too
                with opened_folder(pending[-1], parent) as folder:
                    moved = _emptied(folder, parent)
                if moved:
                    pending += moved
                    continue
                os.rmdir(pending[-1], dir_fd=parent)
        pending.pop()


def _emptied(folder: int, parent: int) -> list[str]:
    """Remove the files of a folder and move its folders to `parent`, `MOVED_AT_ONCE` of them; their names there.

    The folder is never listed as a whole: millions of names would fill the memory.
    """
    moved: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):  # somebody else removes it, too
                try:
                    os.unlink(entry.name, dir_fd=folder)
                except (IsADirectoryError, PermissionError):
                    aside = f".removed.{secrets.token_hex(8)}"
                    os.rename(entry.name, aside, src_dir_fd=folder, dst_dir_fd=parent)
                    moved.append(aside)
            if len(moved) == MOVED_AT_ONCE:
                break
    return moved


def replace_file(folder: int, name: str, content: bytes, *, lasting: bool = False) -> None:
    """Make `name` a file with this content, whole or not at all, whatever was there before.

    A folder of that name is moved aside: emptying it would be the agent's choice of work for us. With `lasting` it
    survives a power cut.
    """
    temporary = f".{name}.{secrets.token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    try:
        with os.fdopen(os.open(temporary, flags, 0o664, dir_fd=folder), "wb") as file:
            file.write(content)
            if lasting:
                file.flush()
                os.fsync(file.fileno())
        _move_folder_aside(folder, name)
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        if lasting:
            with contextlib.suppress(OSError):  # not every file system takes it for a folder
                os.fsync(folder)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=folder)
        raise


def _move_folder_aside(folder: int, name: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            os.rename(name, f".{name}.{secrets.token_hex(8)}", src_dir_fd=folder, dst_dir_fd=folder)
