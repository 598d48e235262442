"""`nanoclaw tasks`: prompts that are run by themselves; adding, pausing, running and cancelling them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import typer
from rich.table import Table
from rich.text import Text

from nanoclaw_runtime.api.task_schemas import TaskList, TaskRunList, TaskRunView, TaskView
from nanoclaw_runtime.cli import render
from nanoclaw_runtime.cli.given import Options
from nanoclaw_runtime.cli.options import run, show
from nanoclaw_runtime.cli.remote import Remote, part
from nanoclaw_runtime.domain.tasks import TaskContext, TaskKind

app = typer.Typer(help="The scheduled tasks; add, change, run or cancel one.", invoke_without_command=True)

TaskId = Annotated[str, typer.Argument(metavar="ID", help="Id of the task.")]
Cron = Annotated[str | None, typer.Option(help="Five fields, such as '0 9 * * 1-5'.", metavar="EXPR")]
Every = Annotated[str | None, typer.Option(help="From run to run, such as 30m, 2h or 1d.", metavar="TIME")]
At = Annotated[str | None, typer.Option(help="Once, such as 2026-03-01T15:30.", metavar="ISO")]

SHOWN: Final = 10
# Runs that `show` asks for.
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_STYLES: Final = {"active": "green", "paused": "yellow", "success": "green", "error": "red"}


@app.callback()
def tasks(
    context: typer.Context,
    group: Annotated[str | None, typer.Option(help="Only those of this group.")] = None,
) -> None:
    """The scheduled tasks, when they run next and how the last run went; add, change, run or cancel one."""
    options: Options = context.obj
    if context.invoked_subcommand is not None:
        return

    async def work(remote: Remote) -> bool:
        path = "/v1/tasks" if group is None else f"/v1/tasks?group={part(group)}"
        found = (await remote.ask(TaskList, "GET", path)).tasks
        show(options, found, lambda: table(found, datetime.now(UTC)))
        return True

    run(options, work)


@app.command()
def add(
    context: typer.Context,
    group: Annotated[str, typer.Argument(help="Folder of the group, such as main.")],
    prompt: Annotated[str, typer.Argument(help="What its agent is told.")],
    *,
    cron: Cron = None,
    every: Every = None,
    at: At = None,
    isolated: Annotated[bool, typer.Option("--isolated", help="Not within the group's conversation.")] = False,
) -> None:
    """Have a prompt run by itself, in the installation's time zone."""
    kind, value = _schedule(cron, every, at)
    wanted = TaskContext.ISOLATED if isolated else TaskContext.GROUP
    body = {"prompt": prompt, "kind": kind, "value": value, "context": wanted}
    _tell(context.obj, "POST", f"/v1/groups/{part(group)}/tasks", body, "is added")


@app.command(name="show")
def show_task(context: typer.Context, task: TaskId) -> None:
    """A task with its last runs."""
    options: Options = context.obj

    async def work(remote: Remote) -> bool:
        path = f"/v1/tasks/{part(task)}"
        found = await remote.ask(TaskView, "GET", path)
        runs = await remote.ask(TaskRunList, "GET", f"{path}/runs?limit={SHOWN}")
        document = found.model_dump(mode="json", by_alias=True) | runs.model_dump(mode="json", by_alias=True)
        show(options, document, lambda: sheet(found, runs.runs, datetime.now(UTC)))
        return True

    run(options, work)


@app.command()
def change(
    context: typer.Context,
    task: TaskId,
    *,
    prompt: Annotated[str | None, typer.Option(help="What its agent is told from now on.")] = None,
    cron: Cron = None,
    every: Every = None,
    at: At = None,
) -> None:
    """Give a task another prompt, another schedule, or both; a new schedule begins at once."""
    body: dict[str, Any] = {} if prompt is None else {"prompt": prompt}
    if (cron, every, at) != (None, None, None):
        kind, value = _schedule(cron, every, at)
        body |= {"kind": kind, "value": value}
    if not body:
        raise typer.BadParameter("say what is to be different", param_hint="--prompt, --cron, --every or --at")
    _tell(context.obj, "PATCH", f"/v1/tasks/{part(task)}", body, "is changed")


@app.command()
def pause(context: typer.Context, task: TaskId) -> None:
    """Keep a task from running until it is resumed."""
    _tell(context.obj, "PATCH", f"/v1/tasks/{part(task)}", {"state": "paused"}, "is paused")


@app.command()
def resume(context: typer.Context, task: TaskId) -> None:
    """Have a paused task run again; one that is overdue runs at once."""
    _tell(context.obj, "PATCH", f"/v1/tasks/{part(task)}", {"state": "active"}, "is active")


@app.command(name="run")
def run_now(context: typer.Context, task: TaskId) -> None:
    """Run an active task now, besides its schedule."""
    _tell(context.obj, "POST", f"/v1/tasks/{part(task)}/run", {}, "is to run now")


@app.command()
def cancel(context: typer.Context, task: TaskId) -> None:
    """Remove a task and its log; a run under way goes on."""
    options: Options = context.obj

    async def work(remote: Remote) -> bool:
        await remote.call("DELETE", f"/v1/tasks/{part(task)}")
        show(options, {"task": task}, lambda: f"task {task} is cancelled")
        return True

    run(options, work)


def _tell(options: Options, method: str, path: str, body: dict[str, Any], what: str) -> None:
    async def work(remote: Remote) -> bool:
        kept = await remote.ask(TaskView, method, path, body)
        told = f"task {kept.id} of group {kept.folder} {what}; next run {when(kept.next_run, datetime.now(UTC))}"
        show(options, kept, lambda: told)
        return True

    run(options, work)


def _schedule(cron: str | None, every: str | None, at: str | None) -> tuple[TaskKind, str]:
    match cron, every, at:
        case str(), None, None:
            return TaskKind.CRON, cron
        case None, str(), None:
            return TaskKind.INTERVAL, str(milliseconds(every))
        case None, None, str():
            return TaskKind.ONCE, at
        case _:
            raise typer.BadParameter("say once when it runs", param_hint="--cron, --every or --at")


def milliseconds(duration: str) -> int:
    """Of a time like `90s`, `30m`, `2h` or `1d`; any other ends the command with status 2."""
    found = re.fullmatch(r"([1-9][0-9]{0,9})([smhd])", duration)
    if found is None:
        raise typer.BadParameter(f"{duration!r} is no time like 90s, 30m, 2h or 1d", param_hint="--every")
    return int(found[1]) * _SECONDS[found[2]] * 1000


def when(moment: datetime | None, now: datetime) -> str:
    """`in 5 min (2026-03-01 12:05)`, or `5 min ago (…)`, on this machine's clock."""
    if moment is None:
        return "-"
    clock = f"{moment.astimezone():%Y-%m-%d %H:%M}"
    if moment > now:
        return f"in {render.age(now, moment)} ({clock})"
    return f"{render.age(moment, now)} ago ({clock})"


def table(found: Iterable[TaskView], now: datetime) -> Table:
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("task", "group", "schedule", "state", "next run", "last run", "prompt"):
        shown.add_column(column, overflow="fold")
    for task in found:
        shown.add_row(
            task.id,
            task.folder,
            Text(_described(task)),
            _state(task.state),
            when(task.next_run, now),
            when(task.last_run, now),
            Text(render.printable(task.prompt)),
        )
    return shown


def sheet(task: TaskView, runs: Iterable[TaskRunView], now: datetime) -> Table:
    """Everything about one task, a line a fact."""
    shown = Table(box=None, pad_edge=False, show_header=False)
    shown.add_column(style="bold")
    shown.add_column(overflow="fold")
    facts = {
        "task": task.id,
        "group": f"{task.folder} ({task.jid})",
        "schedule": _described(task),
        "context": task.context,
        "next run": when(task.next_run, now),
        "created": when(task.created, now),
        "prompt": task.prompt,
    }
    shown.add_row("state", _state(task.state))
    for name, fact in facts.items():
        shown.add_row(name, Text(render.printable(fact)))
    for one in runs:
        said = Text(f"{when(one.started, now)}, {one.seconds:.0f} s: ")
        shown.add_row("run", said + _state(one.outcome) + Text(render.printable(f" {one.error or one.result or ''}")))
    return shown


def _described(task: TaskView) -> str:
    if task.kind is TaskKind.INTERVAL and task.value.isdecimal():
        return f"every {_span(int(task.value))}"
    return f"{task.kind} {render.printable(task.value)}"


def _span(milliseconds: int) -> str:
    """In the largest unit that says it exactly."""
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1000)):
        if milliseconds % size == 0:
            return f"{milliseconds // size} {unit}"
    return f"{milliseconds} ms"


def _state(word: str) -> Text:
    return Text(word, style=_STYLES.get(word, ""))
