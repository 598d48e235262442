"""Files and records between this machine and the controller, in pieces of a size that suits both."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import BaseModel

from nanoclaw_runtime.cli.errors import UNAVAILABLE, Away, CommandFailed, NotReachable, Refused
from nanoclaw_runtime.cli.remote import PATIENCE, RECONNECT, Remote, part
from nanoclaw_runtime.domain.transfer import (
    AnswerPage,
    Area,
    FileFacts,
    FileList,
    FilesTaken,
    MessagePage,
    PastAnswer,
    PastChat,
    PastMessage,
    PastRun,
    PastTask,
    Removed,
    StoredMessage,
)
from nanoclaw_runtime.ipc import archive, streams

ARCHIVE_BYTES: Final = 64 * 1024 * 1024
"""Of the files of one archive, unless a single one has more: what a broken connection costs at most."""
ARCHIVE_FILES: Final = 5000
UNTIL_MOUNTED: Final = 300.0
"""Seconds for a new group's volumes: they are provisioned, and the controller's pod is replaced. Also for a pod that is
started because only pods mount them."""
JSON_BYTES: Final = 900 * 1024
"""Of the records of one request, below what the controller accepts."""


_Item = TypeVar("_Item")
_Done = TypeVar("_Done")


def address(area: Area, folder: str | None) -> str:
    """The route of an area."""
    where = area.value if folder is None else f"groups/{part(folder)}/{area.value}"
    return f"/v1/transfer/{where}"


async def files(remote: Remote, area: Area, folder: str | None = None) -> FileList:
    """What there is. Where only a pod of the group has it, one may have to start first."""
    return await _patiently(lambda: remote.ask(FileList, "GET", f"{address(area, folder)}/files"))


async def send_files(
    remote: Remote, root: Path, found: Sequence[FileFacts], area: Area, folder: str | None = None
) -> FilesTaken:
    """Upload files of `root`, archive by archive; each is taken in whole. What came in, all together."""

    async def send(some: Sequence[FileFacts]) -> FilesTaken:
        content = streams.flowing(archive.pack(root, [file.path for file in some]))
        return FilesTaken.model_validate_json(await remote.upload(f"{address(area, folder)}/files", content))

    taken = [await _patiently(partial(send, some)) for some in archives(found)]
    return FilesTaken(
        files=sum(one.files for one in taken),
        bytes=sum(one.bytes for one in taken),
        left_out=sum(one.left_out for one in taken),
    )


async def fetch_files(remote: Remote, root: Path, area: Area, folder: str | None = None) -> FilesTaken:
    """Download an area into `root`, whole or not at all; what breaks off begins again."""
    await files(remote, area, folder)  # a download does not say why it is refused
    return await _patiently(partial(_download, remote, root, area, folder))


async def _download(remote: Remote, root: Path, area: Area, folder: str | None) -> FilesTaken:
    stream = remote.download(f"{address(area, folder)}/files.tar")
    try:
        await asyncio.to_thread(root.mkdir, parents=True, exist_ok=True)
        return await streams.drained(stream, lambda read: archive.unpack(root, read))
    except OSError as error:
        raise CommandFailed(f"{error.filename or root} cannot be written: {error.strerror or error}") from error
    finally:
        await stream.aclose()


async def _patiently(step: Callable[[], Awaitable[_Done]]) -> _Done:
    """Do a step that may be repeated, again when it broke off or could not be done at this moment."""
    first: float | None = None
    while True:
        try:
            return await step()
        except (Away, Refused) as error:
            first = first or time.monotonic()  # the step itself may take long
            if time.monotonic() - first > _patience(error):
                raise
        await asyncio.sleep(RECONNECT)


def _patience(error: Away | Refused) -> float:
    """Seconds for which a step is tried again that failed so."""
    if isinstance(error, Refused):
        return UNTIL_MOUNTED if error.status == UNAVAILABLE else -1
    return PATIENCE


async def remove_files(remote: Remote, paths: Sequence[str], area: Area) -> int:
    """How many were there."""
    removed = 0
    for some in _runs_of(paths, JSON_BYTES, lambda path: len(json.dumps(path)) + 2):
        body = {"paths": list(some)}
        removed += (await remote.ask(Removed, "POST", f"{address(area, None)}/files/removal", body)).files
    return removed


async def until_it_has_folders(remote: Remote, folder: str) -> None:
    """Wait for the volumes of a group that was just added; the controller may restart for them."""
    until = time.monotonic() + UNTIL_MOUNTED
    while True:
        try:
            await remote.upload(f"{address(Area.GROUP, folder)}/files", streams.flowing(archive.pack(Path(), [])))
        except (NotReachable, Refused):
            if time.monotonic() > until:
                raise
        else:
            return
        await asyncio.sleep(RECONNECT)


async def messages(remote: Remote, folder: str) -> list[StoredMessage]:
    found: list[StoredMessage] = []
    path = f"/v1/transfer/groups/{part(folder)}/messages"
    while page := (await remote.ask(MessagePage, "GET", f"{path}?after={found[-1].number if found else 0}")).messages:
        found += page
    return found


async def answers(remote: Remote, folder: str) -> list[PastAnswer]:
    found: list[PastAnswer] = []
    path = f"/v1/transfer/groups/{part(folder)}/answers"
    while page := (await remote.ask(AnswerPage, "GET", f"{path}?after={found[-1].number if found else 0}")).answers:
        found += page
    return found


def archives(found: Sequence[FileFacts]) -> Iterator[Sequence[FileFacts]]:
    """The files in portions for one archive each."""
    return _runs_of(found, ARCHIVE_BYTES, lambda file: file.size, most=ARCHIVE_FILES)


def chat_bundles(found: Sequence[PastChat]) -> Iterator[dict[str, Any]]:
    for some in _runs_of(found, JSON_BYTES, lambda chat: len(json.dumps(_plain(chat))) + 2):
        yield {"chats": [_plain(chat) for chat in some]}


def portions(
    import_id: str,
    messages: Sequence[PastMessage],
    tasks: Sequence[PastTask],
    runs: Sequence[PastRun],
    *,
    conversation: str | None,
    replace: bool,
) -> Iterator[dict[str, Any]]:
    """A group's records as bodies of requests, in their order; the last one says so."""
    kinds: tuple[tuple[str, Sequence[BaseModel]], ...] = (("messages", messages), ("tasks", tasks), ("runs", runs))
    named = [(name, _plain(record)) for name, records in kinds for record in records]
    runs_of = list(_runs_of(named, JSON_BYTES, lambda pair: len(json.dumps(pair[1])) + 2)) or [()]
    for number, some in enumerate(runs_of, 1):
        body: dict[str, Any] = {"importId": import_id, "replace": replace, "complete": number == len(runs_of)}
        if number == 1 and conversation is not None:
            body["conversation"] = conversation
        for name, record in some:
            body.setdefault(name, []).append(record)
        yield body


def _plain(record: BaseModel) -> dict[str, Any]:
    return record.model_dump(mode="json", by_alias=True)


def _runs_of(
    items: Sequence[_Item], limit: int, size: Callable[[_Item], int], *, most: int = 10_000
) -> Iterator[Sequence[_Item]]:
    """The items in their order, as many together as stay below `limit` and `most`; a larger one alone."""
    start, total = 0, 0
    for index, item in enumerate(items):
        total += size(item)
        if index > start and (total > limit or index - start == most):
            yield items[start:index]
            start, total = index, size(item)
    if items:
        yield items[start:]
