"""What every command shares: where it goes, how it prints, how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

import typer
from pydantic import BaseModel
from rich.table import Table

from nanoclaw_runtime.cli import render
from nanoclaw_runtime.cli.installation import Target
from nanoclaw_runtime.cli.remote import Remote
from nanoclaw_runtime.cli.render import Output
from nanoclaw_runtime.domain.errors import NanoclawError


@dataclass(frozen=True)
class Options:
    """The common options of one invocation; `context.obj` of every command."""

    target: Target
    output: Output

    @property
    def json(self) -> bool:
        return self.output is Output.JSON


def show(
    options: Options,
    document: BaseModel | Sequence[BaseModel] | dict[str, Any],
    table: Callable[[], Table | str],
) -> None:
    """Print the document as JSON, or what `table` makes of it."""
    if options.json:
        line(render.dump(document))
    elif isinstance(shown := table(), str):
        line(shown)
    else:
        render.console().print(shown)


def line(text: str) -> None:
    typer.echo(text)


def run(options: Options, work: Callable[[Remote], Coroutine[Any, Any, bool]]) -> None:
    """Do `work` with a connection to the installation; what it raises, or False, becomes the exit status 1."""

    async def connected() -> bool:
        async with await Remote.connect(options.target) as remote:
            return await work(remote)

    finish(connected())


def finish(work: Coroutine[Any, Any, bool]) -> None:
    """The same for work that needs no connection, or makes its own."""
    try:
        good = asyncio.run(work)
    except NanoclawError as error:
        typer.echo(f"nanoclaw: {render.printable(str(error))}", err=True)  # an agent may have named what is told of
        raise typer.Exit(1) from None
    if not good:
        raise typer.Exit(1)
