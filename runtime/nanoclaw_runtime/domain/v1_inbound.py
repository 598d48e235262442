"""From the rows of a v1 host to the records we know. What cannot be read is a ValueError with one line about why."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from pydantic import ValidationError

from nanoclaw_runtime.contract.config import AdditionalMount, ContainerConfig, GroupSpec
from nanoclaw_runtime.domain.transfer import PastChat, PastMessage, PastRun, PastTask
from nanoclaw_runtime.domain.v1_records import V1Chat, V1Group, V1Message, V1Run, V1Task, message_key


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


def _maybe(text: str | None, zone: ZoneInfo) -> datetime | None:
    return moment(text, zone) if text else None
