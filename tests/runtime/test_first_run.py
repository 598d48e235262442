"""What became of an agent's container as it was started first, from what kubelets report of one that is restarted."""

from __future__ import annotations

from typing import Any

import pytest

from nanoclaw_runtime.kube.resources import FORGOTTEN, ContainerState, Pod, slim

RUNNING = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
CREATED: dict[str, Any] = {"waiting": {}}
"""A container that was made and did not start yet; kubelets give no reason then."""


def ended(code: int) -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "reason": "Error"}}


def waiting(reason: str) -> dict[str, Any]:
    return {"waiting": {"reason": reason}}


def first_run(state: dict[str, Any], last: dict[str, Any] | None = None, restarts: int = 0) -> ContainerState:
    status = {"name": "agent", "state": state, "lastState": last or {}, "restartCount": restarts}
    return slim({"status": {"containerStatuses": [status]}}, Pod).container("agent")


def test_it_runs_while_nothing_was_restarted() -> None:
    assert first_run(waiting("ContainerCreating")).terminated is None
    assert first_run(RUNNING).running is not None


@pytest.mark.parametrize(
    ("state", "last", "restarts"),
    [
        pytest.param(ended(4), None, 0, id="just-ended"),
        pytest.param(waiting("CrashLoopBackOff"), ended(4), 0, id="waits-to-be-restarted"),
        pytest.param(CREATED, ended(4), 1, id="made-again"),
        pytest.param(RUNNING, ended(4), 1, id="runs-again"),
        pytest.param(ended(9), ended(4), 1, id="ended-again"),
    ],
)
def test_its_end_is_the_first_one(state: dict[str, Any], last: dict[str, Any] | None, restarts: int) -> None:
    found = first_run(state, last, restarts).terminated
    assert found is not None
    assert found.exit_code == 4


@pytest.mark.parametrize(
    ("state", "last", "restarts"),
    [
        pytest.param(waiting("CrashLoopBackOff"), ended(9), 1, id="waits-for-the-third"),
        pytest.param(CREATED, ended(9), 2, id="made-for-the-third-time"),
        pytest.param(RUNNING, ended(9), 2, id="the-third"),
    ],
)
def test_an_end_that_is_not_shown_any_more_is_forgotten(
    state: dict[str, Any], last: dict[str, Any], restarts: int
) -> None:
    found = first_run(state, last, restarts).terminated
    assert found is not None
    assert found.reason == FORGOTTEN
