"""How many nodes a cluster has and how soon it notices a dead one: chosen at a start, kept with its data.

Every later command, and the cluster's own programs, find the same cluster without being told again.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Self

from nanoclaw_dev.cluster.instance import MOST_NODES, Instance
from nanoclaw_dev.cluster.processes import write_private
from nanoclaw_dev.errors import SetupError


@dataclass(frozen=True)
class Shape:
    """What a cluster is made of."""

    nodes: int = 1
    fast_failure: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.nodes <= MOST_NODES:
            raise SetupError(f"A cluster cannot have {self.nodes} nodes: choose 1 to {MOST_NODES}.")

    @classmethod
    def of(cls, instance: Instance, *, nodes: int | None = None, fast_failure: bool | None = None) -> Self:
        """The shape wanted now: what is not None, else as it was recorded, else the usual."""
        try:
            recorded = json.loads(instance.shape.read_text())
        except FileNotFoundError:
            recorded = {}
        chosen = {"nodes": nodes, "fast_failure": fast_failure}
        return cls(**recorded | {name: value for name, value in chosen.items() if value is not None})

    def text(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    def record(self, instance: Instance) -> None:
        write_private(instance.shape, self.text())
