"""Commands that move an installation: `import` and `export` of a host's folder, `project push`.

What an import does is shown before it is done. Each of them may be given again: what is there
already is not sent twice.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from nanoclaw_runtime.cli import exporting, importing, pushing, render, transfer_view, v1_host
from nanoclaw_runtime.cli.errors import CommandFailed
from nanoclaw_runtime.cli.given import Options
from nanoclaw_runtime.cli.options import finish, line, show
from nanoclaw_runtime.cli.remote import Remote
from nanoclaw_runtime.domain import migration, project
from nanoclaw_runtime.domain.migration_plan import Plan
from nanoclaw_runtime.ipc import archive

project_app = typer.Typer(help="What main's agent sees of the NanoClaw project.", no_args_is_help=True)


def import_host(
    context: typer.Context,
    directory: Annotated[Path, typer.Argument(help="Folder of the NanoClaw host.", file_okay=False, exists=True)],
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Where both have something, take the host's: tasks, conversation, files.")
    ] = False,
) -> None:
    """Bring the groups, history, tasks and files of a NanoClaw v1 host in. Given again, it brings what is new."""
    options: Options = context.obj

    async def work() -> bool:
        host = await asyncio.to_thread(v1_host.read, directory)
        async with await Remote.connect(options.target) as remote:
            plan = migration.plan(host, await importing.survey(remote, host), now=datetime.now(UTC), replace=replace)
            if not options.json:
                render.console().print(transfer_view.plan_table(plan))
            going = not (dry_run or plan.empty) and _wanted(options, directory, plan, yes=yes)
            if going:
                await importing.carry_out(remote, directory, plan, replace=replace, tell=_progress(options))
        if options.json:
            line(render.dump(transfer_view.plan_document(plan, done=going)))
        else:
            line(_outcome(plan, going=going, dry_run=dry_run))
        return True

    finish(work())


def export_host(
    context: typer.Context,
    directory: Annotated[Path, typer.Argument(help="Folder to write; made when it is missing.", file_okay=False)],
    *,
    replace: Annotated[bool, typer.Option("--replace", help="Also into the folder of a host that is there.")] = False,
    without_files_of: Annotated[
        list[str] | None, typer.Option(help="Leave this group's files out, not its messages; may be given again.")
    ] = None,
) -> None:
    """Write everything as the folder of a NanoClaw v1 host, which can go on from there."""
    options: Options = context.obj

    async def work() -> bool:
        exporting.see_that_it_is_free(directory, replace=replace)
        async with await Remote.connect(options.target) as remote:
            without = without_files_of or ()
            exported = await exporting.export(remote, directory, without_files=without, tell=_progress(options))
        if options.json:
            line(render.dump(transfer_view.exported_document(exported, str(directory))))
        else:
            render.console().print(transfer_view.exported_table(exported, str(directory)))
        return True

    finish(work())


@project_app.command()
def push(
    context: typer.Context,
    directory: Annotated[Path, typer.Argument(help="Folder of the project.", file_okay=False, exists=True)],
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")] = False,
) -> None:
    """Make the installation's project folder what DIRECTORY is, without secrets, databases and logs."""
    options: Options = context.obj

    async def work() -> bool:
        found = await asyncio.to_thread(archive.listing, directory, project.wanted)
        if not found.files:
            raise CommandFailed(f"{directory} has no file that an agent may see; name the folder of the project")
        async with await Remote.connect(options.target) as remote:
            pushed = await pushing.push(remote, directory, found, dry_run=dry_run)
        show(options, asdict(pushed) | {"done": not dry_run}, lambda: transfer_view.pushed(pushed, dry_run=dry_run))
        return True

    finish(work())


def _wanted(options: Options, directory: Path, plan: Plan, *, yes: bool) -> bool:
    """Whether to carry the plan out. Raises CommandFailed when it cannot be, or nobody can be asked."""
    importing.refuse_live(plan)
    if sign := v1_host.signs_of_life(directory):
        typer.echo(
            f"warning: the NanoClaw host still runs ({sign}); what it does from now on is not imported", err=True
        )
    if yes:
        return True
    if options.json or not sys.stdin.isatty():
        raise CommandFailed("nobody is here to confirm this; look at it with --dry-run, then add --yes")
    return typer.confirm("Import this?")


def _outcome(plan: Plan, *, going: bool, dry_run: bool) -> str:
    if plan.empty and plan.undeclared:
        return "Nothing to import before the groups above are declared: the others have everything already."
    if plan.empty:
        return "Nothing to import: the installation has everything already."
    if going:
        return f"Imported: {len(plan.coming)} groups."
    return "Nothing was changed." if not dry_run else "Nothing was changed; without --dry-run this is imported."


def _progress(options: Options) -> importing.Tell:
    """Says on a terminal what is being done."""
    console = render.console(stderr=True)
    if options.json or not console.is_terminal:
        return lambda _: None
    return lambda text: console.print(render.printable(text), style="dim")
