"""The rows of a NanoClaw v1 host's database, and what a message is called here and there.

Times are ISO text in UTC with milliseconds, compared as text. A message of ours comes home under
the name it left with. What the rows mean is `v1_inbound`, how they are made `v1_outbound`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

SYNC_MARK: Final = "__group_sync__"
"""A row of the chats that is no chat."""

_OURS: Final = "client:"
_UNNAMED: Final = "stored:"
_THEIRS: Final = "v1:"
_LONGEST_KEY: Final = 128


@dataclass(frozen=True)
class V1Group:
    jid: str
    name: str
    folder: str
    trigger_pattern: str
    added_at: str
    container_config: str | None
    requires_trigger: bool


@dataclass(frozen=True)
class V1Message:
    id: str
    chat_jid: str
    sender: str
    sender_name: str
    content: str
    timestamp: str
    is_from_me: bool
    is_bot_message: bool


@dataclass(frozen=True)
class V1Task:
    id: str
    group_folder: str
    chat_jid: str
    prompt: str
    schedule_type: str
    schedule_value: str
    next_run: str | None
    last_run: str | None
    last_result: str | None
    status: str
    created_at: str
    context_mode: str


@dataclass(frozen=True)
class V1Run:
    task_id: str
    run_at: str
    duration_ms: int
    status: str
    result: str | None
    error: str | None


@dataclass(frozen=True)
class V1Chat:
    jid: str
    name: str | None
    last_message_time: str | None
    channel: str | None
    is_group: bool


@dataclass(frozen=True)
class V1Records:
    """Everything a host's database holds."""

    groups: tuple[V1Group, ...] = ()
    messages: tuple[V1Message, ...] = ()
    """Oldest first."""
    tasks: tuple[V1Task, ...] = ()
    runs: tuple[V1Run, ...] = ()
    chats: tuple[V1Chat, ...] = ()
    sessions: Mapping[str, str] = field(default_factory=dict)
    """The agent's conversation of each folder."""
    cursors: Mapping[str, str] = field(default_factory=dict)
    """Time of the last message that an agent was given, of each chat."""
    last_timestamp: str = ""


def message_key(identity: str) -> str:
    """What a message of a v1 host is called here: at most 128 characters."""
    ours = identity.removeprefix(_OURS)
    if ours != identity and 0 < len(ours) <= _LONGEST_KEY:
        return ours
    key = f"{_THEIRS}{identity}"
    if len(key) <= _LONGEST_KEY:
        return key
    return f"{_THEIRS}sha256-{hashlib.sha256(identity.encode(errors='replace')).hexdigest()}"


def message_id(key: str | None, number: int) -> str:
    """What a message of ours is called at a v1 host."""
    if key is None:
        return f"{_UNNAMED}{number}"
    return key.removeprefix(_THEIRS) if key.startswith(_THEIRS) else f"{_OURS}{key}"


def number_of(key: str) -> int | None:
    """The number of the message without a client's id that this key was made of, if it was."""
    digits = key.removeprefix(f"{_THEIRS}{_UNNAMED}")
    return int(digits) if digits != key and digits.isascii() and digits.isdigit() and len(digits) < 19 else None
