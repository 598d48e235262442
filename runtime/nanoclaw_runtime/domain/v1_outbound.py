"""From our records to the rows of a v1 host."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from nanoclaw_runtime.contract.config import ContainerConfig, GroupSpec
from nanoclaw_runtime.domain.prompt import timestamp
from nanoclaw_runtime.domain.transfer import PastAnswer, PastChat, PastRun, PastTask, StoredMessage
from nanoclaw_runtime.domain.v1_records import V1Chat, V1Group, V1Message, V1Run, V1Task, message_id

_MILLISECOND: Final = timedelta(milliseconds=1)


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


def _maybe_text(time: datetime | None) -> str | None:
    return None if time is None else timestamp(time)


def _whole(time: datetime) -> datetime:
    """Without what is below a millisecond, as it is written."""
    return time.replace(microsecond=time.microsecond // 1000 * 1000)
