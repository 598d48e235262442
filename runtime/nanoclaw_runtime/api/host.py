"""The routes of a whole host, part by part."""

from __future__ import annotations

from fastapi import APIRouter

from nanoclaw_runtime.api import groups, outbox, queue, tasks, transfer
from nanoclaw_runtime.controller.host import Host


def host_routers(host: Host) -> list[APIRouter]:
    """What `create_app` serves beside messages, sessions and events."""
    return [
        queue.router(host.controller),
        groups.router(host.groups, host.controller),
        tasks.router(host.tasks),
        outbox.router(host.outbox, host.chats),
        transfer.router(host.transfer),
    ]
