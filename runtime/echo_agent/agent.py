"""One session from stdin to exit, in the order of NanoClaw's own runner.

Compile (simulated) → stdin to EOF → forget a stale `_close` → take waiting follow-ups → a turn a
message, until `_close` → exit 0 a moment later, without a last marker. See `script` for what a
prompt can ask for.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from echo_agent import actions, output, prompt, script
from echo_agent.inbox import Follower, Inbox
from echo_agent.requests import Outbox
from echo_agent.settings import Settings
from echo_agent.transcript import SessionMissing, Transcript


@dataclass(frozen=True)
class Input:
    """What came on stdin, as far as the agent uses it."""

    prompt: str
    session_id: str | None
    group_folder: str
    chat_jid: str
    scheduled: bool
    secret_names: tuple[str, ...]
    """Names only: values are never kept."""


def run(settings: Settings) -> int:
    """Run one session; returns the exit code."""
    # The real entry point is bash as PID 1, which the kernel spares; this holds for any PID.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if settings.home is None:
        sys.stdout.write("HOME is not set\n")
        return 254
    time.sleep(settings.compile_seconds)
    (settings.scratch / "dist" / "node_modules").mkdir(parents=True, exist_ok=True)  # a link in the real image
    try:
        given = _read_input(settings.scratch / "input.json")
    except ValueError as problem:
        output.error(f"Failed to parse input: {problem}")
        return 1
    inbox = Inbox(settings.workspace / "ipc" / "input")
    inbox.prepare()
    waiting = inbox.drain()
    try:
        transcript = _transcript(settings.home, given.session_id)
    except SessionMissing:
        output.success(None)
        output.error("Claude Code process exited with code 1", given.session_id)
        return 1
    output.log(f"session {transcript.session_id} begins")
    return _converse(settings, given, inbox, transcript, first="\n".join([given.prompt, *waiting]))


def _converse(settings: Settings, given: Input, inbox: Inbox, transcript: Transcript, *, first: str) -> int:
    follower = Follower(inbox)
    here = actions.Surroundings(
        group=settings.workspace / "group",
        secret_names=given.secret_names,
        transcript=transcript,
        outbox=Outbox(settings.workspace / "ipc", given.chat_jid, given.group_folder),
        follower=follower,
    )
    if here.group.is_dir():
        os.chdir(here.group)
    follower.start()
    text: str | None = first
    greeting = "Echo (scheduled)" if given.scheduled else "Echo"
    while text is not None:
        try:
            _take_turn(text, greeting, here)
        except actions.Exit as asked:
            return asked.code
        except actions.Failure as failure:
            output.error(str(failure), transcript.session_id)
            return 1
        text = follower.texts.get()
    output.log("asked to end")
    time.sleep(settings.exit_delay)
    return 0


def _take_turn(text: str, greeting: str, here: actions.Surroundings) -> None:
    said = prompt.messages(text)
    for message in said:
        here.transcript.add("user", message)
    turn = actions.Turn(here)
    directives = script.parse(said[-1]) if said else None
    if directives is None:
        turn.lines.append(f"{greeting}: " + "\n".join(said))
    else:
        for directive in directives:
            actions.perform(directive, turn)
    here.transcript.add("assistant", turn.result or "")
    output.success(turn.result, here.transcript.session_id, actions.noise_maker(turn.noise))


def _read_input(parked: Path) -> Input:
    """Stdin to EOF. `parked` exists and is empty exactly while nothing has come yet, and goes after reading.

    Raises ValueError when it is not the JSON object that was agreed.
    """
    try:
        with parked.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        data = json.loads(parked.read_bytes())
    finally:
        parked.unlink(missing_ok=True)
    if not isinstance(data, dict):
        raise ValueError("not an object")  # noqa: TRY004  one error for all that is wrong with the input
    return Input(
        prompt=_string(data, "prompt"),
        session_id=_string(data, "sessionId") if data.get("sessionId") else None,
        group_folder=_string(data, "groupFolder"),
        chat_jid=_string(data, "chatJid"),
        scheduled=bool(data.get("isScheduledTask")),
        secret_names=tuple(sorted(data.get("secrets") or ())),
    )


def _string(data: dict[str, Any], field: str) -> str:
    if not isinstance(value := data.get(field), str):
        raise ValueError(f"{field} is not a string")  # noqa: TRY004  the same
    return value


def _transcript(home: Path, session_id: str | None) -> Transcript:
    return Transcript.resume(home, session_id) if session_id else Transcript.begin(home)
