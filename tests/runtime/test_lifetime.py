"""How long a session lives, as a table: limits are idle 10, silence 40, grace 2 seconds."""

from dataclasses import replace

import pytest

from nanoclaw_runtime.contract.config import AgentSettings, ControllerConfig
from nanoclaw_runtime.contract.wire import ContainerOutput, OutputStatus
from nanoclaw_runtime.domain.lifetime import Limits, Moments, Verdict, ends_turn, verdict
from nanoclaw_runtime.domain.model import SessionKind

LIMITS = Limits(idle=10, silence=40, grace=2)


@pytest.mark.parametrize(
    ("moments", "now", "expected"),
    [
        pytest.param(Moments(active=0, open_turns=1), 39, (Verdict.WAIT, 40), id="works, not silent yet"),
        pytest.param(Moments(active=0, open_turns=1), 40, (Verdict.END_SILENT, 40), id="never said anything"),
        pytest.param(Moments(active=5, answered=5), 6, (Verdict.WAIT, 15), id="idle from the last answer"),
        pytest.param(Moments(active=5, answered=5), 15, (Verdict.CLOSE, 15), id="idle for long enough"),
        pytest.param(
            Moments(active=5, answered=5, open_turns=1),
            15,
            (Verdict.CLOSE, 15),
            id="a long turn is asked to be the last",
        ),
        pytest.param(
            Moments(active=5, answered=5, closed=15, open_turns=1), 30, (Verdict.WAIT, 45), id="the turn completes"
        ),
        pytest.param(
            Moments(active=20, answered=20, closed=15), 21, (Verdict.WAIT, 22), id="grace from the last answer"
        ),
        pytest.param(Moments(active=5, answered=5, closed=15), 17, (Verdict.END_CLOSED, 17), id="ignored the close"),
        pytest.param(
            Moments(active=5, answered=5, closed=15, open_turns=1),
            45,
            (Verdict.END_SILENT, 45),
            id="silent in its turn",
        ),
        pytest.param(
            Moments(active=0, closed=1, open_turns=1, stopping=True), 3, (Verdict.END_CLOSED, 3), id="operator's stop"
        ),
    ],
)
def test_verdict(moments, now, expected):
    assert verdict(moments, LIMITS, now) == expected


def test_the_silence_limit_exceeds_the_idle_time_by_half_a_minute():
    config = ControllerConfig(agent=AgentSettings(image="agent:1"), idle_timeout=1800, session_timeout=60)
    limits = Limits.of(config, SessionKind.MESSAGES)
    assert limits == Limits(idle=1800, silence=1830, grace=config.close_grace)


def test_a_group_may_have_a_longer_silence_limit_of_its_own_and_never_one_below_its_idle_time():
    config = ControllerConfig(agent=AgentSettings(image="agent:1"), idle_timeout=100, session_timeout=200)
    silences = [Limits.of(config, SessionKind.MESSAGES, timeout).silence for timeout in (None, 5, 900)]
    assert silences == [200, 130, 900]


def test_a_task_is_asked_to_end_soon_after_its_last_answer():
    limits = Limits.of(ControllerConfig(agent=AgentSettings(image="agent:1")), SessionKind.TASK)
    assert verdict(Moments(active=50, answered=50), limits, 60) == (Verdict.CLOSE, 60)


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        pytest.param(ContainerOutput(status=OutputStatus.SUCCESS, result="hi", new_session_id="s"), True, id="answer"),
        pytest.param(ContainerOutput(status=OutputStatus.SUCCESS, new_session_id="s"), True, id="nothing to say"),
        pytest.param(ContainerOutput(status=OutputStatus.SUCCESS), False, id="conversation not resumed"),
        pytest.param(ContainerOutput(status=OutputStatus.ERROR, new_session_id="s", error="x"), False, id="error"),
    ],
)
def test_which_outputs_end_a_turn(output, expected):
    assert ends_turn(output) is expected


def test_a_session_that_cannot_be_spoken_to_ends_with_its_turn_or_at_its_deadline():
    limits = Limits(idle=1800, silence=1830, grace=20)
    drained = Moments(active=0, answered=0, closed=0, until=600, open_turns=1)
    assert verdict(drained, limits, 599) == (Verdict.WAIT, 600)
    assert verdict(drained, limits, 600) == (Verdict.END_CLOSED, 600)
    assert verdict(replace(drained, open_turns=0), limits, 1) == (Verdict.END_CLOSED, 1)
