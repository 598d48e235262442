"""`nanoclaw groups`: what there is, and adding, changing and removing where the stack allows it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import typer

from nanoclaw_runtime.api.group_schemas import RegisteredGroup
from nanoclaw_runtime.cli import render
from nanoclaw_runtime.cli.given import Options
from nanoclaw_runtime.cli.options import run, show
from nanoclaw_runtime.cli.remote import Remote, part
from nanoclaw_runtime.contract.config import Priority, Warm

app = typer.Typer(help="The groups and what they are doing; add, change or remove one.", invoke_without_command=True)

Folder = Annotated[str, typer.Argument(help="Folder of the group.")]
Rank = Annotated[Priority | None, typer.Option(help="Who goes first when groups wait for a place.")]


@app.callback()
def groups(context: typer.Context) -> None:
    """The groups, what they are doing and how much waits; add, change or remove one."""
    options: Options = context.obj
    if context.invoked_subcommand is not None:
        return

    async def work(remote: Remote) -> bool:
        listed = await remote.group_list()
        found = listed.groups
        for gone in listed.missing:
            typer.echo(f"the groups of node {gone.node} are missing: {gone.reason}", err=True)
        show(options, found, lambda: render.groups(found, datetime.now(UTC)))
        return True

    run(options, work)


@app.command()
def register(
    context: typer.Context,
    folder: Folder,
    *,
    name: Annotated[str, typer.Option(help="What people call it.")],
    jid: Annotated[str | None, typer.Option(help="The chat's address; http:FOLDER when left out.")] = None,
    trigger: Annotated[
        bool, typer.Option("--trigger/--no-trigger", help="Answer only messages that begin with @<assistant>.")
    ] = True,
    priority: Rank = None,
    pattern: Annotated[
        Literal["job", "statefulset"] | None, typer.Option(help="Where its agents run, when not as the stack says.")
    ] = None,
    warm: Annotated[Warm | None, typer.Option(help="Whether its agent is started before its message.")] = None,
) -> None:
    """Add a group; the same folder and chat again is written anew. The stack has to allow it."""
    body: dict[str, Any] = {"folder": folder, "name": name, "requiresTrigger": trigger}
    body |= _given(jid=jid, priority=priority, pattern=pattern, warm=warm)
    _write(context.obj, "POST", "/v1/groups", body, "is registered")


@app.command()
def change(
    context: typer.Context,
    folder: Folder,
    *,
    name: Annotated[str | None, typer.Option(help="What people call it.")] = None,
    trigger: Annotated[
        bool | None, typer.Option("--trigger/--no-trigger", help="Answer only messages that begin with @<assistant>.")
    ] = None,
    priority: Rank = None,
) -> None:
    """Change a group that was added; what is left out stays."""
    body = _given(name=name, requiresTrigger=trigger, priority=priority)
    if not body:
        raise typer.BadParameter("name something to change", param_hint="--name, --trigger, --priority")
    _write(context.obj, "PATCH", f"/v1/groups/{part(folder)}", body, "is changed")


@app.command()
def remove(
    context: typer.Context,
    folder: Folder,
    *,
    force: Annotated[bool, typer.Option("--force", help="End its session and give up what waits.")] = False,
) -> None:
    """Remove a group that was added; its files and its history stay."""
    options: Options = context.obj

    async def work(remote: Remote) -> bool:
        await remote.call("DELETE", f"/v1/groups/{part(folder)}?force={str(force).lower()}")
        show(options, {"folder": folder}, lambda: f"group {folder} is removed; its files and its history stay")
        return True

    run(options, work)


def _write(options: Options, method: str, path: str, body: dict[str, Any], done: str) -> None:
    async def work(remote: Remote) -> bool:
        kept = await remote.ask(RegisteredGroup, method, path, body)
        waits = "; its messages wait until its storage is mounted" if kept.pending else ""
        show(options, kept, lambda: f"group {kept.folder} {done}{waits}")
        return True

    run(options, work)


def _given(**fields: object) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
