"""How results look: tables for people, JSON for scripts. Asks nobody anything."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from pydantic import BaseModel
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nanoclaw_runtime.api.schemas import EventView, GroupView, MessageView, SessionView
from nanoclaw_runtime.cli.doctor import Finding, Verdict
from nanoclaw_runtime.controller.status import Warmth
from nanoclaw_runtime.store.records import EventType

_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_COLOURS: Final = {
    "active": "green", "working": "green", "done": "green",
    "queued": "yellow", "retrying": "yellow", "starting": "yellow", "waiting": "yellow", "given": "yellow",
    "failed": "red",
}  # fmt: skip
_MARKS: Final = {
    Verdict.GOOD: ("✓", "green"),
    Verdict.DOUBTFUL: ("!", "yellow"),
    Verdict.BAD: ("✗", "red"),
    Verdict.SKIPPED: ("-", "dim"),
}


def dump(document: BaseModel | Sequence[BaseModel] | dict[str, Any]) -> str:
    """JSON as the API writes it, indented for reading."""
    if isinstance(document, BaseModel):
        plain: Any = document.model_dump(mode="json", by_alias=True)
    elif isinstance(document, dict):
        plain = document
    else:
        plain = [one.model_dump(mode="json", by_alias=True) for one in document]
    return json.dumps(plain, indent=2, ensure_ascii=False)


def printable(text: str) -> str:
    """What an agent or a chat wrote, without the characters that steer a terminal."""
    return _CONTROL.sub("�", text)


def age(moment: datetime | None, now: datetime) -> str:
    """Time since `moment` as a person says it: `12 s`, `4 min`, `3 h`, `2 d`."""
    if moment is None:
        return "-"
    seconds = max(0, int((now - moment.astimezone(UTC)).total_seconds()))
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def about(seconds: float | None) -> str:
    """A time that is only estimated: `about 40 s`, `about 3 min`; nothing for None."""
    if seconds is None:
        return ""
    return f"about {seconds:.0f} s" if seconds < 90 else f"about {seconds / 60:.0f} min"


def groups(found: Iterable[GroupView], now: datetime) -> Table:
    found = list(found)
    nodes = any(group.node for group in found)
    table = _table("group", "name", "state", "waiting", "session", "warm", "last activity", *(["node"] * nodes))
    for group in found:
        place = (
            f" ({group.queue_position}. {about(group.estimated_wait)}".rstrip() + ")" if group.queue_position else ""
        )
        table.add_row(
            group.folder,
            printable(group.name),
            _state(group.state, place),
            str(group.waiting_messages),
            group.session or "-",
            "-" if group.warm is Warmth.NONE else group.warm,
            age(group.last_activity, now),
            *([group.node or "-"] * nodes),
        )
    return table


def sessions(found: Iterable[SessionView], now: datetime) -> Table:
    table = _table("session", "group", "kind", "state", "running for", "outputs", "last output")
    for session in found:
        table.add_row(
            session.session,
            session.folder,
            session.kind,
            _state(session.state),
            age(session.started, now),
            str(session.outputs),
            age(session.last_output, now),
        )
    return table


def history(found: Iterable[MessageView], now: datetime) -> Table:
    table = _table("id", "ago", "sender", "state", "text")
    for message in found:
        table.add_row(
            str(message.id),
            age(message.created, now),
            printable(message.sender_name),
            _state(message.state),
            Text(printable(message.text)),
        )
    return table


def event(found: EventView) -> Text:
    """One line, more when the text of an answer has more."""
    payload = found.payload
    line = Text(f"{found.created.astimezone():%H:%M:%S} {found.group} ", style="dim")
    match found.type:
        case EventType.MESSAGE:
            line.append(f"{printable(str(payload['senderName']))}: ", style="bold")
            line.append(printable(str(payload["text"])), style="not dim")
        case EventType.ANSWER:
            line.append("assistant: ", style="bold cyan")
            line.append(printable(str(payload["text"])), style="not dim")
        case EventType.TELL:
            line.append(f"{printable(str(payload['sender'] or 'assistant'))}: ", style="bold cyan")
            line.append(printable(str(payload["text"])), style="not dim")
        case EventType.SESSION:
            line.append(f"session {payload['session']} {payload['state']} {payload.get('text', '')}".rstrip())
        case EventType.FAILURE:
            line.append(printable(str(payload["text"])), style="red")
        case EventType.DONE:
            line.append("done without an answer" if payload["session"] else "answered on another host")
        case EventType.IMPORTED:
            line.append("what it had on another host came in")
    return line


def findings(found: Iterable[Finding]) -> Table:
    table = _table("", "check", "evidence", "remedy")
    for finding in found:
        mark, colour = _MARKS[finding.verdict]
        table.add_row(
            Text(mark, style=colour), finding.check, Text(printable(finding.evidence)), Text(printable(finding.remedy))
        )
    return table


def console(*, stderr: bool = False) -> Console:
    return Console(stderr=stderr, highlight=False, emoji=False)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _state(state: str, behind: str = "") -> Text:
    return Text(f"{state}{behind}", style=_COLOURS.get(state, ""))
