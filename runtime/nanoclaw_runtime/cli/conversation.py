"""What the events mean to somebody who waits for the answer to one message."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from nanoclaw_runtime.api.schemas import EventView
from nanoclaw_runtime.store.records import EventType, RecordedState


class Turn(StrEnum):
    NOTE = "note"
    """Something to show while waiting."""
    SAID = "said"
    """A text for the chat that is not the answer itself."""
    ANSWERED = "answered"
    FAILED = "failed"
    NOTHING = "nothing"
    """Not about this message."""


@dataclass(frozen=True)
class Heard:
    turn: Turn
    text: str = ""


def hear(event: EventView, message: int) -> Heard:
    """What `event` means to who has sent `message`. ANSWERED with an empty text: done without a word to the chat."""
    payload = event.payload
    ours = message in payload.get("messages", ())
    match event.type:
        case EventType.ANSWER if ours:
            return Heard(Turn.ANSWERED, str(payload["text"]))
        case EventType.DONE if ours:
            return Heard(Turn.ANSWERED)
        case EventType.FAILURE if ours:
            return Heard(Turn.FAILED, str(payload["text"]))
        case EventType.TELL:
            return Heard(Turn.SAID, str(payload["text"]))
        case EventType.SESSION:
            return _of_session(payload)
        case _:
            return Heard(Turn.NOTHING)


def _of_session(payload: dict[str, object]) -> Heard:
    match payload.get("state"):
        case RecordedState.RUNNING:
            return Heard(Turn.NOTE, "the agent is working")
        case RecordedState.FAILED:
            return Heard(Turn.NOTE, f"{payload.get('text', '')} It is tried again.".strip())
        case _:
            return Heard(Turn.NOTE, "waiting for an agent")
