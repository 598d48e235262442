"""`nanoclaw outbox` and `nanoclaw chats`: what is on its way to chat networks, and which chats they have."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, Final
from urllib.parse import urlencode

import typer
from rich.table import Table
from rich.text import Text

from nanoclaw_runtime.api.outbox_schemas import ChatList, ChatView, PostList, PostView
from nanoclaw_runtime.cli.given import Options
from nanoclaw_runtime.cli.options import run, show
from nanoclaw_runtime.cli.remote import Remote
from nanoclaw_runtime.cli.render import age, printable
from nanoclaw_runtime.store.records import PostState

app = typer.Typer(help="Texts on their way to chat networks; try one again.", invoke_without_command=True)

_STYLES: Final = {PostState.SENT: "green", PostState.WAITING: "yellow", PostState.FAILED: "red"}
_SHOWN: Final = 60
# Characters of a text in a table; JSON has all of it.


@app.callback()
def outbox(
    context: typer.Context,
    group: Annotated[str | None, typer.Option(help="Only those of this group.")] = None,
    state: Annotated[PostState | None, typer.Option(help="Only those in this state.")] = None,
    after: Annotated[int, typer.Option(min=0, help="Only those with a larger id.")] = 0,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many.")] = 100,
) -> None:
    """Texts on their way to chat networks and those that were delivered, oldest first; try one again."""
    options: Options = context.obj
    if context.invoked_subcommand is not None:
        return

    async def work(remote: Remote) -> bool:
        wanted = {"group": group, "state": state and state.value, "after": after, "limit": limit}
        query = urlencode({name: value for name, value in wanted.items() if value is not None})
        found = (await remote.ask(PostList, "GET", f"/v1/outbox?{query}")).posts
        show(options, found, lambda: posts(found, datetime.now(UTC)))
        return True

    run(options, work)


@app.command()
def retry(
    context: typer.Context,
    number: Annotated[int, typer.Argument(metavar="ID", help="Id of the text.")],
    group: Annotated[str | None, typer.Option(help="Its group, where each node counts its own texts.")] = None,
) -> None:
    """Try a text again at once that was given up, or that waits for its next try."""
    options: Options = context.obj

    query = "" if group is None else f"?{urlencode({'group': group})}"

    async def work(remote: Remote) -> bool:
        tried = await remote.ask(PostView, "POST", f"/v1/outbox/{number}/retry{query}", {})
        show(options, tried, lambda: f"text {tried.id} for {printable(tried.jid)} is tried again")
        return True

    run(options, work)


def chats(context: typer.Context) -> None:
    """The chats the networks told us about; their addresses are what groups are registered with."""
    options: Options = context.obj

    async def work(remote: Remote) -> bool:
        found = (await remote.ask(ChatList, "GET", "/v1/chats")).chats
        show(options, found, lambda: places(found, datetime.now(UTC)))
        return True

    run(options, work)


def posts(found: Iterable[PostView], now: datetime) -> Table:
    table = _table("id", "ago", "group", "chat", "state", "tries", "text", "error")
    for post in found:
        text = printable(post.text.replace("\n", " "))
        table.add_row(
            str(post.id),
            age(post.created, now),
            post.folder,
            printable(post.jid),
            Text(post.state, style=_STYLES[post.state]),
            str(post.attempts),
            Text(text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"),
            Text(printable(post.error or "-")),
        )
    return table


def places(found: Iterable[ChatView], now: datetime) -> Table:
    table = _table("chat", "name", "channel", "kind", "last activity")
    for chat in found:
        table.add_row(
            printable(chat.jid),
            Text(printable(chat.name or "-")),
            chat.channel or "-",
            "group" if chat.is_group else "person",
            age(chat.last_activity, now),
        )
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
