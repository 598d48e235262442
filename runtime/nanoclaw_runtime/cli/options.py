"""What commands share: how they reach the controller, how they print, how they end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any

import typer
from pydantic import BaseModel
from rich.table import Table

from nanoclaw_runtime.cli import render
from nanoclaw_runtime.cli.given import Options
from nanoclaw_runtime.cli.remote import Remote
from nanoclaw_runtime.domain.errors import NanoclawError


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


@contextlib.contextmanager
def waiting(what: str) -> Iterator[Callable[[str], None]]:
    """A line on the terminal that says what is waited for; nothing where nobody watches."""
    console = render.console(stderr=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    with console.status(what) as status:
        yield lambda text: status.update(render.printable(text))
