"""Numbers as a reader wants them: median and p99 beside each other, with how many there are."""

from __future__ import annotations

import math
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest-rank percentile; with few values p99 is the largest."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def row(name: str, values: Sequence[float]) -> str:
    """A line of a Markdown table; `values` in seconds, shown in milliseconds."""
    cells = (statistics.median(values), percentile(values, 0.99), min(values), max(values))
    return f"| {name} | {len(values)} | " + " | ".join(f"{value * 1000:,.0f}" for value in cells) + " |"


def table(title: str, rows: Mapping[str, Sequence[float]]) -> str:
    """A Markdown table of one question."""
    head = f"| {title}, ms | n | median | p99 | least | most |\n|---|--:|--:|--:|--:|--:|"
    return "\n".join([head, *(row(name, values) for name, values in rows.items())])


def machine() -> str:
    """One line that says what the numbers were measured on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
    load = os.getloadavg()[0]
    return (
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC · {os.cpu_count()} cores, {memory:.0f} GiB, "
        f"Linux {platform.release()}, "
        f"Python {platform.python_version()} · load when begun {load:.1f}"
    )


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text.rstrip() + "\n")
