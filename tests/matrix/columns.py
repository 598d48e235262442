"""The ways to run agents: which pattern and which transport, and what an installation of each needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nanoclaw_dev.cluster import render
from nanoclaw_runtime.contract.config import Pattern, Transport
from tests.matrix.rows import ROWS

RUNTIME = {
    "maxConcurrentSessions": 20,
    "idleTimeout": 5,
    "sessionTimeout": 1,  # the silence limit is the least there is: half a minute behind the idle time
    "closeGrace": 5,
}
GROUPS = [
    {"folder": folder, "name": folder, "requiresTrigger": False}
    for folder in dict.fromkeys(folder for row in ROWS for folder in row.groups)
]
DETACHABLE = render.DETACHABLE_CLASS
"""The cluster's class of volumes that any node may have, one at a time."""


@dataclass(frozen=True)
class Column:
    pattern: Pattern
    transport: Transport = Transport.VOLUME

    @property
    def name(self) -> str:
        return f"{self.pattern}/{self.transport}"

    def settings(self) -> dict[str, Any]:
        """Of its stack, as `Installation.up` takes them."""
        settings: dict[str, Any] = {"runtime": RUNTIME | self._where(), "groups": GROUPS}
        if self.transport is Transport.BRIDGE:
            settings["storage"] = {"storageClass": DETACHABLE, "accessMode": "ReadWriteOnce"}
        return settings

    def _where(self) -> dict[str, Any]:
        return {"pattern": str(self.pattern), "transport": str(self.transport)}


COLUMNS = (
    Column(Pattern.JOB),
    Column(Pattern.JOB, Transport.BRIDGE),
    Column(Pattern.STATEFULSET),
    Column(Pattern.STATEFULSET, Transport.BRIDGE),
    Column(Pattern.NODELOCAL),
    Column(Pattern.DOCKER),
)
