"""The rows of a NanoClaw v1 host's database, and how they are said here and there.

Times are ISO text in UTC with milliseconds, compared as text. What a message is called survives
the way there and back: a message of ours comes home under the name it left with.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from pydantic import ValidationError

from nanoclaw_runtime.contract.config import AdditionalMount, ContainerConfig, GroupSpec
from nanoclaw_runtime.domain.prompt import timestamp
from nanoclaw_runtime.domain.transfer import (
    PastAnswer,
    PastChat,
    PastMessage,
    PastRun,
    PastTask,
    StoredMessage,
)

SYNC_MARK: Final = "__group_sync__"
"""A row of the chats that is no chat."""

_MILLISECOND: Final = timedelta(milliseconds=1)
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


# Names of messages


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


# From there to here


def moment(text: str, zone: ZoneInfo) -> datetime:
    """A point in time as v1 writes it; one without an offset is meant in `zone`. Raises ValueError."""
    try:
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=zone)).astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{text!r} is beyond the calendar") from None


def is_answer(row: V1Message, assistant_name: str) -> bool:
    """Whether the agent said it: v1 keeps its echo among the messages."""
    return row.is_bot_message or row.content.startswith(f"{assistant_name}:")


def past_message(row: V1Message, cursor: str, zone: ZoneInfo) -> PastMessage:
    """Raises ValueError for a time nobody can read."""
    return PastMessage(
        key=message_key(row.id),
        sender=row.sender or "unknown",
        sender_name=row.sender_name or row.sender or "unknown",
        text=row.content,
        created=moment(row.timestamp, zone),
        waiting=row.timestamp > cursor,
    )


def past_task(row: V1Task, jid: str, zone: ZoneInfo) -> PastTask:
    """Raises ValueError, pydantic's among them, for what is no task here."""
    return PastTask.model_validate(
        {
            "id": row.id,
            "folder": row.group_folder,
            "jid": jid,
            "prompt": row.prompt,
            "kind": row.schedule_type,
            "value": row.schedule_value,
            "context": row.context_mode,
            "state": row.status,
            "next_run": _maybe(row.next_run, zone),
            "last_run": _maybe(row.last_run, zone),
            "last_result": row.last_result,
            "created": moment(row.created_at, zone),
        }
    )


def past_run(row: V1Run, zone: ZoneInfo) -> PastRun:
    """Raises ValueError."""
    return PastRun.model_validate(
        {
            "task": row.task_id,
            "started": moment(row.run_at, zone),
            "seconds": row.duration_ms / 1000,
            "outcome": row.status,
            "result": row.result,
            "error": row.error,
        }
    )


def past_chat(row: V1Chat, zone: ZoneInfo) -> PastChat:
    """Raises ValueError, also for a chat in which nothing ever happened."""
    return PastChat(
        jid=row.jid,
        name=row.name,
        channel=row.channel,
        is_group=row.is_group,
        last_activity=moment(row.last_message_time or "", zone),
    )


def group_spec(row: V1Group) -> GroupSpec:
    """The group as a stack declares it. Raises ValueError for a folder or a configuration we do not take."""
    return GroupSpec(
        folder=row.folder,
        name=row.name or row.folder,
        jid=row.jid,
        requires_trigger=row.requires_trigger,
        container_config=container_config(row.container_config),
    )


def container_config(text: str | None) -> ContainerConfig:
    """v1's JSON, its timeout in milliseconds. Raises ValueError."""
    found = json.loads(text) if text else {}
    if not isinstance(found, dict):
        raise ValueError("the container configuration is no object")  # noqa: TRY004 - of a text, like all here
    mounts = found.get("additionalMounts") or []
    if not isinstance(mounts, list):
        raise ValueError("additionalMounts is no list")  # noqa: TRY004
    timeout = found.get("timeout")
    return ContainerConfig(
        additional_mounts=tuple(AdditionalMount.model_validate(mount) for mount in mounts),
        timeout=timeout / 1000 if isinstance(timeout, int | float) and timeout else None,
    )


def complaint(error: ValueError) -> str:
    """One line about why a row cannot be read."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    return str(error)


# From here to there


def v1_group(spec: GroupSpec, assistant_name: str, added: datetime) -> V1Group:
    return V1Group(
        jid=spec.jid,
        name=spec.name,
        folder=spec.folder,
        trigger_pattern=f"@{assistant_name}",
        added_at=timestamp(added),
        container_config=_config_text(spec.container_config),
        requires_trigger=spec.requires_trigger,
    )


def v1_messages(
    jid: str, messages: Sequence[StoredMessage], answers: Sequence[PastAnswer], assistant_name: str
) -> tuple[list[V1Message], str]:
    """The rows of a chat, and its cursor: the agent was given everything up to there and nothing behind.

    A v1 host knows only the time, so a waiting message that is older than an answered one is
    written with a time just behind the cursor.
    """
    cursor = max((message.created for message in messages if not message.waiting), default=None)
    rows, last = [_answer_row(jid, answer, assistant_name) for answer in answers], cursor
    for message in messages:
        created = message.created
        if message.waiting:
            if last is not None:
                created = max(created, _whole(last) + _MILLISECOND)
            last = created
        rows.append(_message_row(jid, message, created))
    return sorted(rows, key=lambda row: row.timestamp), timestamp(cursor) if cursor else ""


def v1_task(task: PastTask) -> V1Task:
    return V1Task(
        id=task.id,
        group_folder=task.folder,
        chat_jid=task.jid,
        prompt=task.prompt,
        schedule_type=task.kind.value,
        schedule_value=task.value,
        next_run=_maybe_text(task.next_run),
        last_run=_maybe_text(task.last_run),
        last_result=task.last_result,
        status=task.state.value,
        created_at=timestamp(task.created),
        context_mode=task.context.value,
    )


def v1_run(run: PastRun) -> V1Run:
    return V1Run(
        task_id=run.task,
        run_at=timestamp(run.started),
        duration_ms=round(run.seconds * 1000),
        status=run.outcome.value,
        result=run.result,
        error=run.error,
    )


def v1_chat(chat: PastChat) -> V1Chat:
    return V1Chat(chat.jid, chat.name, timestamp(chat.last_activity), chat.channel, chat.is_group)


def _message_row(jid: str, message: StoredMessage, created: datetime) -> V1Message:
    return V1Message(
        id=message_id(message.key, message.number),
        chat_jid=jid,
        sender=message.sender,
        sender_name=message.sender_name,
        content=message.text,
        timestamp=timestamp(created),
        is_from_me=False,
        is_bot_message=False,
    )


def _answer_row(jid: str, answer: PastAnswer, assistant_name: str) -> V1Message:
    return V1Message(
        id=f"answer:{answer.number}",
        chat_jid=jid,
        sender=assistant_name,
        sender_name=assistant_name,
        content=answer.text,
        timestamp=timestamp(answer.created),
        is_from_me=True,
        is_bot_message=True,
    )


def _config_text(config: ContainerConfig) -> str | None:
    """Mounts of a folder of the host; v1 knows no claims."""
    mounts = [
        mount.model_dump(by_alias=True, include={"host_path", "container_path", "readonly"})
        for mount in config.additional_mounts
        if mount.host_path is not None
    ]
    found: dict[str, Any] = {"additionalMounts": mounts} if mounts else {}
    if config.timeout is not None:
        found["timeout"] = round(config.timeout * 1000)
    return json.dumps(found) if found else None


def _maybe(text: str | None, zone: ZoneInfo) -> datetime | None:
    return moment(text, zone) if text else None


def _maybe_text(time: datetime | None) -> str | None:
    return None if time is None else timestamp(time)


def _whole(time: datetime) -> datetime:
    """Without what is below a millisecond, as it is written."""
    return time.replace(microsecond=time.microsecond // 1000 * 1000)
