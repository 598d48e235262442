"""What each directive does. One small function a word; results are the lines of the answer."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from echo_agent import output
from echo_agent.inbox import Follower
from echo_agent.requests import Outbox
from echo_agent.script import Directive
from echo_agent.transcript import Transcript

FILL_LIMIT = 4096
# Mebibytes. `oom` without a memory limit must not take the whole machine with it.


class Exit(Exception):
    """The agent ends here, without another marker."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Failure(Exception):
    """The turn fails as a broken model call does: error marker, exit 1."""


@dataclass(frozen=True)
class Surroundings:
    """What the directives of a session may use."""

    group: Path
    secret_names: tuple[str, ...]
    transcript: Transcript
    outbox: Outbox
    follower: Follower


@dataclass
class Turn:
    """The answer as it grows."""

    here: Surroundings
    lines: list[str] = field(default_factory=list)
    null: bool = False
    noise: int = 0
    """Lines on stderr before each line of the marker."""

    @property
    def result(self) -> str | None:
        return None if self.null else "\n".join(self.lines)


def perform(directive: Directive, turn: Turn) -> None:
    """Do it, and add what there is to say. Raises Exit and Failure."""
    _ACTIONS[directive.name](turn, **directive.values)


def _echo(turn: Turn, text: str) -> None:
    turn.lines.append(text)


def _sleep(turn: Turn, seconds: str) -> None:
    time.sleep(float(seconds))
    turn.lines.append(f"slept {seconds} s")


def _big(turn: Turn, bytes: str) -> None:  # noqa: A002  the word in the script
    size = int(bytes)
    turn.lines.append(("0123456789" * (size // 10 + 1))[:size])


def _noise(turn: Turn, lines: str) -> None:
    turn.noise = int(lines)
    turn.lines.append(f"made {lines} lines of noise")


def _null(turn: Turn) -> None:
    turn.null = True


def _fail(_turn: Turn, text: str) -> None:
    raise Failure(text or "the prompt asked for a failure")


def _exit(_turn: Turn, code: str) -> None:
    raise Exit(int(code))


def _crash_silent(_turn: Turn) -> None:
    os._exit(1)


def _oom(turn: Turn, mebibytes: str) -> None:
    # Random bytes: pages of zeros would not really be there.
    held = [os.urandom(1024) * 1024 for _ in range(int(mebibytes or FILL_LIMIT))]
    turn.lines.append(f"held {len(held)} MiB and was not stopped")


def _ignore_close(turn: Turn) -> None:
    turn.here.follower.ignore_close.set()
    turn.lines.append("ignoring requests to end")


def _tell(turn: Turn, text: str) -> None:
    turn.here.outbox.tell(text)
    turn.lines.append("told")


def _tell_to(turn: Turn, jid: str, text: str) -> None:
    turn.here.outbox.tell(text, jid)
    turn.lines.append(f"told {jid}")


def _schedule(turn: Turn, kind: str, value: str, prompt: str) -> None:
    turn.here.outbox.schedule(kind, value, prompt)
    turn.lines.append(f"scheduled {kind} {value}")


def _request(turn: Turn, json: str) -> None:
    turn.here.outbox.request(json)
    turn.lines.append("requested")


def _raw_message(turn: Turn, json: str) -> None:
    turn.here.outbox.request(json, "messages")
    turn.lines.append("left a message")


def _refresh_groups(turn: Turn) -> None:
    turn.here.outbox.refresh_groups()
    turn.lines.append("asked for the groups")


def _list_tasks(turn: Turn) -> None:
    _show(turn, "current_tasks.json")


def _list_groups(turn: Turn) -> None:
    _show(turn, "available_groups.json")


def _show(turn: Turn, snapshot: str) -> None:
    try:
        turn.lines.append(turn.here.outbox.snapshot(snapshot))
    except OSError as problem:
        turn.lines.append(f"cannot read {snapshot}: {problem.strerror}")


def _write(turn: Turn, file: str, text: str) -> None:
    try:
        (turn.here.group / file).write_text(text, encoding="utf-8", errors="replace")
    except OSError as problem:
        turn.lines.append(f"cannot write {file}: {problem.strerror}")
    else:
        turn.lines.append(f"wrote {file}")


def _read(turn: Turn, file: str) -> None:
    try:
        turn.lines.append((turn.here.group / file).read_text(encoding="utf-8", errors="replace"))
    except OSError as problem:
        turn.lines.append(f"cannot read {file}: {problem.strerror}")


def _history(turn: Turn) -> None:
    said = turn.here.transcript.said_by("user")[:-1]
    turn.lines.append("\n".join(f"{number}. {text}" for number, text in enumerate(said, 1)) or "nothing was said yet")


def _who(turn: Turn) -> None:
    home = os.environ.get("HOME")
    turn.lines.append(f"uid={os.getuid()} gid={os.getgid()} home={home} folder={Path.cwd()}")


def _env(turn: Turn) -> None:
    turn.lines.append(f"environment: {' '.join(sorted(os.environ))}")
    turn.lines.append(f"secrets: {' '.join(turn.here.secret_names) or 'none'}")


_ACTIONS: dict[str, Callable[..., None]] = {
    "echo": _echo,
    "sleep": _sleep,
    "big": _big,
    "noise": _noise,
    "null": _null,
    "fail": _fail,
    "exit": _exit,
    "crash-silent": _crash_silent,
    "oom": _oom,
    "ignore-close": _ignore_close,
    "tell": _tell,
    "tell-to": _tell_to,
    "schedule": _schedule,
    "request": _request,
    "raw-message": _raw_message,
    "refresh-groups": _refresh_groups,
    "list-tasks": _list_tasks,
    "list-groups": _list_groups,
    "write": _write,
    "read": _read,
    "history": _history,
    "who": _who,
    "env": _env,
}


def noise_maker(lines: int) -> Callable[[], None] | None:
    """For `output.success`: so many lines on stderr before each line of the marker."""
    if not lines:
        return None

    def make() -> None:
        for number in range(lines):
            output.log(f"noise {number}")

    return make
