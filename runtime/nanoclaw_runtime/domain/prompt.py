"""Texts between chat and agent: the prompt's form, and what of an answer may be seen."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

_INTERNAL = re.compile(r"<internal>.*?</internal>", re.DOTALL)


@dataclass(frozen=True)
class Line:
    """One message of a prompt."""

    sender: str
    time: datetime
    text: str


def prompt(lines: Sequence[Line]) -> str:
    """NanoClaw's message block: one `<message>` a line, attributes and text escaped."""
    messages = [
        f'<message sender="{_escaped(line.sender)}" time="{timestamp(line.time)}">{_escaped(line.text)}</message>'
        for line in lines
    ]
    return "<messages>\n" + "\n".join(messages) + "\n</messages>"


def timestamp(time: datetime) -> str:
    """UTC with milliseconds and a Z, as NanoClaw compares them lexically."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def visible(result: str | None) -> str | None:
    """What of an agent's result is for the chat; None when nothing is."""
    # What is never closed is looked at once and not from every opening: an agent may write a million of them.
    closed, end, rest = (result or "").rpartition("</internal>")
    return (_INTERNAL.sub("", closed + end) + rest).strip() or None


def addresses(text: str, assistant_name: str) -> bool:
    """Whether a message begins with the assistant's trigger, `@Andy` say, in any case."""
    return re.match(rf"@{re.escape(assistant_name)}\b", text.strip(), re.IGNORECASE) is not None


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
