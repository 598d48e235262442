"""How long one pod's change takes to be seen by another: two of them answer each other by files.

The clocks of two nodes differ, so a round trip is measured on one clock and half of it is told: question and answer go
the same way through the same storage. Both look every `POLL` seconds, so that a figure is the storage's delay and half
a poll, and not the half second of an agent.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from nanoclaw_runtime.domain.storage_advice import What

POLL: Final = 0.005
"""Seconds."""
PATIENCE: Final = 150.0
"""Seconds until a change and its answer count as never seen: NFS keeps attributes of a folder for 60 s, each way."""
MEETING: Final = 300.0
"""Seconds for the other side to be there: what is measured before takes minutes on slow storage."""
RECORD: Final = 2048
"""Bytes of a line of a transcript."""
END: Final = "end"
# Instead of the number of a round: there is no further one.


@dataclass(frozen=True)
class Case:
    """One question, and how much of it."""

    what: What
    rounds: int
    seconds: float

    @property
    def held(self) -> bool:
        """Whether the reader keeps its folder, or its file, open between two looks."""
        return self.what.name.endswith("_HELD")

    @property
    def kind(self) -> str:
        return self.what.name.removesuffix("_HELD")


class NeverSeen(Exception):
    """The other side did not see it, or did not answer, within `PATIENCE`."""


class NotThere(Exception):
    """The other side did not come, or went."""


class Reader(Protocol):
    def look(self, wanted: int) -> str | None:
        """The number of the round that can be seen, or `END`; None when there is nothing new."""


class _Folder:
    """A folder that is looked into, by its name each time or by a descriptor that stays open."""

    def __init__(self, path: Path, *, held: bool) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY) if held else None

    def names(self) -> list[str]:
        with os.scandir(self._path if self._descriptor is None else self._descriptor) as entries:
            return [entry.name for entry in entries]

    def content(self, name: str) -> str | None:
        try:
            opened = os.open(self._at(name), os.O_RDONLY, dir_fd=self._descriptor)
        except FileNotFoundError:
            return None
        with os.fdopen(opened, encoding="utf-8") as file:
            return file.read()

    def remove(self, name: str) -> None:
        os.unlink(self._at(name), dir_fd=self._descriptor)

    def _at(self, name: str) -> str:
        return name if self._descriptor is not None else str(self._path / name)


class _Created:
    """As an agent takes its messages: list, read, unlink."""

    def __init__(self, folder: _Folder) -> None:
        self._folder = folder

    def look(self, wanted: int) -> str | None:  # noqa: ARG002
        for name in self._folder.names():
            if name.endswith(".json") and self._folder.content(name) is not None:
                self._folder.remove(name)
                return name.removesuffix(".json")
        return None


class _Deleted:
    def __init__(self, folder: _Folder, rounds: int) -> None:
        self._folder, self._rounds = folder, rounds
        _meet(lambda: len(folder.names()) > rounds)  # the file for the end is one more

    def look(self, wanted: int) -> str | None:
        """A listing without both is a broken one: the last file goes after all others."""
        names = set(self._folder.names())
        there = wanted < self._rounds and f"{wanted}.json" in names
        if f"{END}.json" not in names:
            return END if there or wanted >= self._rounds else None
        return None if there or wanted >= self._rounds else str(wanted)


class _Closed:
    """As an agent looks for `_close`: by its name, which is not there most of the time."""

    def __init__(self, folder: _Folder) -> None:
        self._folder = folder

    def look(self, wanted: int) -> str | None:  # noqa: ARG002
        content = self._folder.content("_close")
        if content is not None:
            self._folder.remove("_close")
        return content


class _Appended:
    def __init__(self, file: Path, *, held: bool) -> None:
        self._file, self._position = file, 0
        self._descriptor = os.open(file, os.O_RDONLY) if held else None

    def look(self, wanted: int) -> str | None:  # noqa: ARG002
        opened = os.open(self._file, os.O_RDONLY) if self._descriptor is None else self._descriptor
        try:
            record = os.pread(opened, RECORD, self._position)
        finally:
            if self._descriptor is None:
                os.close(opened)
        if len(record) < RECORD:
            return None
        self._position += RECORD
        return record.decode().strip()


def reader(folder: Path, case: Case) -> Reader:
    """Waits until what the other side has laid ready can be seen."""
    if case.kind == "APPENDED":
        return _Appended(folder / "log", held=case.held)
    looked = _Folder(folder, held=case.held)
    if case.kind == "DELETED":
        return _Deleted(looked, case.rounds)
    return _Created(looked) if case.kind == "CREATED" else _Closed(looked)


def send(folder: Path, kind: str, number: str) -> None:
    """Do what the other side looks for."""
    if kind == "DELETED":
        (folder / f"{number}.json").unlink()
    elif kind == "APPENDED":
        with (folder / "log").open("ab", buffering=0) as log:
            log.write(number.encode().ljust(RECORD - 1) + b"\n")
    else:
        write_whole(folder / ("_close" if kind == "CLOSED" else f"{number}.json"), number.encode())


def write_whole(file: Path, content: bytes) -> None:
    """Aside, then renamed, as the mailbox and the agents' own tools write."""
    aside = file.with_name(f"{file.name}.tmp")
    aside.write_bytes(content)
    aside.rename(file)


def lay_ready(folder: Path, case: Case) -> None:
    """Everything both directions of a case need; the last file says that it is there."""
    for direction in ("question", "answer"):
        place = folder / direction
        place.mkdir(parents=True)
        if case.kind == "DELETED":
            for each in (*range(case.rounds), END):
                (place / f"{each}.json").touch()
        if case.kind == "APPENDED":
            (place / "log").touch()
    write_whole(folder / "ready", b"")


def ask(folder: Path, case: Case) -> Iterator[float]:
    """Seconds of one way, for each round. Raises NeverSeen, and NotThere."""
    lay_ready(folder, case)
    answers = reader(folder / "answer", case)
    _meet((folder / "there").exists)
    until = time.monotonic() + case.seconds
    for number in range(case.rounds):
        if time.monotonic() > until:
            break
        begun = time.perf_counter()
        send(folder / "question", case.kind, str(number))
        _expect(answers, number)
        yield (time.perf_counter() - begun) / 2
    send(folder / "question", case.kind, END)


def answer(folder: Path, case: Case) -> None:
    """The other side of `ask`. Raises NeverSeen, and NotThere."""
    _meet((folder / "ready").exists)
    questions = reader(folder / "question", case)
    write_whole(folder / "there", b"")
    number = 0
    while _expect(questions, number) != END:
        send(folder / "answer", case.kind, str(number))
        number += 1


def answer_all(folder: Path, cases: list[Case]) -> None:
    """One case after the other, in the order in which they are asked."""
    for case in cases:
        with contextlib.suppress(NeverSeen):  # the asking side tells it
            answer(folder / case.what.name, case)


def _expect(looking: Reader, number: int) -> str:
    """The number of the round, or `END`; whatever else can be seen is of an earlier round, kept by a cache."""
    until = time.monotonic() + PATIENCE
    while (found := looking.look(number)) not in {str(number), END}:
        if time.monotonic() > until:
            raise NeverSeen
        time.sleep(POLL)
    return found


def _meet(there: Callable[[], bool]) -> None:
    until = time.monotonic() + MEETING
    while not there():
        if time.monotonic() > until:
            raise NotThere
        time.sleep(POLL)
