"""What several files of these tests use."""

from datetime import timedelta

import pytest

from nanoclaw_runtime.contract import bridge
from nanoclaw_runtime.domain import schedule
from tests.support.bridged import PATIENCE, Bridged
from tests.support.house import House


@pytest.fixture
async def house(tmp_path):
    async with House(tmp_path) as house:
        yield house


@pytest.fixture
def no_retry_by_itself(monkeypatch):
    """What failed is tried again when the test says so, however slow the machine is."""
    monkeypatch.setattr(schedule, "FIRST_RETRY", timedelta(hours=1))


@pytest.fixture
async def bridged(tmp_path, monkeypatch):
    monkeypatch.setattr(bridge, "LAST_REPORT", PATIENCE)  # on a busy machine a pod is not back in seconds
    async with Bridged.open(tmp_path) as opened:
        yield opened


@pytest.fixture
async def box(bridged):
    box = bridged.mailbox()
    await box.prepare()
    return box
