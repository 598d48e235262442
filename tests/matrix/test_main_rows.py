"""The main rows of the matrix in the column with most parts; the whole of it is `make matrix`."""

import asyncio

import pytest

from nanoclaw_dev.matrix import Verdict
from nanoclaw_runtime.contract.config import Pattern, Transport
from tests.matrix.columns import Column
from tests.matrix.installations import on_cluster
from tests.matrix.play import play
from tests.matrix.rows import ROWS

pytestmark = [pytest.mark.cluster, pytest.mark.engine, pytest.mark.timeout(240)]

MAIN = ("result", "follow-up", "controller crashes")


COLUMN = Column(Pattern.STATEFULSET, Transport.BRIDGE)


def test_answers_follow_ups_and_a_crash_of_the_controller(cluster, tmp_path):
    rows = [row for row in ROWS if row.name in MAIN]

    async def played():
        async with on_cluster(COLUMN, cluster, tmp_path) as place:
            return await play(place, rows)

    cells = asyncio.run(played())
    assert [(name, cell.note) for name, cell in cells.items() if cell.verdict is not Verdict.PASS] == []
