"""`nanoclaw sessions`: those that are alive, and ending one."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from nanoclaw_runtime.cli import render
from nanoclaw_runtime.cli.given import Options
from nanoclaw_runtime.cli.options import run, show
from nanoclaw_runtime.cli.remote import Remote

app = typer.Typer(help="The sessions that are alive, or end one of them.", invoke_without_command=True)


@app.callback()
def sessions(context: typer.Context) -> None:
    """The sessions that are alive."""
    options: Options = context.obj
    if context.invoked_subcommand is not None:
        return

    async def work(remote: Remote) -> bool:
        found = await remote.sessions()
        show(options, found, lambda: render.sessions(found, datetime.now(UTC)))
        return True

    run(options, work)


@app.command()
def stop(context: typer.Context, session: Annotated[str, typer.Argument(help="Id of the session.")]) -> None:
    """Ask a session to end; what it has not answered is told to its chat."""
    options: Options = context.obj

    async def work(remote: Remote) -> bool:
        await remote.stop(session)
        show(options, {"session": session}, lambda: f"session {session} was asked to end")
        return True

    run(options, work)
