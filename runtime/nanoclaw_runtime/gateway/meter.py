"""One group's calls: let in or not, and counted when they are over, however they end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime

from nanoclaw_runtime.contract.gateway import GatewayConfig
from nanoclaw_runtime.gateway.ledger import Entry, Ledger
from nanoclaw_runtime.gateway.limits import Exceeded, Minutes, spent_too_much
from nanoclaw_runtime.gateway.metrics import GatewayMetrics
from nanoclaw_runtime.gateway.usage import Counted, UsageReader, cost, dearest, price_of


@dataclass
class Call:
    """One call under way; `reader` once the answer has begun."""

    uses_tokens: bool
    """Whether its answer has to tell what it used."""
    status: int | None = None
    reader: UsageReader | None = None


class Meter:
    """Everything that is counted. `clock` is in UTC."""

    def __init__(
        self, config: GatewayConfig, ledger: Ledger, metrics: GatewayMetrics, clock: Callable[[], datetime]
    ) -> None:
        self._config, self._ledger, self._metrics, self._clock = config, ledger, metrics, clock
        self._minutes = Minutes()

    def now(self) -> datetime:
        return self._clock()

    def first_byte(self, seconds: float) -> None:
        """From passing a call on to the beginning of its answer."""
        self._metrics.first_byte_seconds.observe(seconds)

    def exceeded(self, folder: str) -> Exceeded | None:
        """What keeps the group from calling now."""
        now, limits = self._clock(), self._config.limits_of(folder)
        found = spent_too_much(self._ledger.spent(folder, now.date()), limits, now) or self._minutes.exceeded(
            folder, limits, now.timestamp()
        )
        if found is not None:
            self._metrics.limited.labels(folder, found.limit).inc()
            self.answered(folder, 429)
        return found

    @contextmanager
    def call(self, folder: str, *, uses_tokens: bool) -> Iterator[Call]:
        """Around a call that was let in. What its answer told of usage counts, also when it was cut off."""
        self._minutes.begin(folder, self._clock().timestamp())
        call = Call(uses_tokens)
        try:
            yield call
        finally:
            if call.reader is not None:
                call.reader.close()
            self._count(folder, call)

    def answered(self, folder: str, status: int | None) -> None:
        """One more answer; None when the agent went away before there was one."""
        self._metrics.requests.labels(folder, "gone" if status is None else str(status)).inc()

    def _count(self, folder: str, call: Call) -> None:
        now, metrics = self._clock(), self._metrics
        counted = call.reader.counted if call.reader else Counted()
        usage, dollars = counted.usage, self._dollars(counted)
        self._minutes.end(folder, usage.limited, now.timestamp())
        self._ledger.add(Entry(now.date(), folder, counted.model, usage, dollars))
        self.answered(folder, call.status)
        if call.uses_tokens and call.status == 200 and not counted.model:
            metrics.uncounted.labels(folder).inc()
        for kind, tokens in asdict(usage).items():
            metrics.tokens.labels(folder, kind).inc(tokens)
        metrics.dollars.labels(folder).inc(dollars)

    def _dollars(self, counted: Counted) -> float:
        price = price_of(self._config.prices, counted.model)
        if price is not None:
            return cost(counted.usage, price)
        if counted.model:
            self._metrics.unpriced.labels(counted.model).inc()
        price = dearest(self._config.prices)
        return cost(counted.usage, price) if price is not None else 0.0
