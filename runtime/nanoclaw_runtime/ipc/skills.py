"""The project's skills, copied into a group's `.claude/skills` before each start, as NanoClaw does.

The agent owns the target, so nothing there is followed, trusted or read, and what it changed is made ours again.
Whether anything is to do is told by a digest on our side, over what the files are at both ends: when a file's status
changed is stamped by its file system, not by its owner. Skills that are no longer in the project stay, as in NanoClaw.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from nanoclaw_runtime.ipc.descriptors import make_folder, opened_folder, walked_folder

_log = structlog.get_logger(__name__)

LARGEST: Final = 64 * 1024 * 1024
"""Bytes of all skills together; those that do not fit are left out."""
DEEPEST: Final = 32
"""Folders in each other that are looked into; what lies deeper is left out."""

SOURCE: Final = ("container", "skills")
"""Where the project has them."""
_TARGET: Final = "skills"


@dataclass(frozen=True)
class _File:
    name: str
    size: int
    mode: int
    changed: int


@dataclass(frozen=True)
class _Folder:
    """What of a folder is copied: files and folders, no links and nothing else."""

    name: str
    files: tuple[_File, ...]
    folders: tuple[_Folder, ...]

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files) + sum(folder.size for folder in self.folders)


def copy_skills(project: Path, sessions: Path, stamp: Path) -> None:
    """Give a group, whose `.claude` is `sessions`, the project's skills; the digest is kept in the file `stamp`.

    What cannot be copied is logged and left out. Raises OSError.
    """
    with contextlib.ExitStack() as stack:
        try:
            source = stack.enter_context(walked_folder(project, *SOURCE))
        except FileNotFoundError:
            return
        home = stack.enter_context(opened_folder(sessions))
        make_folder(_TARGET, home)
        target = stack.enter_context(opened_folder(_TARGET, home))
        skills = _fitting(_seen(".", source, DEEPEST).folders)
        if not (stamp.is_file() and stamp.read_text() == _digest(skills, target)):
            _copy_all(skills, source, target, stamp)


def _copy_all(skills: list[_Folder], source: int, target: int, stamp: Path) -> None:
    refused = [error for skill in skills for error in _copy(skill, source, target)]
    if refused:
        _log.warning("skills.not-copied", group=stamp.name, files=len(refused), first=str(refused[0]))
    if (digest := _digest(skills, target)) is not None and not refused:
        stamp.parent.mkdir(parents=True, exist_ok=True)
        stamp.write_text(digest)


def _seen(name: str, parent: int, depth: int) -> _Folder:
    with opened_folder(name, parent) as here:
        files, folders = list[_File](), list[_Folder]()
        for entry in sorted(os.listdir(here)):
            with contextlib.suppress(FileNotFoundError):  # the project is just being changed; the rest is copied
                status = os.stat(entry, dir_fd=here, follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode) and depth:
                    folders.append(_seen(entry, here, depth - 1))
                elif stat.S_ISREG(status.st_mode):
                    files.append(_File(entry, status.st_size, status.st_mode & 0o777, status.st_mtime_ns))
        return _Folder(name, tuple(files), tuple(folders))


def _fitting(skills: tuple[_Folder, ...]) -> list[_Folder]:
    fitting, room = list[_Folder](), LARGEST
    for skill in skills:
        if skill.size > room:
            _log.warning("skills.too-large", skill=skill.name, bytes=skill.size, limit=LARGEST)
            continue
        fitting.append(skill)
        room -= skill.size
    return fitting


def _digest(skills: list[_Folder], target: int) -> str | None:
    """What both ends are now; None when the target lacks something."""
    try:
        states = [state for skill in skills for state in _states(skill, target)]
    except OSError:
        return None
    return hashlib.sha256(repr((skills, states)).encode()).hexdigest()


def _states(folder: _Folder, parent: int) -> Iterator[tuple[int, ...]]:
    with opened_folder(folder.name, parent) as here:
        for file in folder.files:
            status = os.stat(file.name, dir_fd=here, follow_symlinks=False)
            yield status.st_mode, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
        for inner in folder.folders:
            yield from _states(inner, here)


def _copy(folder: _Folder, source: int, target: int) -> Iterator[OSError]:
    """Copy a folder with all it holds over what is there; the reasons why parts of it could not be."""
    try:
        make_folder(folder.name, target)
        with opened_folder(folder.name, source) as there, opened_folder(folder.name, target) as here:
            for file in folder.files:
                try:
                    _copy_file(file, there, here)
                except OSError as error:
                    yield error
            for inner in folder.folders:
                yield from _copy(inner, there, here)
    except OSError as error:
        yield error


def _copy_file(file: _File, source: int, target: int) -> None:
    # Renamed into place, so that a full volume leaves the agent the old one.
    temporary = f".{file.name}.nanoclaw"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary, dir_fd=target)
    try:
        _transfer(file, source, target, temporary)
        os.rename(temporary, file.name, src_dir_fd=target, dst_dir_fd=target)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=target)
        raise


def _transfer(file: _File, source: int, target: int, name: str) -> None:
    reading = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    writing = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with (
        open(os.open(file.name, reading, dir_fd=source), "rb") as there,
        open(os.open(name, writing, file.mode | 0o664, dir_fd=target), "wb") as here,
    ):
        done = 0
        while done < file.size and (sent := os.sendfile(here.fileno(), there.fileno(), done, file.size - done)):
            done += sent
