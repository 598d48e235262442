"""The controller's copy of one session's files: what the server reads of it, and what it writes.

The folder lies on the controller's own volume and nobody else writes there, but what is put into it comes from an
agent's pod: names are checked, links never followed, and everything stays below the one group's folder. Everything
here blocks and may raise OSError. Not here: which of it goes over a stream, and when (`stream`).
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import structlog

from nanoclaw_runtime.bridge.protocol import LATEST, Form, Request, StreamEnded
from nanoclaw_runtime.contract import bridge, layout, names, wire
from nanoclaw_runtime.domain.requests import RequestKind
from nanoclaw_runtime.ipc import archive, mailbox, requests, skills
from nanoclaw_runtime.ipc.descriptors import make_folder, opened_folder, replace_file, walked_folder

SNAPSHOTS: Final = (wire.CURRENT_TASKS_FILE, wire.AVAILABLE_GROUPS_FILE)
REPORTED_FILE: Final = ".reported"
"""Beside the inputs of a session whose last report has arrived; another process finds it, too."""
_LONGEST_NAME: Final = 255
_BLOCK: Final = 4096
# Bytes that a file takes beyond its own; the kubelet, which evicts for too many, counts blocks.

_log = structlog.get_logger(__name__)

File = tuple[str, int]
"""Name and version."""


class SessionFiles:
    """What the controller has for one session, and what it had from it."""

    def __init__(self, tree: Path, folder: str, session: str) -> None:
        self.folder, self.session = folder, session
        self._tree = tree
        self._ipc = tree / layout.ipc_dir(folder)

    def inputs(self) -> list[File]:
        """What the agent has not taken as far as is known, in the order in which it should have it."""
        try:
            with self._input() as here:
                names = [name for name in os.listdir(here) if mailbox.is_input(name)]
                found = [(name, _version(here, name)) for name in names]
        except FileNotFoundError:
            return []
        # One that goes during the look must not hide the others. `_close` last: who has seen it takes nothing more.
        return sorted((name, version) for name, version in found if version is not None)

    def input(self, name: str) -> bytes | None:
        """None when it is gone."""
        with contextlib.suppress(FileNotFoundError), self._input() as here:
            return mailbox.plain_content(here, name, mailbox.LARGEST_FILE)
        return None

    def taken(self, name: str, version: int) -> None:
        """The agent took it: our copy goes, unless it is another one by now."""
        with contextlib.suppress(FileNotFoundError), self._input() as here:
            if mailbox.is_input(name) and os.stat(name, dir_fd=here, follow_symlinks=False).st_mtime_ns == version:
                os.unlink(name, dir_fd=here)

    def snapshots(self) -> list[tuple[str, tuple[int, ...]]]:
        """Names, and what tells each from the one of before: its time alone is that of a clock that ticks slowly."""
        found = []
        with contextlib.suppress(FileNotFoundError), opened_folder(self._ipc) as here:
            for name in SNAPSHOTS:
                with contextlib.suppress(FileNotFoundError):
                    found.append((name, requests.identity_of(os.stat(name, dir_fd=here, follow_symlinks=False))))
        return found

    def snapshot(self, name: str) -> bytes | None:
        """None when it is gone."""
        with contextlib.suppress(FileNotFoundError), opened_folder(self._ipc) as here:
            return mailbox.plain_content(here, name, mailbox.LARGEST_FILE)
        return None

    def place(self, request: Request) -> None:
        """Put a request where the controller looks for it. Raises StreamEnded for a name that is none."""
        name = _checked(request)
        with self._requests(request.kind) as here:
            if _is(here, name, request):
                return
            aside = f".{secrets.token_hex(8)}"
            try:
                _write(here, aside, request)
                if request.form is Form.FOREIGN or stat.S_ISDIR(_mode(here, name)):
                    _discard(here, name)  # no rename puts a file in place of a folder, or the other way round
                os.rename(aside, name, src_dir_fd=here, dst_dir_fd=here)
            except BaseException:
                _discard(here, aside)
                raise

    def placed(self, wanted: Iterable[tuple[str, bytes]]) -> set[tuple[str, bytes]]:
        """Those requests, by kind and name, that the controller has not dealt with."""
        found = set()
        for kind, name in wanted:
            with contextlib.suppress(FileNotFoundError), walked_folder(self._ipc, kind) as here:
                os.stat(name, dir_fd=here, follow_symlinks=False)
                found.add((kind, name))
        return found

    def has_reported(self) -> bool:
        with contextlib.suppress(FileNotFoundError), self._input() as here:
            return _version(here, REPORTED_FILE) is not None
        return False

    def set_reported(self) -> None:
        with contextlib.suppress(FileNotFoundError), self._input() as here:
            replace_file(here, REPORTED_FILE, b"")

    def forget_report(self) -> None:
        with contextlib.suppress(FileNotFoundError), self._input() as here:
            os.unlink(REPORTED_FILE, dir_fd=here)

    def carried(self) -> Iterator[bytes]:
        """What the pod fetches at its start, as an archive: the project for main; for others memory and skills."""
        areas = [layout.PROJECT_DIR]
        if self.folder != names.MAIN_FOLDER:
            areas = [layout.GLOBAL_DIR, "/".join((layout.PROJECT_DIR, *skills.SOURCE))]
        found = [
            (f"{area}/{file.path}", file.size) for area in areas for file in archive.listing(self._tree / area).files
        ]
        paths, room = [], bridge.LARGEST_CARRIED
        for path, size in found:
            if size + _BLOCK <= room:
                paths.append(path)
                room -= size + _BLOCK
        if len(paths) < len(found):
            _log.warning("bridge.left-behind", group=self.folder, files=len(found) - len(paths))
        return archive.pack(self._tree, paths)

    def _input(self) -> contextlib.AbstractContextManager[int]:
        return walked_folder(self._ipc, layout.SESSION_INPUTS, self.session)

    @contextlib.contextmanager
    def _requests(self, kind: str) -> Iterator[int]:
        self._ipc.mkdir(parents=True, exist_ok=True)
        with opened_folder(self._ipc) as ipc:
            make_folder(kind, ipc)
            with opened_folder(kind, ipc) as here:
                yield here


def _checked(request: Request) -> bytes:
    name = request.name
    is_name = name.endswith(b".json") and len(name) <= _LONGEST_NAME and not {b"/"[0], 0} & set(name)
    fits = len(request.content) <= requests.LARGEST_FILE and abs(request.modified) <= LATEST
    if request.kind not in set(RequestKind) or not is_name or not fits:
        raise StreamEnded("a request that cannot be one")
    return name


def _write(here: int, aside: str, request: Request) -> None:
    """As the agent has it, as far as that matters to who reads it: its time, its size, whether it is a plain file."""
    if request.form is Form.FOREIGN:
        os.mkdir(aside, dir_fd=here)
    else:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with os.fdopen(os.open(aside, flags, 0o664, dir_fd=here), "wb") as file:
            file.write(request.content)
            if request.form is Form.LARGE:
                file.truncate(requests.LARGEST_FILE + 1)
    os.utime(aside, ns=(request.modified, request.modified), dir_fd=here)


def _is(here: int, name: bytes, request: Request) -> bool:
    """Whether this very request lies there already; one that was replaced would be read anew."""
    if request.form is not Form.FILE or _version(here, name) != request.modified:
        return False
    return mailbox.plain_content(here, name, requests.LARGEST_FILE) == request.content


def _discard(here: int, name: str | bytes) -> None:
    with contextlib.suppress(OSError):
        os.unlink(name, dir_fd=here)
    with contextlib.suppress(OSError):
        os.rmdir(name, dir_fd=here)


def _version(here: int, name: str | bytes) -> int | None:
    try:
        return os.stat(name, dir_fd=here, follow_symlinks=False).st_mtime_ns
    except FileNotFoundError:
        return None


def _mode(here: int, name: bytes) -> int:
    try:
        return os.stat(name, dir_fd=here, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return 0
