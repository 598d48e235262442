"""`nanoclaw host`: the controller of one Docker host, in the foreground."""

from __future__ import annotations

import asyncio
import os
import shlex
from pathlib import Path
from typing import Annotated

import typer

from nanoclaw_runtime.app import until_signalled
from nanoclaw_runtime.contract import names
from nanoclaw_runtime.domain.errors import NanoclawError
from nanoclaw_runtime.host.place import HostPlace
from nanoclaw_runtime.host.run import HostSettings, run
from nanoclaw_runtime.telemetry import configure_logging

ADDRESS = "127.0.0.1"


def host(
    stack_file: Annotated[Path, typer.Argument(help="Stack file, or a file with `runtime:` and `groups:`.")],
    *,
    tree: Annotated[
        Path, typer.Option(help="Folder of the host: groups, sessions, database. Made where it is missing.")
    ],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of the API, on this machine only.")] = names.API_PORT,
    docker_host: Annotated[str | None, typer.Option(help="Address of the engine; as `docker` chooses it.")] = None,
    network: Annotated[str | None, typer.Option(help="Docker network of the agents; the engine's default.")] = None,
    credentials: Annotated[
        Path | None,
        typer.Option(help="Folder with one file a credential; else environment variables.", file_okay=False),
    ] = None,
) -> None:
    """Run the controller on this machine, with agents as Docker containers. The file is the one of a cluster.

    Groups that change in the file are taken up while it runs. Ctrl-C leaves agents that work alone.
    """
    place = HostPlace(tree.resolve(), credentials, os.environ)
    settings = HostSettings(stack_file, place, ADDRESS, port, docker_host, network)
    configure_logging()
    try:
        asyncio.run(until_signalled(run(settings, lambda: typer.echo(_how_to_talk(place, port), err=True))))
    except NanoclawError as error:
        typer.echo(f"nanoclaw: {error}", err=True)
        raise typer.Exit(1) from None
    except BaseExceptionGroup as group:
        expected = group.subgroup(NanoclawError)
        if expected is None:
            raise
        typer.echo(f"nanoclaw: {_first(expected)}", err=True)
        raise typer.Exit(1) from None


def _first(group: BaseExceptionGroup[NanoclawError]) -> BaseException:
    first: BaseException = group
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first


def _how_to_talk(place: HostPlace, port: int) -> str:
    file = shlex.quote(str(place.token_file))
    return "\n".join(
        [
            "Talk to it from another terminal:",
            f"  export NANOCLAW_URL=http://{ADDRESS}:{port} NANOCLAW_TOKEN_FILE={file}",
            '  nanoclaw send main "hello" --follow',
            "  nanoclaw doctor",
        ]
    )
