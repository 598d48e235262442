"""`nanoclaw queue`: who waits for a place."""

from __future__ import annotations

import typer
from rich.table import Table

from nanoclaw_runtime.api.queue_schemas import QueueView
from nanoclaw_runtime.cli.given import Options
from nanoclaw_runtime.cli.options import run, show
from nanoclaw_runtime.cli.remote import Remote
from nanoclaw_runtime.cli.render import about


def queue(context: typer.Context) -> None:
    """Places for sessions, how many are taken, and the groups that wait for one."""
    options: Options = context.obj

    async def work(remote: Remote) -> bool:
        found = await remote.ask(QueueView, "GET", "/v1/queue")
        show(options, found, lambda: _table(found))
        return True

    run(options, work)


def _table(found: QueueView) -> Table | str:
    places = f"{found.active} of {found.limit} places taken"
    if not found.waiting:
        return f"{places}, nobody waits"
    table = Table("Group", "Place", "Expected wait", title=places, title_justify="left", box=None)
    for group in found.waiting:
        table.add_row(group.folder, f"{group.position}.", about(group.estimated_wait))
    return table
