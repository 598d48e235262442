"""What the model gateway is told, and the placeholders by which it knows a group.

The gateway holds the real key; an agent gets a placeholder that is good for nothing but asking the
gateway. Not here: passing anything on.
"""

from __future__ import annotations

from typing import Final

from pydantic import Field

from nanoclaw_runtime.contract import names
from nanoclaw_runtime.contract.config import ContractModel, Folder

BASE_URL: Final = f"http://{names.GATEWAY}:{names.GATEWAY_PORT}"
"""Where agents of the namespace find the gateway; their ANTHROPIC_BASE_URL."""


class Limits(ContractModel):
    """What a group may use; no bound where nothing is said."""

    requests_per_minute: int | None = Field(default=None, ge=1)
    tokens_per_minute: int | None = Field(default=None, ge=1)
    """Of input and output together."""
    cost_per_day: float | None = Field(default=None, gt=0)
    """US dollars from midnight to midnight UTC."""


class Price(ContractModel):
    """US dollars for a million tokens."""

    input: float = Field(ge=0)
    output: float = Field(ge=0)
    cache_write: float = Field(default=0, ge=0)
    cache_read: float = Field(default=0, ge=0)


class GatewayConfig(ContractModel):
    """Everything the gateway is told by the stack except secrets."""

    upstream: str = Field(default="https://api.anthropic.com", pattern=r"^https?://[^\s/]+$")
    """Origin of the model's API."""
    limits: Limits = Limits()
    """Of every group that has none of its own."""
    group_limits: dict[Folder, Limits] = Field(default_factory=dict)
    prices: dict[str, Price] = Field(default_factory=dict)
    """Model, or the beginning of its name → price; the longest match counts. What has none costs nothing."""
