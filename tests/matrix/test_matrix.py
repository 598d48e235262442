"""Every way to run agents does what every other does: a column a pattern and transport, a row a thing that happens.

Whole installations: `pulumi up` on a real cluster of three nodes, or `nanoclaw host` on a real Docker engine, with the
controller's image and the API as people reach it. `make matrix` runs this and writes docs/conformance.md;
`make test` runs the main rows of the one with most parts, in `test_main_rows`.
"""

import asyncio

import pytest

from nanoclaw_dev.matrix import Verdict
from nanoclaw_runtime.contract.config import Pattern
from tests.matrix.columns import COLUMNS
from tests.matrix.installations import on_cluster, on_docker
from tests.matrix.play import play
from tests.matrix.rows import ROWS
from tests.support import cluster as support

pytestmark = [
    pytest.mark.matrix,
    pytest.mark.cluster,
    pytest.mark.engine,
    pytest.mark.docker,
    pytest.mark.timeout(420),
]


@pytest.fixture(scope="module", params=COLUMNS, ids=lambda column: column.name)
def cells(request, tmp_path_factory, record):
    """What became of each row of a column, all of which are played at once."""
    column = request.param
    folder = tmp_path_factory.mktemp(column.name.replace("/", "-"))
    if column.pattern is Pattern.DOCKER:
        engine, image = request.getfixturevalue("engine"), request.getfixturevalue("echo_agent")
        place = on_docker(column, engine, folder, image)
    else:
        cluster = request.getfixturevalue("nodes3")
        place = on_cluster(column, cluster, folder)

    async def played():
        async with place as made:
            return await play(made, ROWS)

    try:
        found = asyncio.run(played())
    finally:
        if column.pattern is not Pattern.DOCKER:
            support.revive(cluster)
    record("matrix", column.name, found)
    return found


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_row_holds_in_this_column(cells, row):
    cell = cells[row.name]
    if cell.verdict is Verdict.NOT_HERE:
        pytest.skip(cell.note)
    assert cell.verdict is Verdict.PASS, cell.note
