"""What several files of these tests use."""

from datetime import timedelta

import pytest

from nanoclaw_runtime.domain import schedule
from tests.support.house import House


@pytest.fixture
async def house(tmp_path):
    async with House(tmp_path) as house:
        yield house


@pytest.fixture
def no_retry_by_itself(monkeypatch):
    """What failed is tried again when the test says so, however slow the machine is."""
    monkeypatch.setattr(schedule, "FIRST_RETRY", timedelta(hours=1))
