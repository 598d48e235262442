"""`nanoclaw logs` and `nanoclaw doctor`: what is said, and what is wrong."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from nanoclaw_runtime.cli import doctor, logs, prerequisites_stack, render
from nanoclaw_runtime.cli.examine import examine, examine_direct, reachable
from nanoclaw_runtime.cli.given import Options
from nanoclaw_runtime.cli.installation import Target
from nanoclaw_runtime.cli.options import finish, run, show, waiting
from nanoclaw_runtime.cli.prerequisites import absent, prerequisites
from nanoclaw_runtime.cli.remote import Remote
from nanoclaw_runtime.contract.needs import Needs
from nanoclaw_runtime.kube.client import KubeClient


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
    with waiting("API server") as tell:
        async with await KubeClient.connect(options.target.kubeconfig, options.target.context) as client:
            found = [await reachable(client)]
        if doctor.healthy(found):
            async with await Remote.connect(options.target) as remote:
                found += await examine(remote, tell)
    return found


async def _examine_stack(needs: Needs, options: Options) -> list[doctor.Finding]:
    """What the stack needs first, and then the installation where there is one."""
    target = Target(needs.kubeconfig, needs.context, needs.namespace, options.target.token)
    with waiting("API server") as tell:
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
