"""What measured storage is good for: which layout, access mode and transport, whether polling is what delays, and
where the database belongs.

Pure: figures and access modes in, sentences with their reasons out. Measuring is `storage_probe`'s business.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

AGENT_POLL: Final = 0.5
"""Seconds between two looks of an agent into its `input/`."""
PROMPT: Final = 0.25
"""Seconds: what another pod has to see at the latest, 99 times of 100, for volumes to carry messages. As much again
as an agent's own looking costs on average."""
FAST_FSYNC: Final = 0.02
"""Seconds, p99: every message is committed before it is acknowledged."""
NO_FSYNC: Final = 20e-6
"""Seconds, p50: no disk, nor a battery behind one, answers that fast."""

RWX: Final = "ReadWriteMany"
RWO: Final = "ReadWriteOnce"
RWOP: Final = "ReadWriteOncePod"


class What(StrEnum):
    """A question that is put to the storage. Its `seen` ones are about what another pod did."""

    CREATED = "file created and renamed, seen"
    DELETED = "file deleted, seen"
    CLOSED = "_close, seen"
    APPENDED = "append, seen"
    CREATED_HELD = "file created and renamed, seen, folder held open"
    DELETED_HELD = "file deleted, seen, folder held open"
    CLOSED_HELD = "_close, seen, folder held open"
    APPENDED_HELD = "append, seen, file held open"
    SMALL_FILE = "1 KiB created and renamed"
    APPEND = "2 KiB appended"
    APPEND_FSYNC = "2 KiB appended, fsync"
    PAGE_FSYNC = "4 KiB page written, fsync"
    FOLDER = "folder made"
    LISTING = "1,000 files listed"
    WRITTEN = "64 MiB written, fsync"
    READ = "64 MiB read back"

    @property
    def is_rate(self) -> bool:
        """Whether its figures are bytes a second, not seconds."""
        return self in {What.WRITTEN, What.READ}


SEEN: Final = tuple(what for what in What if ", seen" in what.value)


class Where(StrEnum):
    """What was measured, and from where."""

    PLAIN = "node's disk"
    """The baseline: an emptyDir; `seen` by another process."""
    CLAIM = "claim"
    SAME_NODE = "claim, pod of the same node"
    OTHER_NODE = "claim, pod of another node"


@dataclass(frozen=True)
class Measured:
    """One line of the result; seconds, or bytes a second for a rate."""

    what: What
    where: Where
    count: int
    p50: float
    p99: float
    least: float
    most: float
    missed: bool = False
    """Whether at last something was not seen at all, as long as was waited (`most`)."""


@dataclass(frozen=True)
class Advice:
    """One sentence of the recommendation."""

    subject: str
    choice: str
    because: str


def advise(measured: Iterable[Measured], modes: Sequence[str]) -> list[Advice]:
    """What to choose for a claim with these access modes; never empty."""
    figures = {(each.what, each.where): each for each in measured}
    seen = {where: _slowest(figures.values(), where) for where in (Where.SAME_NODE, Where.OTHER_NODE)}
    transport = _transport(seen[Where.SAME_NODE], seen[Where.OTHER_NODE], modes)
    return [
        transport,
        _access_mode(transport.choice, modes),
        _layout(transport.choice, modes),
        *_polling(seen[Where.OTHER_NODE] or seen[Where.SAME_NODE]),
        *_database(figures.get((What.PAGE_FSYNC, Where.CLAIM)), modes),
    ]


def _slowest(measured: Iterable[Measured], where: Where) -> Measured | None:
    """Of what a message waits for. None is appended to a file, and nobody holds files or folders open."""
    habits = (What.CREATED, What.DELETED, What.CLOSED)
    found = [each for each in measured if each.where is where and each.what in habits]
    return max(found, key=lambda each: (each.missed, each.p99), default=None)


def _transport(same: Measured | None, other: Measured | None, modes: Sequence[str]) -> Advice:
    subject = "transport"
    if RWX not in modes:
        return Advice(
            subject,
            "bridge",
            f"a {' or '.join(modes)} claim reaches one {'pod' if modes == [RWOP] else 'node'} at a time; with `volume` "
            "all agents would have to be on the controller's node (placement: controller-node)",
        )
    if other is None:
        if same is not None and not _prompt(same):
            return Advice(subject, "bridge", f"even on one node {_told(same)}")
        return Advice(subject, "volume, on one node", "from another node nothing was measured; measure it with two")
    if _prompt(other):
        return Advice(subject, "volume", f"{_told(other)}, within {_time(PROMPT)}")
    return Advice(subject, "bridge", f"{_told(other)}: its clients cache; mount options may help (docs/storage.md)")


def _access_mode(transport: str, modes: Sequence[str]) -> Advice:
    if transport == "bridge":
        if RWOP in modes:
            return Advice("access mode", RWOP, "only the agent's pod mounts the claim, and a second writer is kept off")
        return Advice("access mode", RWO, "only the agent's pod mounts the claim; nothing needs ReadWriteMany")
    return Advice("access mode", RWX, "controller and agents mount the claim together, wherever they are")


def _layout(transport: str, modes: Sequence[str]) -> Advice:
    if transport == "bridge" or RWX not in modes:
        return Advice("layout", "per-group", "one volume to attach for each start, and none that lies in another zone")
    return Advice(
        "layout", "shared", "one claim serves every group and a new one needs none; per-group for quotas and snapshots"
    )


def _polling(seen: Measured | None) -> Iterator[Advice]:
    """Whether it is the agent's poll, or the storage, that a message waits for."""
    if seen is None:
        return
    added = AGENT_POLL / 2
    if _prompt(seen):
        choice, because = "the agent's own", f"it adds {_time(added)} on average, and the storage {_time(seen.p50)}"
    else:
        hidden = f"the storage hides a change for {_time(seen.p99)}, however often it is asked"
        choice, because = "does not help", f"{hidden}; the poll adds {_time(added)}"
    yield Advice("polling", choice, because)


def _database(page: Measured | None, modes: Sequence[str]) -> Iterator[Advice]:
    if page is None:
        return
    if RWX in modes:
        yield Advice(
            "database",
            "another claim",
            f"a ReadWriteMany claim is mostly a network file system, where SQLite may lose writes; fsync takes "
            f"{_time(page.p99)} (p99) here",
        )
    elif page.p50 < NO_FSYNC:
        yield Advice(
            "database", "not before it is known", f"fsync returns after {_time(page.p50)}: is anything on a disk then?"
        )
    elif page.p99 <= FAST_FSYNC:
        yield Advice("database", "here", f"fsync takes {_time(page.p99)} (p99), within {_time(FAST_FSYNC)}")
    else:
        yield Advice(
            "database",
            "a faster class",
            f"fsync takes {_time(page.p99)} (p99), more than {_time(FAST_FSYNC)}, and every message waits for one",
        )


def _prompt(seen: Measured) -> bool:
    return seen.p99 <= PROMPT and not seen.missed


def _told(seen: Measured) -> str:
    event = seen.what.value.removesuffix(", seen")
    if seen.missed:
        return f"{event} was not seen within {_time(seen.most)}"
    return f"{event} is seen after {_time(seen.p99)} (p99)"


def _time(seconds: float) -> str:
    """As a person reads it."""
    if seconds >= 1:
        return f"{seconds:.1f} s"
    return f"{seconds * 1000:.3g} ms"
