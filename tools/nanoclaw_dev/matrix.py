"""`make matrix`: every way to run agents, and everything that may happen to them; the table is docs/conformance.md.

The tests in `tests/matrix` do it and say what they found; here it is only run, read and written down.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from nanoclaw_dev import modules
from nanoclaw_dev.check import PROGRAMS
from nanoclaw_dev.errors import SetupError
from nanoclaw_dev.paths import CHECKOUT
from nanoclaw_dev.progress import Progress
from nanoclaw_dev.test import set_up

PAGE = CHECKOUT / "docs" / "conformance.md"
ENV_FOLDER = "NANOCLAW_CELLS"
# Variable with the folder the tests write to, a file for each column of a table.

LONGEST = 400
# Characters of a note.

WHOLE = {0, 1}
# What pytest ends with when every test was run, whatever came of it: half a table is no page.

INTRODUCTION = """\
# What was shown of every way to run agents

`make matrix` ran this on {date} and wrote it down; nothing here is written by hand. Kubernetes {kubernetes}, three
nodes, a dead one of which is noticed after about 8 s; a Docker engine of its own; the reference agent. A column is a
whole installation (`pulumi up`, or `nanoclaw host`), a row what befalls one of its groups. ✓ means that the row holds,
and that every message sent in it was answered exactly as often as promised: none lost, none finished twice. Behind it
the seconds it took while up to five other rows ran on the same two cores: they say that nothing hangs, and
[bench](../bench/results/) says how fast it is.
"""

TABLES = {
    "matrix": "## What befalls a group",
    "switching": "## From one way to another",
}
SAYINGS = {
    "matrix": "",
    "switching": """\
By `pulumi up`, or with `nanoclaw export` and `import` where the data has to move. A session runs during each change;
the next message of each group is answered the new way, by an agent that remembers what was said the old way.
""",
}


class Verdict(StrEnum):
    PASS = "pass"
    FAIL = "fail"
    NOT_HERE = "n/a"


@dataclass(frozen=True)
class Cell:
    """What became of a row in one column."""

    verdict: Verdict
    seconds: float
    note: str = ""
    """Why it is no pass."""


Column = Mapping[str, Cell]


def matrix(progress: Progress) -> int:
    """Run it, print the tables and, unless it was interrupted, write the page; returns the exit code.

    Raises SetupError.
    """
    if unavailable := set_up(progress):
        raise SetupError(unavailable)
    with tempfile.TemporaryDirectory(prefix="nanoclaw-matrix-") as folder:
        command = [str(PROGRAMS / "pytest"), "tests/matrix", "tests/cluster", "-m", "matrix or wide"]
        code = subprocess.run(command, cwd=CHECKOUT, env={**os.environ, ENV_FOLDER: folder}, check=False).returncode
        found = read(Path(folder))
    text = page(found, at=datetime.now(UTC))
    progress.say(text)
    if code in WHOLE:
        PAGE.write_text(text)
    return code


def keep(folder: Path, number: int, table: str, column: str, cells: Column) -> None:
    """What the tests found in a column, the `number`th of all; for `read`."""
    found = {row: asdict(cell) for row, cell in cells.items()}
    content = {"table": table, "column": column, "number": number, "cells": found}
    (folder / f"{number}.json").write_text(json.dumps(content))


def read(folder: Path) -> dict[str, dict[str, Column]]:
    """What the tests found: table → column → row → cell."""
    found: dict[str, dict[str, Column]] = {name: {} for name in TABLES}
    contents = [json.loads(file.read_text()) for file in folder.glob("*.json")]
    for content in sorted(contents, key=lambda content: content["number"]):
        cells = content["cells"].items()
        found[content["table"]][content["column"]] = {row: _cell(**cell) for row, cell in cells}
    return found


def _cell(verdict: str, seconds: float, note: str) -> Cell:
    return Cell(Verdict(verdict), seconds, note)


def page(found: Mapping[str, Mapping[str, Column]], *, at: datetime) -> str:
    """The whole page, the same for the same findings on every machine."""
    parts = [INTRODUCTION.format(date=f"{at:%Y-%m-%d}", kubernetes=modules.KUBERNETES_VERSION)]
    for name, title in TABLES.items():
        if columns := found.get(name):
            parts += [title + "\n", *filter(None, [SAYINGS[name]]), table(columns)]
    return "\n".join(parts)


def table(columns: Mapping[str, Column]) -> str:
    """Rows in the order of the first column that has them, and a footnote for each cell that is no ✓."""
    notes: list[str] = []
    rows = dict.fromkeys(row for column in columns.values() for row in column)
    lines = [_line("", list(columns)), "|---|" + "---|" * len(columns)]
    lines += [_line(row, [_shown(column.get(row), notes) for column in columns.values()]) for row in rows]
    return "\n".join([*lines, "", *(f"{number}. {note}" for number, note in enumerate(notes, 1)), ""])


def _line(head: str, cells: Sequence[str]) -> str:
    return f"| {head} | {' | '.join(cells)} |"


def _shown(cell: Cell | None, notes: list[str]) -> str:
    if cell is None:
        return "not run"
    if cell.verdict is Verdict.PASS:
        return f"✓ {max(1, round(cell.seconds))} s"
    if (note := " ".join(cell.note.split())[:LONGEST]) not in notes:
        notes.append(note)
    return f"{'n/a' if cell.verdict is Verdict.NOT_HERE else '✗'} ({notes.index(note) + 1})"
