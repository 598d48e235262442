"""The gateway's numbers for Prometheus. Groups and models are names, never what was said."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram

FIRST_BYTE: Final = (0.1, 0.25, 0.5, 1, 2, 3, 5, 8, 13, 20, 30, 60, 120, 300)
# Seconds; a model thinks before it speaks.


class GatewayMetrics:
    """Make one a process and hand it to who counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._counter(
            "requests", "Calls answered; no group where none was recognised.", "group", "status"
        )
        self.tokens = self._counter("tokens", "Tokens used.", "group", "kind")
        self.dollars = self._counter("cost_dollars", "US dollars, by the stack's prices.", "group")
        self.unpriced = self._counter(
            "unpriced", "Calls whose model has no price, and that cost what the dearest would.", "model"
        )
        self.uncounted = self._counter("uncounted", "Answers of the model that told no usage.", "group")
        self.limited = self._counter("limited", "Calls refused because of a limit.", "group", "limit")
        self.ledger_errors = self._counter("ledger_errors", "Calls whose usage could not be written to disk.")
        self.first_byte_seconds = Histogram(
            "nanoclaw_gateway_first_byte_seconds",
            "From a call being passed on to the model beginning its answer.",
            buckets=FIRST_BYTE,
            registry=self.registry,
        )

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"nanoclaw_gateway_{name}", text, labels, registry=self.registry)
