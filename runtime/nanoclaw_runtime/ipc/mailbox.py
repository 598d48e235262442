"""Follow-ups and the request to end, as files in the `input/` folder of one session.

Every file is written whole or not at all, and is taken by whoever unlinks it first: the agent to
use it, or we to take it back. Once closing, nothing more is accepted, because an agent that has
seen `_close` never looks again. Each session has a folder of its own, mounted where its agent looks:
nothing that is meant for one session, by whomever and however late, reaches another. The folder
belongs to an agent that may be hostile, so paths are walked without following links.
Not here: which message goes when (`controller.session`).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import re
import secrets
import stat
import string
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Final, Protocol

import msgspec

from nanoclaw_runtime.contract import layout, wire
from nanoclaw_runtime.ipc.descriptors import make_folder, opened_folder, remove_tree, replace_file, walked_folder

LARGEST_FILE: Final = 16 * 1024 * 1024
"""Bytes of a file in `input/` that are written, and read back."""
NAMES_AT_ONCE: Final = 10_000
"""Of `input/` that are looked at; an agent that hides what it was given behind more hurts only itself."""
MOST_READ: Final = 4 * LARGEST_FILE
"""Bytes of all files together that are read back at once."""

ASIDE: Final = ".tmp"
"""Ends the names of texts that are not delivered yet; agents do not look at them."""

_OUR_NAME: Final = re.compile(rf"[0-9]+-[0-9a-z]{{4}}\.json({re.escape(ASIDE)})?")
# As `wire.input_file` makes it.
_BASE36 = string.digits + string.ascii_lowercase


class Carrier(Protocol):
    """Who takes the files to the agent and tells which ones it took, when it looks into another folder than ours."""

    def changed(self, folder: str) -> None:
        """There is something new below the IPC folder of the group. Called on the event loop."""
        ...

    async def settled(self, folder: str, session: str) -> None:
        """Return when our folder shows what the agent, which has ended, took and left.

        Raises OSError when that cannot be known.
        """
        ...


class Nearby:
    """The agent looks into the very folder we write: nothing to carry."""

    def changed(self, folder: str) -> None:
        """See `Carrier.changed`."""

    async def settled(self, folder: str, session: str) -> None:
        """See `Carrier.settled`."""


class Mailbox:
    """What one session of a group is told after its start."""

    def __init__(self, tree: Path, folder: str, session: str, *, carrier: Carrier | None = None) -> None:
        """`carrier` is told whenever there is something new in the folder for the agent."""
        self._root = tree / layout.ipc_dir(folder)
        self._folder, self._session = folder, session
        self._carrier = carrier or Nearby()
        self._last_name = 0
        self.closing = False
        """True once `close` was called, or the session is over; `send` then refuses."""

    async def prepare(self) -> None:
        """Make the folders, and remove those of earlier sessions. Only before the session has its input.

        What is there of this session stays: the pod of a parked agent has its folder mounted.
        """
        await asyncio.to_thread(self._prepare)

    async def discard(self) -> None:
        """Remove the folder; only when the session's agent is gone and what it left is taken back."""
        await asyncio.to_thread(self._discard)

    async def send(self, text: str, messages: Sequence[int], record: Callable[[], Awaitable[object]]) -> bool:
        """Hand the agent one more text; False when it has to wait for the next session, because this
        one is closing or the text is too large for a file.

        `messages` are the ids the text was made of; `pending` tells them again. `record` is awaited
        when the text is on the disk and before the agent can take it; what it raises stops the text.
        """
        if self.closing:
            return False
        document = wire.FollowUp(text=text).model_dump(by_alias=True) | {"messages": list(messages)}
        content = json.dumps(document, ensure_ascii=False).encode()
        if len(content) > LARGEST_FILE:
            return False
        name = self._name()
        await asyncio.to_thread(self._write, f"{name}{ASIDE}", content, lasting=True)
        await record()
        await asyncio.to_thread(self._deliver, name)
        self._carrier.changed(self._folder)
        return True

    async def close(self) -> None:
        """Ask the agent to end after the turn in flight. May be repeated: a `_close` can be lost
        on an agent that was not yet reading.
        """
        self.closing = True
        await asyncio.to_thread(self._write, wire.CLOSE_FILE, b"")
        self._carrier.changed(self._folder)

    async def pending(self) -> set[int]:
        """Ids of the messages whose text the agent has not taken; the files stay.

        Once the agent is gone, it has certainly not seen them. Only ids that the caller gave to this
        session mean anything: the agent can write here too. Raises OSError when nobody can say what it took.
        """
        await self._carrier.settled(self._folder, self._session)
        return await asyncio.to_thread(self._pending)

    async def deliver_recorded(self, recorded: AbstractSet[int]) -> None:
        """Deliver the texts an earlier process laid aside and recorded; remove those it did not record."""
        await asyncio.to_thread(self._deliver_recorded, recorded)
        self._carrier.changed(self._folder)

    def _name(self) -> str:
        # Agents take files in name order: two in one millisecond must not swap.
        self._last_name = max(self._last_name + 1, time.time_ns() // 1_000_000)
        return wire.input_file(self._last_name, "".join(secrets.choice(_BASE36) for _ in range(4)))

    def _prepare(self) -> None:
        make_mailbox(self._root, self._session)

    def _discard(self) -> None:
        with walked_folder(self._root, layout.SESSION_INPUTS) as sessions:
            remove_tree(self._session, sessions)

    def _write(self, name: str, content: bytes, *, lasting: bool = False) -> None:
        with self._input() as folder:
            replace_file(folder, name, content, lasting=lasting)

    def _pending(self) -> set[int]:
        with self._input() as folder:
            return {identity for _, ids in _our_files(folder) for identity in ids}

    def _deliver(self, name: str) -> None:
        with self._input() as folder:
            os.rename(f"{name}{ASIDE}", name, src_dir_fd=folder, dst_dir_fd=folder)

    def _deliver_recorded(self, recorded: AbstractSet[int]) -> None:
        with self._input() as folder:
            for name, ids in [found for found in _our_files(folder) if found[0].endswith(ASIDE)]:
                with contextlib.suppress(FileNotFoundError):  # the agent's own doing; the others are delivered
                    if ids and ids <= recorded:
                        os.rename(name, name.removesuffix(ASIDE), src_dir_fd=folder, dst_dir_fd=folder)
                    else:
                        os.unlink(name, dir_fd=folder)

    def _input(self) -> contextlib.AbstractContextManager[int]:
        return walked_folder(self._root, layout.SESSION_INPUTS, self._session)


def make_mailbox(ipc: Path, session: str) -> None:
    """As `Mailbox.prepare`, of a group whose IPC folder is anywhere. Blocks; raises OSError."""
    ipc.mkdir(parents=True, exist_ok=True)
    with opened_folder(ipc) as root:
        for name in (*wire.IPC_DIRS, layout.SESSION_INPUTS):
            make_folder(name, root)
        with opened_folder(layout.SESSION_INPUTS, root) as sessions:
            with os.scandir(sessions) as entries:
                found = itertools.islice(entries, NAMES_AT_ONCE)  # the next session has the rest
                others = [entry.name for entry in found if entry.name != session]
            for name in others:
                with contextlib.suppress(OSError):
                    remove_tree(name, sessions)
            make_folder(session, sessions)


def is_input(name: str) -> bool:
    """Whether an agent takes a file of this name of ours, or obeys it."""
    return name == wire.CLOSE_FILE or (_OUR_NAME.fullmatch(name) is not None and not name.endswith(ASIDE))


def _our_files(folder: int) -> Iterator[tuple[str, set[int]]]:
    """The files that may be ours, in the order of their names, and the ids of the messages in each."""
    with os.scandir(folder) as entries:
        found = [entry.name for entry in itertools.islice(entries, NAMES_AT_ONCE)]
    room = MOST_READ
    for name in sorted(filter(_OUR_NAME.fullmatch, found)):
        content = plain_content(folder, name, min(room, LARGEST_FILE)) or b""
        room -= len(content)
        yield name, _message_ids(content)


def plain_content(folder: int, name: str | bytes, room: int) -> bytes | None:
    """What a plain file of at most `room` bytes has; None for whatever else lies there."""
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except OSError:
        return None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size > room:
            return None
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(found.st_size)
    except OSError:
        return None
    finally:
        os.close(descriptor)


class _Given(msgspec.Struct):
    """Of a file of ours, what is read again: the rest may be built to fill the memory of whoever reads it."""

    messages: list[int]


def _message_ids(content: bytes) -> set[int]:
    """The ids in a file of ours; nothing in any other."""
    try:
        return set(msgspec.json.decode(content, type=_Given).messages)
    except (msgspec.MsgspecError, RecursionError):
        return set()
