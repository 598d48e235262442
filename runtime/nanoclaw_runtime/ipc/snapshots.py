"""What an agent may know of its host: the scheduled tasks and the chats, as files it reads.

Main sees everything, another group its own tasks and no chats. NanoClaw writes the files before a
session starts and when they change. Not here: when that is (`controller.snapshots`).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from nanoclaw_runtime.contract import layout, names, wire
from nanoclaw_runtime.domain.prompt import timestamp
from nanoclaw_runtime.domain.tasks import TaskKind, TaskState
from nanoclaw_runtime.ipc.descriptors import opened_folder, replace_file


class ScheduledTask(Protocol):
    """As far as agents are told."""

    @property
    def id(self) -> str: ...
    @property
    def folder(self) -> str: ...
    @property
    def prompt(self) -> str: ...
    @property
    def kind(self) -> TaskKind: ...
    @property
    def value(self) -> str: ...
    @property
    def state(self) -> TaskState: ...
    @property
    def next_run(self) -> datetime | None: ...


class KnownChat(Protocol):
    """As far as agents are told."""

    @property
    def jid(self) -> str: ...
    @property
    def name(self) -> str | None: ...
    @property
    def is_group(self) -> bool: ...
    @property
    def last_activity(self) -> datetime: ...


def current_tasks(folder: str, tasks: Iterable[ScheduledTask]) -> list[dict[str, Any]]:
    """The tasks the agent of this group may see: main all, the others their own."""
    return [_task(task) for task in tasks if folder in {names.MAIN_FOLDER, task.folder}]


def available_groups(
    folder: str, chats: Iterable[KnownChat], registered: Collection[str], now: datetime
) -> dict[str, Any]:
    """The group chats of all networks for main's agent, newest first; none for the others.

    `registered` are the jids of chats that belong to a group.
    """
    seen = [chat for chat in chats if chat.is_group and folder == names.MAIN_FOLDER]
    seen.sort(key=lambda chat: chat.last_activity, reverse=True)
    return {"groups": [_chat(chat, registered) for chat in seen], "lastSync": timestamp(now)}


def write_tasks(tree: Path, folder: str, tasks: Iterable[ScheduledTask]) -> None:
    """Replace the group's `current_tasks.json`. Blocks; raises OSError."""
    _write(tree, folder, wire.CURRENT_TASKS_FILE, current_tasks(folder, tasks))


def write_groups(
    tree: Path, folder: str, chats: Iterable[KnownChat], registered: Collection[str], now: datetime
) -> None:
    """Replace the group's `available_groups.json`. Blocks; raises OSError."""
    _write(tree, folder, wire.AVAILABLE_GROUPS_FILE, available_groups(folder, chats, registered, now))


def _write(tree: Path, folder: str, name: str, content: object) -> None:
    with opened_folder(tree / layout.ipc_dir(folder)) as ipc:
        replace_file(ipc, name, json.dumps(content, indent=2).encode())


def _task(task: ScheduledTask) -> dict[str, Any]:
    return {
        "id": task.id,
        "groupFolder": task.folder,
        "prompt": task.prompt,
        "schedule_type": task.kind,
        "schedule_value": task.value,
        "status": task.state,
        "next_run": task.next_run and timestamp(task.next_run),
    }


def _chat(chat: KnownChat, registered: Collection[str]) -> dict[str, Any]:
    return {
        "jid": chat.jid,
        "name": chat.name or chat.jid,
        "lastActivity": timestamp(chat.last_activity),
        "isRegistered": chat.jid in registered,
    }
