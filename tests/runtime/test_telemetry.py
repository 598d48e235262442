"""Logs are one JSON object a line, whoever writes them."""

import io
import json
import logging

import pytest
import structlog
from prometheus_client import generate_latest

from nanoclaw_runtime.telemetry import Metrics, configure_logging


@pytest.fixture
def log():
    root, stream = logging.getLogger(), io.StringIO()
    handlers, level = root.handlers[:], root.level
    configure_logging(stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def test_our_events_and_those_of_libraries_look_alike(log):
    structlog.get_logger().info("session over", session="s1")
    logging.getLogger("uvicorn.error").warning("slow %s", "client")
    logging.getLogger("aiosqlite").debug("not this")
    ours, theirs = log()
    assert (ours["event"], ours["session"], ours["level"]) == ("session over", "s1", "info")
    assert (theirs["event"], theirs["level"]) == ("slow client", "warning")
    assert ours.keys() >= {"timestamp"} <= theirs.keys()


def test_a_traceback_is_data(log):
    secret = "hunter2"
    try:
        int("bad")
    except ValueError:
        structlog.get_logger().exception("session broke")
    (line,) = log()
    assert line["exception"][0]["exc_type"] == "ValueError"
    assert secret not in json.dumps(line)


def test_the_numbers_have_their_names():
    metrics = Metrics()
    metrics.messages_accepted.inc()
    metrics.sessions_ended.labels(failure="exit").inc()
    text = generate_latest(metrics.registry).decode()
    assert "nanoclaw_messages_accepted_total 1.0" in text
    assert 'nanoclaw_sessions_ended_total{failure="exit"} 1.0' in text
