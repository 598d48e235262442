"""Who waits for a place, as the API tells it."""

from __future__ import annotations

from typing import Self

from nanoclaw_runtime.api.schemas import Answer
from nanoclaw_runtime.controller.status import QueueStatus


class QueuedGroupView(Answer):
    folder: str
    position: int
    """1 is next."""
    estimated_wait: float | None
    """Seconds; null when nothing is known to judge by."""


class QueueView(Answer):
    limit: int
    active: int
    waiting: list[QueuedGroupView]

    @classmethod
    def of(cls, status: QueueStatus) -> Self:
        waiting = [QueuedGroupView.model_validate(group) for group in status.waiting]
        return cls(limit=status.limit, active=status.active, waiting=waiting)
