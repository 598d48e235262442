"""What the model gateway is told, and the placeholders by which it knows a group.

The gateway holds the real key; an agent gets a placeholder that is good for nothing but asking the
gateway, on behalf of one group and until its session's deadline. Not here: passing anything on.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from datetime import date
from typing import Final

from pydantic import Field

from nanoclaw_runtime.contract import names
from nanoclaw_runtime.contract.config import ContractModel, Folder

BASE_URL: Final = f"http://{names.GATEWAY}:{names.GATEWAY_PORT}"
"""Where agents of the namespace find the gateway; their ANTHROPIC_BASE_URL."""

PORT_NAME: Final = "http"
OPERATIONS_PORT: Final = 8082
"""Of probes and metrics, apart from the agents' port: what groups use is nothing for agents to read."""
OPERATIONS_PORT_NAME: Final = "metrics"

KEY_DIR: Final = "/etc/nanoclaw/gateway-key"
"""Secret `names.GATEWAY_KEY`, in the pods of the controller and of the gateway."""
USAGE_DIR: Final = "/var/lib/nanoclaw/usage"
"""The gateway's claim in its pod."""
USAGE_FILE: Final = "usage.db"

ENV_KEY_DIR: Final = "NANOCLAW_GATEWAY_KEY_DIR"
ENV_USAGE_DIR: Final = "NANOCLAW_USAGE_DIR"

_PREFIX: Final = "nanoclaw-placeholder-"
# Whoever finds one in a log should see at once that it opens nothing outside.
_SHAPE: Final = re.compile(
    rf"{_PREFIX}(?P<signed>(?P<folder>[A-Za-z0-9_-]{{1,64}})\.(?P<expires>[0-9]{{1,12}}))\.(?P<signature>[A-Za-z0-9_-]{{43}})"
)


class Limits(ContractModel):
    """What a group may use; no bound where nothing is said."""

    requests_per_minute: int | None = Field(default=None, ge=1)
    """Calls of the model."""
    tokens_per_minute: int | None = Field(default=None, ge=1)
    """Of input, output and writes to the prompt cache together; reads from the cache are free here."""
    cost_per_day: float | None = Field(default=None, gt=0)
    """US dollars from midnight to midnight UTC, by `prices`."""


class Price(ContractModel):
    """US dollars for a million tokens."""

    input: float = Field(ge=0)
    """Tokens sent, those of the cache apart."""
    output: float = Field(ge=0)
    """Tokens answered."""
    cache_write: float | None = Field(default=None, ge=0)
    """1.25 times `input` when left out."""
    cache_read: float | None = Field(default=None, ge=0)
    """A tenth of `input` when left out."""


class GatewayConfig(ContractModel):
    """Everything the gateway is told by the stack except secrets."""

    upstream: str = Field(default="https://api.anthropic.com", pattern=r"^https?://[^\s/?#@]+$")
    """Origin of the model's API."""
    limits: Limits = Limits()
    """Of every group that has none of its own."""
    group_limits: dict[Folder, Limits] = Field(default_factory=dict)
    prices: dict[str, Price] = Field(default_factory=dict)
    """Model, or the beginning of its name → price; the longest match counts. Without one, the dearest is taken."""

    def limits_of(self, folder: str) -> Limits:
        return self.group_limits.get(folder, self.limits)


class UsedView(ContractModel):
    """What a group used of a model on one day."""

    day: date
    """In UTC."""
    group: Folder
    model: str
    """Empty for calls whose answer named none: refusals, counts of tokens, lists of models."""
    calls: int
    input: int
    output: int
    cache_write: int
    cache_read: int
    dollars: float


class UsageList(ContractModel):
    """What `GET /usage` of the operations port answers."""

    usage: tuple[UsedView, ...]


class PlaceholderRefused(ValueError):
    """What somebody showed as a placeholder opens nothing; the text says why, for the agent's eyes."""


def placeholder(key: bytes, folder: str, expires: int) -> str:
    """What an agent of the group shows the gateway instead of a key, until `expires` in seconds since 1970."""
    signed = f"{folder}.{expires}"
    return f"{_PREFIX}{signed}.{_signature(key, signed)}"


def folder_of(key: bytes, token: str, now: float) -> str:
    """The group that `placeholder` was made for. Raises PlaceholderRefused for anything else, and when it is late."""
    match = _SHAPE.fullmatch(token)
    if match is None:
        raise PlaceholderRefused(
            "this is no placeholder of this gateway; use the ANTHROPIC_API_KEY the session was given"
        )
    if not hmac.compare_digest(match["signature"], _signature(key, match["signed"])):
        raise PlaceholderRefused("the placeholder was not made by this installation; a new session gets a valid one")
    if now >= int(match["expires"]):
        raise PlaceholderRefused("the placeholder has expired with its session; a new session gets a valid one")
    return match["folder"]


def agent_secrets(key: bytes, folder: str, expires: int) -> dict[str, str]:
    """What agents get on stdin instead of the model's key; always as an API key, whatever the real one is."""
    return {"ANTHROPIC_API_KEY": placeholder(key, folder, expires), "ANTHROPIC_BASE_URL": BASE_URL}


def _signature(key: bytes, signed: str) -> str:
    digest = hmac.new(key, signed.encode(), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
