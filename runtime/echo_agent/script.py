"""What the agent can be told to do, and how to say it in a message.

A message is a script when *every* part of it is a directive; parts stand on lines of their own
or behind a `;`. Anything else is plain text and is echoed, so a chat that happens to contain the
word `sleep` does not put the agent to sleep. See `DIRECTIVES` for the words.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from re import Pattern

DIRECTIVES: dict[str, Pattern[str]] = {
    name: re.compile(shape, re.DOTALL)
    for name, shape in {
        "echo": r"(?P<text>.+)",  # answer with this text
        "sleep": r"(?P<seconds>\d+(\.\d+)?)",
        "big": r"(?P<bytes>\d+)",  # a result of so many bytes
        "noise": r"(?P<lines>\d+)",  # lines on stderr, between the lines of the marker
        "null": r"",  # a marker whose result is null
        "fail": r"(?P<text>.*)",  # error marker, exit 1
        "exit": r"(?P<code>\d{1,3})",  # no marker, this exit code
        "crash-silent": r"",  # no marker, no word, exit 1
        "oom": r"(?P<mebibytes>\d*)",  # fill memory until the kernel ends it
        "ignore-close": r"",  # from now on `_close` does nothing
        "tell": r"(?P<text>.+)",  # message file to the own chat
        "tell-to": r"(?P<jid>\S+)\s+(?P<text>.+)",  # message file to another chat
        "schedule": r"(?P<kind>cron|interval|once)\s+(?P<value>[^|]+?)\s*\|\s*(?P<prompt>.+)",
        "request": r"(?P<json>.+)",  # task file with exactly this content
        "raw-message": r"(?P<json>.+)",  # message file with exactly this content
        "refresh-groups": r"",  # as a shell redirect does it: not atomic
        "list-tasks": r"",  # the snapshots, as they lie there
        "list-groups": r"",
        "write": r"(?P<file>\S+)\s+(?P<text>.+)",  # below the group's folder
        "read": r"(?P<file>\S+)",
        "history": r"",  # what was said before in this session
        "who": r"",  # uid, gid, home, folder
        "env": r"",  # names of environment variables and of the secrets that came
    }.items()
}
"""Word → what has to follow it."""


@dataclass(frozen=True)
class Directive:
    """One thing to do; `values` are the named parts of its shape."""

    name: str
    values: dict[str, str]


def parse(message: str) -> list[Directive] | None:
    """The directives of a message in order, or None when it is plain text."""
    script: list[Directive] = []
    for line in filter(None, map(str.strip, message.splitlines())):
        parts = [_directive(part.strip()) for part in line.split(";")]
        if None in parts:
            parts = [_directive(line)]  # the `;` may belong to a text
        if None in parts:
            return None
        script += [part for part in parts if part]
    return script or None


def _directive(part: str) -> Directive | None:
    name, _, rest = part.partition(" ")
    if name not in DIRECTIVES:
        return None
    match = DIRECTIVES[name].fullmatch(rest.strip())
    return Directive(name, match.groupdict()) if match else None
