"""Who waits for a place."""

from __future__ import annotations

from fastapi import APIRouter

from nanoclaw_runtime.api.queue_schemas import QueueView
from nanoclaw_runtime.controller.view import ControllerView


def router(controller: ControllerView) -> APIRouter:
    """The one route of the queue."""
    router = APIRouter()

    @router.get("/queue")
    async def queue() -> QueueView:
        """Places for sessions, how many are taken, and the groups that wait for one."""
        return QueueView.of(controller.queue())

    return router
