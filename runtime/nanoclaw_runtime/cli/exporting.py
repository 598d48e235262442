"""An export: an installation as the folder of a v1 host, which such a host can go on with.

The database appears at once and last, so a folder with one is complete. Secrets and the host's
own program are not part of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from nanoclaw_runtime.cli import carrying, v1_host
from nanoclaw_runtime.cli.errors import CommandFailed, Refused
from nanoclaw_runtime.cli.importing import Tell
from nanoclaw_runtime.cli.remote import Remote
from nanoclaw_runtime.contract import layout
from nanoclaw_runtime.domain import v1_outbound
from nanoclaw_runtime.domain.errors import TransferRefused
from nanoclaw_runtime.domain.transfer import GROUP_AREAS, Area, ChatBundle, Inventory, TaskBundle
from nanoclaw_runtime.domain.v1_records import V1Chat, V1Message, V1Records

_UNFINISHED: Final = ".unfinished"


@dataclass(frozen=True)
class Exported:
    folder: str
    files: int
    bytes: int
    messages: int
    waiting: int
    answers: int
    tasks: int
    session: str | None
    """Alive while its files were read, which may have changed meanwhile."""
    without_files: bool


def see_that_it_is_free(root: Path, *, replace: bool) -> None:
    """Raises CommandFailed for a folder of a host that must not be overwritten."""
    if not (root / v1_host.DATABASE).exists():
        return
    if not replace:
        raise CommandFailed(
            f"{root} is the folder of a NanoClaw host already; export into another one, "
            "or add --replace, which overwrites its files and keeps its database beside the new one"
        )
    if sign := v1_host.signs_of_life(root):
        raise CommandFailed(f"the NanoClaw host in {root} still runs: {sign}; stop it and export again")


async def export(remote: Remote, root: Path, *, without_files: Collection[str] = (), tell: Tell) -> list[Exported]:
    """Write everything the installation has below `root`, but for the files of some groups. Raises CommandFailed."""
    inventory = await remote.ask(Inventory, "GET", "/v1/transfer/groups")
    if unknown := sorted({*without_files} - {group.spec.folder for group in inventory.groups}):
        raise CommandFailed(f"there is no group {unknown[0]!r} whose files could be left out")
    tasks = await remote.ask(TaskBundle, "GET", "/v1/transfer/tasks")
    chats = await remote.ask(ChatBundle, "GET", "/v1/transfer/chats")
    rows: list[V1Message] = []
    cursors: dict[str, str] = {}
    exported = []
    for group in inventory.groups:
        folder, jid = group.spec.folder, group.spec.jid
        tell(f"group {folder}")
        messages, answers = await carrying.messages(remote, folder), await carrying.answers(remote, folder)
        of_chat, cursors[jid] = v1_outbound.v1_messages(jid, messages, answers, inventory.assistant_name)
        rows += of_chat
        files, size = (0, 0) if folder in without_files else await _fetch_files(remote, root, folder)
        exported.append(
            Exported(
                folder=folder,
                files=files,
                bytes=size,
                messages=len(messages),
                waiting=sum(message.waiting for message in messages),
                answers=len(answers),
                tasks=sum(task.folder == folder for task in tasks.tasks),
                session=group.session,
                without_files=folder in without_files,
            )
        )
    await carrying.fetch_files(remote, v1_host.place(root, Area.GLOBAL), Area.GLOBAL)
    now = datetime.now(UTC)
    rows.sort(key=lambda row: row.timestamp)
    records = _records(inventory, tasks, chats, messages=rows, cursors=cursors, now=now)
    await asyncio.to_thread(_write, root, records, now)
    return exported


async def _fetch_files(remote: Remote, root: Path, folder: str) -> tuple[int, int]:
    """How many files a group has, and how many bytes. What its agent made of them must not keep the others' here."""
    try:
        taken = [
            await carrying.fetch_files(remote, v1_host.place(root, area, folder), area, folder) for area in GROUP_AREAS
        ]
    except (Refused, TransferRefused) as error:
        raise CommandFailed(
            f"group {folder!r}: {error}; with --without-files-of {folder} everything else is exported"
        ) from error
    return sum(one.files for one in taken), sum(one.bytes for one in taken)


def _records(
    inventory: Inventory,
    tasks: TaskBundle,
    chats: ChatBundle,
    *,
    messages: list[V1Message],
    cursors: dict[str, str],
    now: datetime,
) -> V1Records:
    known = {chat.jid for chat in chats.chats}
    silent = [group.spec for group in inventory.groups if group.spec.jid not in known]
    return V1Records(
        groups=tuple(v1_outbound.v1_group(group.spec, inventory.assistant_name, now) for group in inventory.groups),
        messages=tuple(messages),
        tasks=tuple(v1_outbound.v1_task(task) for task in tasks.tasks),
        runs=tuple(v1_outbound.v1_run(run) for run in tasks.runs),
        chats=(
            *(v1_outbound.v1_chat(chat) for chat in chats.chats),
            *(V1Chat(spec.jid, spec.name, "", None, is_group=False) for spec in silent),  # messages refer to theirs
        ),
        sessions={
            group.spec.folder: group.conversation for group in inventory.groups if group.conversation is not None
        },
        cursors=cursors,
        last_timestamp=messages[-1].timestamp if messages else "",
    )


def _write(root: Path, records: V1Records, now: datetime) -> None:
    database = root / v1_host.DATABASE
    unfinished = database.with_name(database.name + _UNFINISHED)
    try:
        for group in records.groups:
            (root / layout.group_dir(group.folder) / "logs").mkdir(parents=True, exist_ok=True)
            for kind in v1_host.IPC_FOLDERS:
                (root / layout.ipc_dir(group.folder) / kind).mkdir(parents=True, exist_ok=True)
        database.parent.mkdir(parents=True, exist_ok=True)
        unfinished.unlink(missing_ok=True)
        v1_host.write_database(unfinished, records)
        for file in (database, *(database.with_name(database.name + end) for end in ("-wal", "-shm", "-journal"))):
            if file.exists():
                file.rename(file.with_name(f"{now:%Y%m%d-%H%M%S}-{file.name}"))
        unfinished.rename(database)
    except OSError as error:
        raise CommandFailed(f"{error.filename or root} cannot be written: {error.strerror or error}") from error
