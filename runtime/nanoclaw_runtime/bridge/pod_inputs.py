"""Inputs in the pod: each is put before the agent once, however often it comes.

A file is written aside, then noted in the ledger, then given its name. Whoever is killed in between finds out from
the ledger what to do: noted and still aside, it gets its name; aside and not noted, it goes and comes again. What is
noted and lies nowhere, the agent took. The ledger lives as long as the pod and agents cannot see it; of their own
folder nothing is believed but whether a name is there. Everything here blocks and may raise OSError.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Final

from nanoclaw_runtime.contract import layout, wire
from nanoclaw_runtime.ipc.descriptors import replace_file, walked_folder
from nanoclaw_runtime.ipc.mailbox import ASIDE, NAMES_AT_ONCE, is_input

LEDGER: Final = "ledger"

Entry = tuple[str, int]
"""Name and version."""


class Inputs:
    """What the agent of one session is given. Made anew when the container is started again."""

    def __init__(self, ipc: Path, session: str, own: Path) -> None:
        self._ipc, self._session = ipc, session
        self._ledger = own / LEDGER
        self._noted: set[Entry] = set()
        self._turn = threading.Lock()  # a stream that broke may leave a thread at work

    def recover(self) -> None:
        """Finish what an earlier process of the same pod began."""
        self._ledger.touch()
        *lines, rest = self._ledger.read_text().split("\n")
        self._noted = {_entry(line) for line in lines}
        if rest:  # it was being written
            os.truncate(self._ledger, self._ledger.stat().st_size - len(rest))
        aside = {f"{name}{ASIDE}": name for name, _ in self._noted}
        with self._opened() as here:
            with os.scandir(here) as entries:
                names = [entry.name for entry in itertools.islice(entries, NAMES_AT_ONCE)]
            for name in names:
                if name in aside:
                    _give(here, aside[name])
                elif is_input(name.removesuffix(ASIDE)) and name.endswith(ASIDE):
                    os.unlink(name, dir_fd=here)

    def accept(self, name: str, version: int, content: bytes) -> bool:
        """Put an input before the agent, unless it had it before; False when it had, and has taken it."""
        if not is_input(name):
            return True
        entry = name, version
        with self._turn, self._opened() as here:
            if entry in self._noted:
                _give(here, name)  # where that has failed
                return _is_there(here, name)
            self._put(here, entry, content)
            return True

    def taken(self, told: AbstractSet[Entry]) -> list[Entry]:
        """All that the agent took but for those that were `told`, in order."""
        with self._turn:
            untold = self._noted - told
            if not untold:
                return []
            with self._opened() as here:
                return sorted(entry for entry in untold if not _waits(here, entry[0]))

    def _put(self, here: int, entry: Entry, content: bytes) -> None:
        name = entry[0]
        replace_file(here, f"{name}{ASIDE}", content)
        self._note(entry)
        _give(here, name)

    def _note(self, entry: Entry) -> None:
        size = self._ledger.stat().st_size
        try:
            with self._ledger.open("a") as ledger:
                ledger.write(f"{entry[0]} {entry[1]}\n")
        except OSError:  # no room: half a line must not spoil the next one
            os.truncate(self._ledger, size)
            raise
        self._noted.add(entry)

    def _opened(self) -> contextlib.AbstractContextManager[int]:
        return walked_folder(self._ipc, layout.SESSION_INPUTS, self._session)


def replace_snapshot(ipc: Path, name: str, content: bytes) -> None:
    """Give the agent a newer snapshot of tasks or chats."""
    if name in {wire.CURRENT_TASKS_FILE, wire.AVAILABLE_GROUPS_FILE}:
        with walked_folder(ipc) as here:
            replace_file(here, name, content)


def _give(here: int, name: str) -> None:
    with contextlib.suppress(FileNotFoundError, IsADirectoryError):  # the agent's own doing
        os.rename(f"{name}{ASIDE}", name, src_dir_fd=here, dst_dir_fd=here)


def _waits(here: int, name: str) -> bool:
    """Whether the agent has not taken it, or could not: giving it its name may fail on a volume that is full."""
    return _is_there(here, f"{name}{ASIDE}") or _is_there(here, name)


def _is_there(here: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=here, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _entry(line: str) -> Entry:
    name, version = line.split()
    return name, int(version)
