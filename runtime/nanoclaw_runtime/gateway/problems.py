"""Refusals in the shape of the model's API, so that agents' clients understand them. Never a key, never a body."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web

from nanoclaw_runtime.gateway.limits import Exceeded


def refusal(status: int, kind: str, text: str, headers: Mapping[str, str] | None = None) -> web.Response:
    error = {"type": "error", "error": {"type": kind, "message": f"nanoclaw gateway: {text}"}}
    return web.json_response(error, status=status, headers=headers)


def limited(exceeded: Exceeded) -> web.Response:
    """`x-should-retry` is what Anthropic's own clients look at first."""
    headers = {"retry-after": str(exceeded.seconds)}
    if not exceeded.worth_waiting:
        headers["x-should-retry"] = "false"
    return refusal(429, "rate_limit_error", exceeded.text, headers)
