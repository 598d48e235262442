"""The commands there are, and the options of all. A command is imported when it is given, with what it needs.

Whoever asks for help, or for one thing, does not wait for the whole host to be loaded.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import typer
from typer.core import TyperGroup

from nanoclaw_runtime.cli.given import Options, Output
from nanoclaw_runtime.cli.installation import Target


class Command(NamedTuple):
    """Where a command is: the function, or the application of its subcommands."""

    module: str
    name: str
    help: str


COMMANDS: Final = {
    "send": Command("messages", "send", "Send a message to a group's agent."),
    "groups": Command("groups", "app", "What the groups do; add, change or remove one."),
    "sessions": Command("sessions", "app", "The sessions that are alive, or end one of them."),
    "history": Command("messages", "history", "The messages of a group and what became of them."),
    "events": Command("messages", "events", "What happens, as it happens, until Ctrl-C."),
    "queue": Command("queue", "queue", "Who waits for a place, and for about how long."),
    "tasks": Command("tasks", "app", "The scheduled tasks; add, change, run or cancel one."),
    "outbox": Command("outbox", "app", "Texts on their way to chat networks; try one again."),
    "chats": Command("outbox", "chats", "The chats the networks told us about."),
    "usage": Command("usage", "usage", "Calls, tokens and dollars by day, group and model."),
    "logs": Command("looking", "show_logs", "The log of the controller, or of an agent."),
    "doctor": Command("looking", "examine_all", "Check everything a message needs on its way."),
    "bench": Command("bench", "app", "Measure what the cluster gives to agents."),
    "project": Command("transfer", "project_app", "What main's agent sees of the NanoClaw project."),
    "import": Command("transfer", "import_host", "Bring in a NanoClaw v1 host's groups and history."),
    "export": Command("transfer", "export_host", "Write everything as a NanoClaw v1 host's folder."),
    "host": Command("host", "host", "Run the controller here, agents as containers."),
}

COMMON: Final = ("--kubeconfig", "--context", "--namespace", "-n", "--url", "--token-file", "--output", "-o")
"""Options of every command; they may stand anywhere on the line."""


def common_first(args: Sequence[str]) -> list[str]:
    """The arguments with the common options, and their values, moved to the front, as kubectl takes them anywhere.

    Nothing behind `--` moves.
    """
    front: list[str] = []
    rest: list[str] = []
    words = iter(args)
    for word in words:
        if word == "--":
            rest += [word, *words]
        elif word in COMMON:
            front += [word, *([value] if (value := next(words, None)) is not None else [])]
        elif word.startswith(tuple(f"{name}=" for name in COMMON if name.startswith("--"))):
            front.append(word)
        else:
            rest.append(word)
    return front + rest


class _Commands(TyperGroup):
    """Knows of each command only what help shows, until it is given."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, _, rest = super().resolve_command(ctx, args)
        return name, None if name is None else _loaded(name), rest


def _loaded(name: str) -> Any:
    command = COMMANDS[name]
    found = getattr(import_module(f"{__package__}.{command.module}"), command.name)
    alone = typer.Typer(rich_markup_mode=None)
    if isinstance(found, typer.Typer):
        alone.add_typer(found, name=name)
    else:
        alone.command(name=name)(found)
    return typer.main.get_group(alone).commands[name]


def _elsewhere() -> None:
    """In the place of a command that is not loaded."""


app = typer.Typer(
    name="nanoclaw",
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for _name, _command in COMMANDS.items():
    app.command(name=_name, help=_command.help)(_elsewhere)


@app.callback()
def _common(
    context: typer.Context,
    *,
    kubeconfig: Annotated[Path | None, typer.Option(help="File with the cluster's address.", dir_okay=False)] = None,
    kube_context: Annotated[str | None, typer.Option("--context", help="Context of the kubeconfig.")] = None,
    namespace: Annotated[
        str | None,
        typer.Option("--namespace", "-n", envvar="NANOCLAW_NAMESPACE", help="Found by the controller when left out."),
    ] = None,
    url: Annotated[
        str | None, typer.Option(envvar="NANOCLAW_URL", help="A controller's own address, such as `nanoclaw host` has.")
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(envvar="NANOCLAW_TOKEN_FILE", help="File with the token for --url.", dir_okay=False)
    ] = None,
    output: Annotated[Output, typer.Option("--output", "-o", help="json for scripts.")] = Output.TABLE,
) -> None:
    """Talk to NanoClaw agents, on a cluster with nothing but a kubeconfig. The options here may stand anywhere."""
    token = os.environ.get("NANOCLAW_TOKEN") or None
    context.obj = Options(Target(kubeconfig, kube_context, namespace, token, url, token_file), output)


def main() -> None:
    """Exit status 0 for success, 1 for a failure told in one sentence, 2 for a mistake on the line."""
    app(common_first(sys.argv[1:]))
