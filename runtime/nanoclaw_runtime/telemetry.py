"""Logs and metrics: events with fields on stderr, numbers in one registry that is passed around.

Never a prompt, an answer or a secret. Who serves the numbers is `api`.
"""

from __future__ import annotations

import logging
import sys
from typing import Final, TextIO

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

LATENCY: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160)
# Seconds; a parked pod takes tens of milliseconds, a cold start seconds, a pull minutes.
OWN_SHARE: Final = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.25, 0.5, 1, 5)
# Seconds; the goal is 50 ms at p99.

WAITS: Final = (0.01, 1, 5, 15, 30, 60, 120, 300, 600, 1800, 3600)
# Seconds; a place is free at once, or when another group's session ends.


def configure_logging(stream: TextIO | None = None) -> None:
    """One JSON object a line on stderr, or coloured lines when that is a terminal; libraries' logs join in."""
    out = stream or sys.stderr
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    if out.isatty():
        plain = structlog.dev.plain_traceback
        final: list[structlog.types.Processor] = [structlog.dev.ConsoleRenderer(exception_formatter=plain)]
    else:
        # Local variables of a traceback would be prompts and secrets.
        frames = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        final = [structlog.processors.ExceptionRenderer(frames), structlog.processors.JSONRenderer()]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *final],
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=True,
    )


class Metrics:
    """The controller's numbers. Make one a process and hand it to who counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.messages_accepted = self._counter("nanoclaw_messages_accepted", "Messages committed and acknowledged.")
        self.answers = self._counter("nanoclaw_answers", "Answers committed and published.")
        self.sessions = self._gauge("nanoclaw_sessions", "Sessions that are alive, by state.", "state")
        self.session_silent_seconds = self._gauge(
            "nanoclaw_session_silent_seconds",
            "Since the longest silent session of this state began, said or was given something; 0 when there is none.",
            "state",
        )
        self.session_overdue_seconds = self._gauge(
            "nanoclaw_session_overdue_seconds",
            "Since the controller began to end the session that resists it longest; 0 when there is none.",
        )
        self.sessions_ended = self._counter(
            "nanoclaw_sessions_ended", "Sessions that are over; `failure` is empty when one ended well.", "failure"
        )
        self.groups_waiting = self._gauge("nanoclaw_groups_waiting", "Groups with messages that wait for a free place.")
        self.groups_stranded = self._gauge(
            "nanoclaw_groups_stranded",
            "Groups whose node is gone, and their data with it; of the one controller that assigns groups to nodes.",
        )
        self.longest_wait_seconds = self._gauge(
            "nanoclaw_longest_wait_seconds",
            "Since the group that waits longest for a free place began to; 0 when none waits.",
        )
        self.wait_seconds = self._histogram(
            "nanoclaw_wait_seconds", "From a group beginning to wait for a place to getting it.", WAITS
        )
        self.messages_given_up = self._counter(
            "nanoclaw_messages_given_up", "Messages that no session answered in all tries."
        )
        self.outbox_oldest_seconds = self._gauge(
            "nanoclaw_outbox_oldest_seconds",
            "Since the oldest text that no chat network has taken yet was written; 0 when there is none.",
        )
        self.texts_given_up = self._counter(
            "nanoclaw_texts_given_up", "Texts that a chat network did not take in all tries."
        )
        self.agent_requests = self._counter(
            "nanoclaw_agent_requests", "Requests that agents left for their host, by what became of them.", "outcome"
        )
        self.input_seconds = self._histogram(
            "nanoclaw_input_seconds", "From a message being accepted to an agent having it.", LATENCY
        )
        self.own_seconds = self._histogram(
            "nanoclaw_own_seconds",
            "From a session being decided on to its backend being asked: records, volumes, prompt.",
            OWN_SHARE,
        )
        self.parked_agents = self._gauge(
            "nanoclaw_parked_agents",
            "Agents that were started before their message, by whether they have compiled and wait for it.",
            "state",
        )
        self.parking_hits = self._counter("nanoclaw_parking_hits", "Sessions that began with a parked agent.")
        self.parking_misses = self._counter(
            "nanoclaw_parking_misses", "Sessions that began without a parked agent where agents are parked."
        )
        self.parking_dropped = self._counter(
            "nanoclaw_parking_dropped", "Parked agents that were taken away, by why.", "why"
        )
        self.parking_failed = self._counter(
            "nanoclaw_parking_failed",
            "Agents that could not be parked, or died or were late instead of waiting for their input.",
        )
        self.ready = self._gauge("nanoclaw_ready", "1 when the last readiness probe found all well.")
        self.watch_age_seconds = self._gauge(
            "nanoclaw_watch_age_seconds", "Since something was last heard on a watch.", "kind"
        )
        self.bridge_streams = self._gauge("nanoclaw_bridge_streams", "Agents' pods whose files are carried now.")
        self.bridge_lost = self._counter(
            "nanoclaw_bridge_lost",
            "Streams of agents' pods that broke off; the pod comes back, or its session is not known to be answered.",
        )
        self.bridge_refused = self._counter("nanoclaw_bridge_refused", "Connections to the bridge that were no pod's.")
        self.database_errors = self._counter("nanoclaw_database_errors", "Transactions the database refused.")

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, text, buckets=buckets, registry=self.registry)
