"""What several files of these tests use."""

import pytest

from tests.support.house import House


@pytest.fixture
async def house(tmp_path):
    async with House(tmp_path) as house:
        yield house
