"""What one pod's own writes cost: small files, lines of a transcript, commits of a database, folders, and much at once.

Every function leaves its files in the folder that it is given, for the caller to remove.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from nanoclaw_runtime.domain.storage_advice import What
from nanoclaw_runtime.storage_probe.visibility import RECORD, write_whole

SMALL: Final = 1024
PAGE: Final = 4096
# Bytes; a page of SQLite.
PAGES: Final = 256
MANY: Final = 1000
LISTINGS: Final = 20
SEQUENTIAL: Final = 64 * 1024 * 1024
TIMES: Final = 3
_BLOCK: Final = 1024 * 1024


def measure(what: What, folder: Path, *, rounds: int, seconds: float) -> list[float]:
    """Seconds of each operation, or bytes a second for a rate; at least one. `folder` is empty, and the case's own."""
    found: list[float] = []
    until = time.monotonic() + seconds
    for figure in _CASES[what](folder, rounds):
        found.append(figure)
        if time.monotonic() > until:
            break
    return found


def _small_files(folder: Path, rounds: int) -> Iterator[float]:
    content = os.urandom(SMALL)
    for number in range(rounds):
        begun = time.perf_counter()
        write_whole(folder / f"{number}.json", content)
        yield time.perf_counter() - begun


def _appends(folder: Path, rounds: int) -> Iterator[float]:
    return _appended(folder, rounds, lambda _: None)


def _appends_synced(folder: Path, rounds: int) -> Iterator[float]:
    return _appended(folder, rounds, os.fsync)


def _appended(folder: Path, rounds: int, flush: Callable[[int], None]) -> Iterator[float]:
    line = os.urandom(RECORD)
    with (folder / "transcript").open("ab", buffering=0) as file:
        for _ in range(rounds):
            begun = time.perf_counter()
            file.write(line)
            flush(file.fileno())
            yield time.perf_counter() - begun


def _pages(folder: Path, rounds: int) -> Iterator[float]:
    """A file that does not grow, as a database after its first minutes."""
    page = os.urandom(PAGE)
    with (folder / "database").open("wb", buffering=0) as file:
        file.write(bytes(PAGE * PAGES))
        os.fsync(file.fileno())
        for number in range(rounds):
            begun = time.perf_counter()
            os.pwrite(file.fileno(), page, PAGE * (number * 7 % PAGES))
            os.fsync(file.fileno())
            yield time.perf_counter() - begun


def _folders(folder: Path, rounds: int) -> Iterator[float]:
    for number in range(min(rounds, MANY)):
        begun = time.perf_counter()
        (folder / str(number)).mkdir()
        yield time.perf_counter() - begun


def _listings(folder: Path, rounds: int) -> Iterator[float]:  # noqa: ARG001
    for number in range(MANY):
        (folder / str(number)).touch()
    for _ in range(LISTINGS):
        begun = time.perf_counter()
        with os.scandir(folder) as entries:
            for entry in entries:
                entry.stat(follow_symlinks=False)
        yield time.perf_counter() - begun


def _written(folder: Path, rounds: int) -> Iterator[float]:  # noqa: ARG001
    block = os.urandom(_BLOCK)
    for _ in range(TIMES):
        begun = time.perf_counter()
        with (folder / "big").open("wb", buffering=0) as file:
            for _ in range(SEQUENTIAL // _BLOCK):
                file.write(block)
            os.fsync(file.fileno())
        yield SEQUENTIAL / (time.perf_counter() - begun)


def _read(folder: Path, rounds: int) -> Iterator[float]:
    """From the storage as far as this side can ask for it: the server's memory is out of reach."""
    for _ in _written(folder, rounds):
        with (folder / "big").open("rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            begun = time.perf_counter()
            while file.read(_BLOCK):
                pass
            yield SEQUENTIAL / (time.perf_counter() - begun)


_CASES: Final = {
    What.SMALL_FILE: _small_files,
    What.APPEND: _appends,
    What.APPEND_FSYNC: _appends_synced,
    What.PAGE_FSYNC: _pages,
    What.FOLDER: _folders,
    What.LISTING: _listings,
    What.WRITTEN: _written,
    What.READ: _read,
}
CASES: Final = tuple(_CASES)
