"""The commands: options in, one call, a table or JSON out, and the exit status."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
import secrets
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import typer

from nanoclaw_runtime.api.schemas import AcceptedView, EventView
from nanoclaw_runtime.cli import (
    bench,
    doctor,
    groups,
    host,
    logs,
    outbox,
    prerequisites_stack,
    queue,
    render,
    tasks,
    transfer,
    usage,
)
from nanoclaw_runtime.cli.conversation import Heard, Turn, hear
from nanoclaw_runtime.cli.errors import CommandFailed
from nanoclaw_runtime.cli.examine import examine, examine_direct, reachable
from nanoclaw_runtime.cli.installation import Target
from nanoclaw_runtime.cli.options import Options, finish, line, run, show
from nanoclaw_runtime.cli.prerequisites import absent, prerequisites
from nanoclaw_runtime.cli.remote import Remote
from nanoclaw_runtime.cli.render import Output
from nanoclaw_runtime.contract.needs import Needs
from nanoclaw_runtime.kube.client import KubeClient

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


app = typer.Typer(
    name="nanoclaw",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
sessions_app = typer.Typer(help="The sessions that are alive, or end one of them.", invoke_without_command=True)
app.add_typer(groups.app, name="groups")
app.add_typer(sessions_app, name="sessions")
app.add_typer(tasks.app, name="tasks")
app.add_typer(outbox.app, name="outbox")
app.add_typer(bench.app, name="bench")
app.command(name="chats")(outbox.chats)
app.command(name="queue")(queue.queue)
app.command(name="usage")(usage.usage)
app.command(name="host")(host.host)
app.add_typer(transfer.project_app, name="project")
app.command(name="import")(transfer.import_host)
app.command(name="export")(transfer.export_host)


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


@app.command()
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


@sessions_app.callback()
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


@sessions_app.command()
def stop(context: typer.Context, session: Annotated[str, typer.Argument(help="Id of the session.")]) -> None:
    """Ask a session to end; what it has not answered is told to its chat."""
    options: Options = context.obj

    async def work(remote: Remote) -> bool:
        await remote.stop(session)
        show(options, {"session": session}, lambda: f"session {session} was asked to end")
        return True

    run(options, work)


@app.command()
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


@app.command()
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


@app.command(name="logs")
def show_logs(
    context: typer.Context,
    group: Annotated[str | None, typer.Argument(help="The agent of this group; the controller when left out.")] = None,
    *,
    session: Annotated[str | None, typer.Option(help="The agent of this session.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as it grows.")] = False,
) -> None:
    """The log of the controller, of a group's newest session, or of one session."""
    if group is not None and session is not None:
        raise typer.BadParameter("name a group or a session, not both", param_hint="--session")
    options: Options = context.obj

    async def work(remote: Remote) -> bool:
        async with contextlib.aclosing(logs.read(remote, group=group, session=session, follow=follow)) as chunks:
            async for chunk in chunks:
                sys.stdout.buffer.write(chunk)
                sys.stdout.buffer.flush()
        return True

    run(options, work)


@app.command(name="doctor")
def examine_all(
    context: typer.Context,
    *,
    stack: Annotated[str | None, typer.Option(help="A stack: what it needs of its cluster first.")] = None,
    project: Annotated[
        Path | None,
        typer.Option(help="Folder of Pulumi.yaml; the current one, or the checkout.", exists=True, file_okay=False),
    ] = None,
) -> None:
    """Check everything a message needs on its way; the exit status is 1 when something fails.

    With --stack also whether the cluster has what `pulumi up` and the agents will need, before the first one and after.
    """
    options: Options = context.obj
    if stack is not None:
        _refuse_another_cluster(context)

    async def work() -> bool:
        if stack is not None:
            found = await _examine_stack(prerequisites_stack.read(stack, project, os.environ), options)
        elif options.target.url is not None:
            async with await Remote.connect(options.target) as remote:
                found = await examine_direct(remote)
        else:
            found = await _examine_cluster(options)
        show(options, found, lambda: render.findings(found))
        return doctor.healthy(found)

    finish(work())


async def _examine_cluster(options: Options) -> list[doctor.Finding]:
    with _waiting("API server") as tell:
        async with await KubeClient.connect(options.target.kubeconfig, options.target.context) as client:
            found = [await reachable(client)]
        if doctor.healthy(found):
            async with await Remote.connect(options.target) as remote:
                found += await examine(remote, tell)
    return found


async def _examine_stack(needs: Needs, options: Options) -> list[doctor.Finding]:
    """What the stack needs first, and then the installation where there is one."""
    target = Target(needs.kubeconfig, needs.context, needs.namespace, options.target.token)
    with _waiting("API server") as tell:
        async with await KubeClient.connect(target.kubeconfig, target.context) as client:
            found = [await reachable(client)]
            if not doctor.healthy(found):
                return found
            found += await prerequisites(client, needs, tell)
            if why := await absent(client, needs):
                return [*found, doctor.skipped("installation", why)]
        async with await Remote.connect(target) as remote:
            return found + await examine(remote, tell)


def _refuse_another_cluster(context: typer.Context) -> None:
    """A stack names its cluster and namespace; what an environment variable says is for other commands."""
    assert context.parent is not None
    for parameter, option in (
        ("kubeconfig", "--kubeconfig"),
        ("kube_context", "--context"),
        ("namespace", "--namespace"),
        ("url", "--url"),
    ):
        source = context.parent.get_parameter_source(parameter)
        if source is not None and source.name == "COMMANDLINE":
            raise typer.BadParameter("the stack says where it is; leave this out", param_hint=option)


async def _answered(remote: Remote, options: Options, group: str, accepted: AcceptedView, timeout: float) -> bool:  # noqa: ASYNC109 - the option of the command
    if options.json:
        line(accepted.model_dump_json(by_alias=True))
    with _waiting(f"message {accepted.id}: {_waits(accepted)}") as tell:
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


@contextlib.contextmanager
def _waiting(what: str) -> Iterator[Callable[[str], None]]:
    """A line on the terminal that says what is waited for; nothing where nobody watches."""
    console = render.console(stderr=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    with console.status(what) as status:
        yield lambda text: status.update(render.printable(text))


def main() -> None:
    """Exit status 0 for success, 1 for a failure told in one sentence, 2 for a mistake on the line."""
    app(common_first(sys.argv[1:]))
