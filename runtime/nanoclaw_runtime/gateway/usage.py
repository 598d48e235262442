"""What a call used, read from the answer while it passes, and what that costs.

The model's API tells usage in its answer: in the body's `usage`, or in the events `message_start` and
`message_delta` of a stream. Pure: bytes in, numbers out. Not here: who used it (`meter`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from nanoclaw_runtime.contract.gateway import Price

BODY_LIMIT: Final = 16 * 1024 * 1024
"""Bytes of an answer in one piece that are kept to look for its usage; the API's are far smaller."""
LINE_LIMIT: Final = 1024 * 1024
"""Bytes of a line of a stream; the events with usage have some hundred."""

_FIELDS: Final = {
    "input_tokens": "input",
    "output_tokens": "output",
    "cache_creation_input_tokens": "cache_write",
    "cache_read_input_tokens": "cache_read",
}
_MODEL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,127}")
# What is kept in a table and shown as a label; an upstream that repeats what it was asked for could say anything.
_MILLION: Final = 1_000_000


@dataclass(frozen=True)
class Usage:
    """Tokens of one call, or of many."""

    input: int = 0
    output: int = 0
    cache_write: int = 0
    cache_read: int = 0

    @property
    def limited(self) -> int:
        """Those that count against tokens a minute."""
        return self.input + self.output + self.cache_write


@dataclass(frozen=True)
class Counted:
    """What is known of a call's usage so far."""

    model: str = ""
    usage: Usage = Usage()


def cost(usage: Usage, price: Price) -> float:
    """US dollars."""
    write = 1.25 * price.input if price.cache_write is None else price.cache_write
    read = 0.1 * price.input if price.cache_read is None else price.cache_read
    dollars = usage.input * price.input + usage.output * price.output + usage.cache_write * write
    return (dollars + usage.cache_read * read) / _MILLION


def price_of(prices: Mapping[str, Price], model: str) -> Price | None:
    """The price with the longest name that `model` begins with."""
    found = max((name for name in prices if model.startswith(name)), key=len, default=None)
    return None if found is None else prices[found]


def dearest(prices: Mapping[str, Price]) -> Price | None:
    """What a model costs that has no price, or asking for such a one would be a way around a day's dollars."""
    return max(prices.values(), key=lambda price: price.input + price.output, default=None)


class UsageReader:
    """Reads along. Whatever it does not understand, it passes over: the bytes are the agent's, not ours."""

    def __init__(self, content_type: str) -> None:
        self.counted = Counted()
        self._stream = content_type.partition(";")[0].strip().lower() == "text/event-stream"
        self._held = bytearray()
        self._skipping = False
        self._pieces = 0
        self._complete = False

    def feed(self, chunk: bytes) -> None:
        if self._stream:
            self._feed_lines(chunk)
        elif not self._skipping:
            self._held += chunk
            self._skipping = len(self._held) > BODY_LIMIT

    def close(self) -> None:
        """The answer is over, or cut off.

        A stream says at its end what it has used. Of one that was cut off before, each piece counts as one token, so
        that hanging up early is no way around a budget.
        """
        if not (self._stream or self._skipping):
            self._take(_parsed(bytes(self._held)))
        if not self._complete and self._pieces > self.counted.usage.output:
            self.counted = replace(self.counted, usage=replace(self.counted.usage, output=self._pieces))
        self._held.clear()

    def _feed_lines(self, chunk: bytes) -> None:
        *lines, rest = chunk.split(b"\n")
        for line in lines:
            self._hold(line)
            if not self._skipping and self._held.startswith(b"data:"):
                self._take_event(bytes(self._held[5:]))
            self._held.clear()
            self._skipping = False
        self._hold(rest)

    def _hold(self, part: bytes) -> None:
        if not self._skipping:
            self._held += part
            self._skipping = len(self._held) > LINE_LIMIT

    def _take_event(self, data: bytes) -> None:
        if b'"usage"' not in data:  # nearly all events are pieces of text
            self._pieces += b'"content_block_delta"' in data
            return
        event = _parsed(data)
        match event.get("type"):
            case "message_start":
                self._take(_map(event.get("message")))
            case "message_delta":
                self._take(event)
                self._complete = True

    def _take(self, told: Mapping[str, Any]) -> None:
        """Numbers of a stream are totals so far: the last word counts."""
        model, usage = told.get("model"), _map(told.get("usage"))
        numbers = {
            ours: number for theirs, ours in _FIELDS.items() if (number := _count(usage.get(theirs))) is not None
        }
        self.counted = Counted(
            model if isinstance(model, str) and _MODEL.fullmatch(model) else self.counted.model,
            replace(self.counted.usage, **numbers),
        )


def _parsed(data: bytes) -> Mapping[str, Any]:
    try:
        return _map(json.loads(data))
    except (ValueError, RecursionError):
        return {}


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**40 else None
