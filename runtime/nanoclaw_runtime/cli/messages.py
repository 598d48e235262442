"""`nanoclaw send`, `history` and `events`: what people say to groups, and what comes of it."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import secrets
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Annotated

import typer

from nanoclaw_runtime.api.schemas import AcceptedView, EventView
from nanoclaw_runtime.cli import render
from nanoclaw_runtime.cli.conversation import Heard, Turn, hear
from nanoclaw_runtime.cli.errors import CommandFailed
from nanoclaw_runtime.cli.given import Options
from nanoclaw_runtime.cli.options import line, run, show, waiting
from nanoclaw_runtime.cli.remote import Remote


def send(
    context: typer.Context,
    group: Annotated[str, typer.Argument(help="Folder of the group, such as main.")],
    text: Annotated[str, typer.Argument(help="The message.")],
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for the answer and print it.")] = False,
    sender: Annotated[str | None, typer.Option(help="Who writes; your user name when left out.")] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to wait for the answer.")] = 300,
) -> None:
    """Send a message to a group's agent. With --follow the exit status is 0 once it is answered."""
    options: Options = context.obj

    async def work(remote: Remote) -> bool:
        accepted = await remote.send(
            group,
            text,
            sender=sender or getpass.getuser(),
            client_id=f"cli-{secrets.token_hex(8)}",
            absent=lambda: typer.echo("the controller is away; waiting for it", err=True),
        )
        if not follow:
            show(options, accepted, lambda: _acknowledgement(accepted))
            return True
        if accepted.trigger is not None:
            raise CommandFailed(_acknowledgement(accepted))
        return await _answered(remote, options, group, accepted, timeout)

    run(options, work)


def history(
    context: typer.Context,
    group: Annotated[str, typer.Argument(help="Folder of the group.")],
    after: Annotated[int, typer.Option(min=0, help="Only messages with a larger id.")] = 0,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many.")] = 100,
) -> None:
    """The messages of a group and what became of them, oldest first."""
    options: Options = context.obj

    async def work(remote: Remote) -> bool:
        found = await remote.history(group, after=after, limit=limit)
        show(options, found, lambda: render.history(found, datetime.now(UTC)))
        return True

    run(options, work)


def events(
    context: typer.Context,
    group: Annotated[str | None, typer.Argument(help="Folder of the group; every group when left out.")] = None,
    after: Annotated[int | None, typer.Option(min=0, help="From behind this event; 0 is the very first.")] = None,
) -> None:
    """What happens, as it happens, until Ctrl-C. As JSON: one event a line."""
    options: Options = context.obj
    console = render.console()

    async def work(remote: Remote) -> bool:
        async with contextlib.aclosing(remote.events(group, after=after)) as events:
            async for event in events:
                if options.json:
                    line(event.model_dump_json(by_alias=True))
                else:
                    console.print(render.event(event), soft_wrap=True)
        return True

    run(options, work)


async def _answered(remote: Remote, options: Options, group: str, accepted: AcceptedView, timeout: float) -> bool:  # noqa: ASYNC109 - the option of the command
    if options.json:
        line(accepted.model_dump_json(by_alias=True))
    with waiting(f"message {accepted.id}: {_waits(accepted)}") as tell:
        try:
            following = contextlib.aclosing(remote.events(group, after=accepted.event))
            async with asyncio.timeout(timeout), following as events:
                heard = await _outcome(events, accepted.id, options, tell)
        except TimeoutError:
            raise CommandFailed(
                f"message {accepted.id} has no answer after {timeout:.0f} s; "
                f"it is not lost: `nanoclaw events {group} --after {accepted.event}` goes on waiting"
            ) from None
    if heard.turn is Turn.FAILED:
        raise CommandFailed(heard.text)
    if not options.json:
        line(render.printable(heard.text) or "The agent is done and had nothing to say.")
    return True


async def _outcome(
    events: AsyncIterator[EventView], message: int, options: Options, tell: Callable[[str], None]
) -> Heard:
    """Show what is heard until the message is answered or given up."""
    async for event in events:
        if options.json:
            line(event.model_dump_json(by_alias=True))
        heard = hear(event, message)
        match heard.turn:
            case Turn.ANSWERED | Turn.FAILED:
                return heard
            case Turn.NOTE:
                tell(heard.text)
            case Turn.SAID if not options.json:
                line(render.printable(heard.text))
            case _:
                pass
    raise AssertionError("the events of a controller do not end")


def _acknowledgement(accepted: AcceptedView) -> str:
    return f"message {accepted.id} accepted; {_waits(accepted)}"


def _waits(accepted: AcceptedView) -> str:
    group = accepted.group
    if accepted.trigger is not None:
        return (
            f"group {group.folder} answers messages that begin with {accepted.trigger}, "
            "so it waits as context for the next of those"
        )
    if group.queue_position:
        wait = f", {wait}" if (wait := render.about(group.estimated_wait)) else ""
        return f"all places are taken; group {group.folder} is number {group.queue_position} in the queue{wait}"
    return f"group {group.folder} is {group.state}"
