"""What a session's pod will be made of, worked out alike for agents that are started and those that are parked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from nanoclaw_runtime.contract.bridge import BridgeFacts
from nanoclaw_runtime.contract.config import ControllerConfig, GroupSpec
from nanoclaw_runtime.contract.mounts import ExtraMount
from nanoclaw_runtime.domain.model import SessionPlan, SessionRef


@dataclass(frozen=True)
class Plans:
    """Makes the plans of one controller."""

    config: ControllerConfig
    extra_mounts: Callable[[GroupSpec], tuple[ExtraMount, ...]]
    """What a group's agents mount beyond the standard ones; may block."""
    node: str | None = None
    """The one node agents have to run on."""
    bridge: BridgeFacts | None = None
    """Where their pods find us, with the transport `bridge`."""

    async def of(self, group: GroupSpec, ref: SessionRef, *, parked: bool = False) -> SessionPlan:
        """The plan of a session as settings and group are now. Raises OSError."""
        extra = await asyncio.to_thread(self.extra_mounts, group)
        return SessionPlan(ref, self.config.of(group), extra, parked=parked, node=self.node, bridge=self.bridge)
