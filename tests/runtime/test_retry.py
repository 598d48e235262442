"""When a call is tried again, and when no more."""

from __future__ import annotations

import pytest

from nanoclaw_runtime.kube.errors import (
    Conflict,
    Forbidden,
    KubeError,
    NotFound,
    Target,
    Throttled,
    Unavailable,
    error_of,
)
from nanoclaw_runtime.kube.retry import LONGEST_PAUSE, RetryBudget, pause, worth_it

TARGET = Target("get", "pods", "chat", "agent-1")


def test_pauses_grow_to_a_limit_and_are_never_zero() -> None:
    assert 0 < pause(0) < pause(4) <= pause(4000) * 2 <= LONGEST_PAUSE * 2


def test_what_the_server_asks_for_comes_first() -> None:
    assert pause(0, Throttled(TARGET, "slow down", retry_after=30)) > 30


@pytest.mark.parametrize(
    ("error", "again"),
    [
        pytest.param(Throttled(TARGET, "busy"), True, id="429"),
        pytest.param(Unavailable(TARGET, "down"), True, id="5xx"),
        pytest.param(NotFound(TARGET, "none"), False, id="404"),
        pytest.param(Conflict(TARGET, "other"), False, id="409"),
        pytest.param(Forbidden(TARGET, "no"), False, id="403"),
    ],
)
def test_only_what_passes_is_tried_again(error: KubeError, again: bool) -> None:
    assert worth_it(error) is again


async def test_the_budget_ends() -> None:
    budget = RetryBudget()
    assert all(budget.take() for _ in range(40))
    assert not all(budget.take() for _ in range(1000))


@pytest.mark.parametrize(
    ("header", "body", "seconds"),
    [
        pytest.param({"Retry-After": "7"}, b"", 7, id="header"),
        pytest.param({}, b'{"kind":"Status","details":{"retryAfterSeconds":3}}', 3, id="document"),
        pytest.param({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, b"", None, id="date"),
        pytest.param({}, b"not json", None, id="nothing"),
    ],
)
def test_a_throttled_answer_tells_how_long(header: dict, body: bytes, seconds: float | None) -> None:
    error = error_of(TARGET, 429, header, body)
    assert isinstance(error, Throttled)
    assert error.retry_after == seconds


def test_a_message_names_what_was_asked_and_what_was_answered() -> None:
    body = b'{"kind":"Status","reason":"NotFound","message":"pods \\"agent-1\\" not found"}'
    error = error_of(TARGET, 404, {}, body)
    assert str(error) == 'get pods chat/agent-1: pods "agent-1" not found'
    assert error.reason == "NotFound"
