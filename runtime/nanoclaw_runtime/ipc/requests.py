"""Files that agents leave for their host in `messages/` and `tasks/`, and nothing about what they ask.

Whatever an agent puts there costs us no more than a small file: few names are looked at, only plain
files of a bounded size are read, nothing is opened that could block, no link is followed. A file is
removed only by `done` and `quarantine`, and only while it is still the one that was read.
Not here: who may ask for what (`domain.requests`), carrying out once (`store.requests`).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NoReturn

from nanoclaw_runtime.contract import layout
from nanoclaw_runtime.domain.requests import RequestKind
from nanoclaw_runtime.ipc.descriptors import opened_folder, replace_file, walked_folder

FILES_AT_ONCE: Final = 100
"""Of one directory; the rest has its turn after the other groups had theirs."""
NAMES_AT_ONCE: Final = 10_000
"""A directory of millions must not cost seconds each second."""
LARGEST_FILE: Final = 1024 * 1024
"""Bytes; NanoClaw's own tool writes a few hundred."""
PATIENCE: Final = 2.0
"""Seconds that what does not parse may still be being written: a shell redirect is not atomic.
By our own clock from the first look: the agent can set a file's times as it likes."""

ERRORS_DIR: Final = f"{layout.STORE_DIR}/errors"
"""NanoClaw has it beside the groups' folders; here only the store is always there and ours alone."""
ERRORS_KEPT: Final = 100
EVIDENCE: Final = 64 * 1024
"""Bytes kept of a file in `ERRORS_DIR`: agents must not be able to fill the store."""

_FOREIGN: Final = re.compile(r"[^A-Za-z0-9._-]")
_UNREADABLE: Final = {errno.ELOOP, errno.ENXIO, errno.EACCES, errno.EPERM}
# A link, a socket, a file that is closed to us.


@dataclass(frozen=True)
class RequestFile:
    """What lies under a name: a document, or a problem."""

    name: str
    key: str
    """Of this very file: another one of the same name or content has another key."""
    document: Any = field(default=None, repr=False)
    problem: str | None = None
    """Why it cannot be a request."""
    content: bytes = field(default=b"", repr=False)
    identity: tuple[int, ...] | None = None
    """What tells it from a later file of the same name."""

    @property
    def plain_name(self) -> str:
        """The name in characters that may stand in logs and paths."""
        return _FOREIGN.sub("_", self.name)[-100:]


class RequestFolder:
    """One directory of requests of one group. Every method blocks: call it in a thread, one at a time."""

    def __init__(
        self, tree: Path, folder: str, kind: RequestKind, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.kind = kind
        self._folder = folder
        self._root = tree / layout.ipc_dir(folder)
        self._errors = tree / ERRORS_DIR
        self._clock = clock
        self._first_seen: dict[str, float] = {}
        self._stuck: set[str] = set()

    def names(self) -> list[str]:
        """The first names that may be requests, in order; none when the directory was never made.

        Raises OSError when there is something else in its place, or it cannot be read.
        """
        try:
            with self._opened() as folder, os.scandir(folder) as entries:
                names = [entry.name for entry in itertools.islice(entries, NAMES_AT_ONCE)]
        except FileNotFoundError:
            names = []
        self._stuck.intersection_update(names)
        found = sorted(name for name in names if name.endswith(".json") and name not in self._stuck)[:FILES_AT_ONCE]
        self._first_seen = {name: seen for name, seen in self._first_seen.items() if name in found}
        return found

    def read(self, name: str) -> RequestFile | None:
        """What lies under the name; None when it is gone, or may still be being written. Raises OSError."""
        with self._opened() as folder:
            try:
                with opened_file(folder, name) as descriptor:
                    return self._examined(name, descriptor)
            except FileNotFoundError:
                return None
            except OSError as error:
                if error.errno not in _UNREADABLE:
                    raise
                return RequestFile(name, "", problem=f"it is no file we can read: {os.strerror(error.errno)}")

    def done(self, file: RequestFile) -> bool:
        """Remove the file, unless another one has taken its name.

        False when it cannot be removed: it stays, and this process does not look at it again.
        """
        try:
            with self._opened() as folder:
                if file.identity in {None, identity_of(os.stat(file.name, dir_fd=folder, follow_symlinks=False))}:
                    remove(folder, file.name)
        except FileNotFoundError:
            return True
        except OSError:
            self._stuck.add(file.name)
            return False
        return True

    def quarantine(self, file: RequestFile) -> bool:
        """Keep the beginning of what was read where a human finds it, then remove the file as `done` does."""
        try:
            if file.content:
                self._keep(file)
        except OSError:
            self._stuck.add(file.name)
            return False
        return self.done(file)

    def _keep(self, file: RequestFile) -> None:
        self._errors.mkdir(parents=True, exist_ok=True)
        with opened_folder(self._errors) as errors:
            replace_file(errors, f"{self._folder}-{file.plain_name}", file.content[:EVIDENCE])
            _keep_newest(errors)

    def _opened(self) -> contextlib.AbstractContextManager[int]:
        return walked_folder(self._root, self.kind.value)

    def _examined(self, name: str, descriptor: int) -> RequestFile | None:
        found = os.fstat(descriptor)
        identity = identity_of(found)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
            problem = "it is no plain file, or one with several names"
            return RequestFile(name, "", problem=problem, identity=identity)
        content, after = read_bounded(descriptor), os.fstat(descriptor)
        if identity_of(after) != identity or not after.st_nlink:
            return None  # written to while we read, or replaced by another one
        if len(content) > LARGEST_FILE:
            problem = f"it is larger than {LARGEST_FILE} bytes"
            return RequestFile(name, "", problem=problem, content=content[:EVIDENCE], identity=identity)
        try:
            document = json.loads(content.decode(errors="replace"), parse_constant=_no_json)
        except (ValueError, RecursionError):
            if self._clock() - self._first_seen.setdefault(name, self._clock()) < PATIENCE:
                return None
            return RequestFile(name, "", problem="it is no JSON", content=content, identity=identity)
        return RequestFile(name, self._key(name, found, content), document, content=content, identity=identity)

    def _key(self, name: str, found: os.stat_result, content: bytes) -> str:
        facts = (self._folder.encode(), self.kind.encode(), os.fsencode(name), b"%d" % found.st_mtime_ns, content)
        return hashlib.sha256(b"\0".join(facts)).hexdigest()


@contextlib.contextmanager
def opened_file(folder: int, name: str | bytes) -> Iterator[int]:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY  # not to wait for a pipe's other end
    descriptor = os.open(name, flags, dir_fd=folder)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def read_bounded(descriptor: int) -> bytes:
    """At most one byte more than a request may have."""
    with open(descriptor, "rb", closefd=False) as file:
        return file.read(LARGEST_FILE + 1)


def identity_of(found: os.stat_result) -> tuple[int, ...]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def remove(folder: int, name: str | bytes) -> None:
    try:
        os.unlink(name, dir_fd=folder)
    except IsADirectoryError:
        os.rmdir(name, dir_fd=folder)  # only if it is empty: what is in it is the agent's


def _keep_newest(errors: int) -> None:
    files = list[tuple[int, str]]()
    with os.scandir(errors) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):  # the human it is kept for has removed it
                if entry.is_file(follow_symlinks=False):
                    files.append((entry.stat(follow_symlinks=False).st_mtime_ns, entry.name))
    for _, name in sorted(files)[:-ERRORS_KEPT]:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=errors)


def _no_json(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")
