"""`nanoclaw usage`: what groups used of the model, as the gateway counted it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from rich.table import Table

from nanoclaw_runtime.cli.direct import Direct
from nanoclaw_runtime.cli.errors import CommandFailed
from nanoclaw_runtime.cli.given import Options
from nanoclaw_runtime.cli.options import run, show
from nanoclaw_runtime.cli.remote import Remote
from nanoclaw_runtime.contract import names
from nanoclaw_runtime.contract.gateway import OPERATIONS_PORT_NAME, UsageList, UsedView
from nanoclaw_runtime.kube.errors import KubeError, NotFound
from nanoclaw_runtime.kube.services import ServicePort


def usage(
    context: typer.Context,
    group: Annotated[str | None, typer.Argument(help="One group's; all groups' when left out.")] = None,
    *,
    days: Annotated[int, typer.Option(min=1, max=400, help="Days in UTC, today included.")] = 1,
) -> None:
    """Calls, tokens and dollars by day, group and model. Only where the stack has a model gateway."""
    options: Options = context.obj

    async def work(remote: Remote) -> bool:
        used = [each for each in await _asked(remote, days) if group in {None, each.group}]
        show(options, UsageList(usage=tuple(used)), lambda: _table(used))
        return True

    run(options, work)


async def _asked(remote: Remote, days: int) -> Sequence[UsedView]:
    if isinstance(remote.transport, Direct):
        raise CommandFailed("nobody counts on a Docker host, where agents have the model's key themselves")
    since = (datetime.now(UTC) - timedelta(days=days - 1)).date()
    cluster = remote.cluster
    try:
        gateway = ServicePort(cluster.client, cluster.namespace, names.GATEWAY, OPERATIONS_PORT_NAME)
        status, body = await gateway.request("GET", f"/usage?since={since}")
    except NotFound as error:
        raise CommandFailed(
            "there is no model gateway here, so nobody counts; write gateway.enabled: true in the stack"
        ) from error
    except KubeError as error:
        raise CommandFailed(f"the model gateway cannot be asked: {error.message}") from error
    if status != 200:
        raise CommandFailed(f"the model gateway answers {status}; look at its log")
    return UsageList.model_validate_json(body).usage


def _table(used: Sequence[UsedView]) -> Table | str:
    if not used:
        return "nothing was used"
    table = Table("Day", "Group", "Model", "Calls", "Input", "Output", "Cached", "Read from cache", "Dollars", box=None)
    for each in used:
        tokens = (each.calls, each.input, each.output, each.cache_write, each.cache_read)
        numbers = [f"{number:,}" for number in tokens]
        table.add_row(str(each.day), each.group, each.model or "-", *numbers, f"{each.dollars:.4f}")
    total = sum(each.dollars for each in used)
    table.add_row("", "", "", "", "", "", "", "", f"{total:.4f}")
    return table
