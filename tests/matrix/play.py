"""The rows of one installation, played at the same time where they do not disturb each other."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence

from nanoclaw_dev.matrix import Cell, Verdict
from tests.matrix.place import NotHere, Place
from tests.matrix.rows import Row
from tests.matrix.scene import Scene

AT_ONCE = 6
"""Rows that are played at the same time: with more, all of them wait for two cores."""


async def play(place: Place, rows: Sequence[Row]) -> dict[str, Cell]:
    """Play all rows, act by act; a row that fails ends no other."""
    cells: dict[str, Cell] = {}
    async with contextlib.AsyncExitStack() as stack:
        remote = await stack.enter_async_context(place.remote())
        groups = dict.fromkeys(group for row in rows for group in row.groups)
        scenes = {group: await stack.enter_async_context(Scene.of(remote, group)) for group in groups}
        places = asyncio.Semaphore(AT_ONCE)
        for act in sorted({row.act for row in rows}):
            played = [row for row in rows if row.act == act]
            found = await asyncio.gather(*(_one(place, row, scenes, places) for row in played))
            cells |= zip((row.name for row in played), found, strict=True)
        for row in rows:  # again: what an act did twice may show in a later one
            faults = [fault for group in row.groups for fault in scenes[group].faults()]
            if faults and cells[row.name].verdict is Verdict.PASS:
                cells[row.name] = Cell(Verdict.FAIL, cells[row.name].seconds, "; ".join(faults))
    return cells


async def _one(place: Place, row: Row, scenes: dict[str, Scene], places: asyncio.Semaphore) -> Cell:
    async with places:
        return await _played(place, row, scenes)


async def _played(place: Place, row: Row, scenes: dict[str, Scene]) -> Cell:
    begun = time.monotonic()
    try:
        await row.play(place, *(scenes[group] for group in row.groups))
    except NotHere as reason:
        return Cell(Verdict.NOT_HERE, 0, str(reason))
    except Exception as error:  # noqa: BLE001  of any kind: it is the cell's, and the others go on
        story = "; ".join(scenes[group].story() for group in row.groups[:1])
        return Cell(Verdict.FAIL, time.monotonic() - begun, f"{type(error).__name__}: {error} ({story})")
    return Cell(Verdict.PASS, time.monotonic() - begun)
