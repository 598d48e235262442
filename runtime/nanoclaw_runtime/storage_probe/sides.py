"""One side of the measuring, told by the arguments of the command line.

`measure` prints a line of JSON for each step, result and skipped part, and removes its folder at the end, also when
it is asked to stop. `answer` is the pod that answers to it, on the same node or another.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import statistics
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from nanoclaw_runtime.domain.storage_advice import SEEN, Measured, What, Where
from nanoclaw_runtime.storage_probe import visibility, writes
from nanoclaw_runtime.storage_probe.visibility import Case, NeverSeen, NotThere

LEAST_FREE: Final = 32 * 1024 * 1024
"""Bytes without which nothing is measured: a claim in use is not filled up by us."""
ROOM: Final = 2 * writes.SEQUENTIAL
"""Bytes without which the part that writes much is left out."""
REFUSED: Final = 2
"""Exit status when nothing could be measured."""


def main() -> None:
    arguments = _arguments()
    cases = [Case(what, arguments.rounds, arguments.seconds) for what in SEEN]
    if arguments.role == "answer":
        visibility.answer_all(arguments.folder / arguments.pair, cases)
    else:
        sys.exit(_measured(arguments, cases))


def _measured(arguments: argparse.Namespace, cases: list[Case]) -> int:
    folder: Path = arguments.folder
    try:
        folder.mkdir()
        room = _room(folder.parent)
    except OSError as error:
        return _refused(f"{folder.parent} cannot be written as uid {os.getuid()}: {error.strerror}")
    try:
        if room < LEAST_FREE:
            return _refused(f"{room // 2**20} MiB are free, and {LEAST_FREE // 2**20} MiB are needed")
        _writes(arguments, folder, arguments.plain, room)
        _plain(arguments.plain, cases)
        for pair in arguments.pair:
            _pair(folder, Where.SAME_NODE if pair == "near" else Where.OTHER_NODE, pair, cases)
        _say(done=True)
    finally:
        _remove(folder)
    return 0


def _writes(arguments: argparse.Namespace, claim: Path, plain: Path, room: int) -> None:
    """Claim and node's disk in turn, so that what else the machine does meets both alike."""
    for what in writes.CASES:
        if what.is_rate and room < ROOM:
            _say(skipped=what, why=f"only {room // 2**20} MiB are free, and {ROOM // 2**20} MiB are wanted")
            continue
        for where, place in ((Where.PLAIN, plain), (Where.CLAIM, claim)):
            _say(step=f"{what.value}: {where.value}")
            folder = place / f"{what.name}-{where.name}"
            try:
                folder.mkdir()
                found = writes.measure(what, folder, rounds=arguments.rounds, seconds=arguments.seconds)
            except OSError as error:
                _say(skipped=what, why=f"{where.value}: {error.strerror}")
            else:
                _say(measured=asdict(_summary(what, where, found)))
            finally:
                _remove(folder)


def _plain(folder: Path, cases: list[Case]) -> None:
    """The baseline: another thread looks, on the node's own disk."""
    place = folder / "pair"
    place.mkdir()
    threading.Thread(target=visibility.answer_all, args=(place, cases), daemon=True).start()
    _pair(folder, Where.PLAIN, "pair", cases)
    _remove(place)


def _pair(folder: Path, where: Where, pair: str, cases: list[Case]) -> None:
    for case in cases:
        _say(step=f"{case.what.value}: {where.value}")
        place, found = folder / pair / case.what.name, []
        missed = False
        try:
            for seconds in visibility.ask(place, case):
                found.append(seconds)  # noqa: PERF402 - what was measured before the end of patience counts
        except NeverSeen:
            missed = True
            found.append(visibility.PATIENCE / 2)
        except NotThere:
            _say(skipped=where, why=f"the other side did not come within {visibility.MEETING:.0f} s")
            return
        _say(measured=asdict(_summary(case.what, where, found, missed=missed)))


def _summary(what: What, where: Where, found: Sequence[float], *, missed: bool = False) -> Measured:
    """The nearest-rank p99; of a rate what 99 of 100 reach at least."""
    ordered = sorted(found, reverse=what.is_rate)
    p99 = ordered[max(0, math.ceil(0.99 * len(ordered)) - 1)]
    return Measured(what, where, len(found), statistics.median(found), p99, min(found), max(found), missed)


def _room(folder: Path) -> int:
    about = os.statvfs(folder)
    return about.f_bavail * about.f_frsize


def _refused(why: str) -> int:
    _say(refused=why)
    return REFUSED


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():  # somebody else was just writing into it
        shutil.rmtree(folder, ignore_errors=True)


def _say(**what: object) -> None:
    print(json.dumps(what), flush=True)  # noqa: T201 - the command reads it from the pod's log


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    roles = parser.add_subparsers(dest="role", required=True)
    for name in ("measure", "answer"):
        role = roles.add_parser(name)
        role.add_argument("--folder", type=Path, required=True, help="of the run, on the claim")
        role.add_argument("--rounds", type=int, default=200)
        role.add_argument("--seconds", type=float, default=20.0, help="after which a part ends, whatever its rounds")
    roles.choices["measure"].add_argument("--plain", type=Path, required=True, help="on the node's own disk")
    roles.choices["measure"].add_argument("--pair", action="append", choices=("near", "far"), default=[])
    roles.choices["answer"].add_argument("--pair", choices=("near", "far"), required=True)
    return parser.parse_args()
