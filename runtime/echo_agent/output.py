"""What the agent prints: three-line markers on stdout, log lines on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

START = "---NANOCLAW_OUTPUT_START---"
END = "---NANOCLAW_OUTPUT_END---"


def success(result: str | None, session_id: str | None = None, between: Callable[[], None] | None = None) -> None:
    """One `success` marker. `between` runs before each of its lines: the place for noise."""
    marker: dict[str, str | None] = {"status": "success", "result": result}
    if session_id is not None:
        marker["newSessionId"] = session_id
    _lines(marker, between)


def error(problem: str, session_id: str | None = None) -> None:
    """One `error` marker, with the session id the agent holds, stale or not."""
    marker: dict[str, str | None] = {"status": "error", "result": None}
    if session_id is not None:
        marker["newSessionId"] = session_id
    _lines(marker | {"error": problem}, None)


def log(text: str) -> None:
    """A line on stderr. Never prompts, never secrets."""
    sys.stderr.write(f"[echo-agent] {text}\n")
    sys.stderr.flush()


def _lines(marker: dict[str, str | None], between: Callable[[], None] | None) -> None:
    for line in (START, json.dumps(marker, ensure_ascii=False), END):
        if between:
            between()
        # One write a line, as the real agent does it: foreign lines may land in between.
        sys.stdout.buffer.write(line.encode(errors="replace") + b"\n")
        sys.stdout.buffer.flush()
