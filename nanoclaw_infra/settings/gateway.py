"""The model gateway: whether there is one, what it lets each group use, and what that costs."""

from __future__ import annotations

from nanoclaw_infra.settings.base import Workload
from nanoclaw_runtime.contract.config import Resources
from nanoclaw_runtime.contract.gateway import GatewayConfig
from nanoclaw_runtime.contract.quantities import Quantity


class GatewayResources(Resources):
    """Requests and limits of the gateway: it passes bytes on."""

    cpu_request: Quantity = "50m"
    memory_request: Quantity = "96Mi"
    cpu_limit: Quantity = "1"
    memory_limit: Quantity = "256Mi"


class GatewaySettings(Workload):
    """A small Deployment that holds the API key and passes the agents' calls on to the model."""

    enabled: bool = False
    """Whether agents get a placeholder and the gateway's address, not the key itself."""
    resources: GatewayResources = GatewayResources()
    serves: GatewayConfig = GatewayConfig()
    """The model's address, the limits of groups, and prices."""
