"""Errands at the pod's end: the files of its own group, listed, given, taken and removed as the controller says.

An agent may work beside it and be hostile, so everything is done by `ipc.archive`, which follows no link. Not here:
whether any of it may be done now (the controller's), the connection itself (`pod`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Self

from nanoclaw_runtime.bridge.errands import (
    FILES_AT_ONCE,
    NAMES_AT_ONCE,
    PATIENCE,
    Done,
    Failed,
    File,
    Found,
    Give,
    List,
    Order,
    Remove,
    Take,
    ToPod,
    beating,
)
from nanoclaw_runtime.bridge.protocol import Alive, Channel, Piece, StreamEnded
from nanoclaw_runtime.domain.errors import TransferRefused
from nanoclaw_runtime.domain.transfer import Area, FilesTaken, moves
from nanoclaw_runtime.ipc import archive
from nanoclaw_runtime.ipc.streams import drained, flowing, gathered

REASON: Final = 400
"""Characters of why something was not done."""


class Errands:
    """What the container does for its group; `furnish` puts back what belongs into a group's memory after a change."""

    def __init__(self, group: Path, sessions: Path, furnish: Callable[[], None]) -> None:
        self._roots = {Area.GROUP: group, Area.SESSIONS: sessions}
        self._furnish = furnish

    async def run(self, channel: Channel[ToPod]) -> None:
        """One errand, from the order to its end. Raises StreamEnded, in any case: who sent it lets go of it."""
        pieces = _Incoming(channel)
        async with beating(channel):
            order = await pieces.following()
            if not isinstance(order, Order):
                raise StreamEnded(f"it begins with {type(order).__name__}")
            try:
                answer: Done | Failed = await self._do(order, channel, pieces)
            except StreamEnded:
                raise
            except (TransferRefused, OSError) as error:
                answer = Failed(_told(error)[:REASON])
            await channel.send(answer)
            while True:  # a connection with something unread in it would take the answer along when it is closed
                await pieces.following()

    async def _do(self, order: Order, channel: Channel[ToPod], pieces: _Incoming) -> Done:
        root = self._roots.get(order.area)
        if root is None:
            raise TransferRefused(f"a pod has no area {order.area.value!r}")
        match order:
            case List(area):
                return await self._list(root, area, channel)
            case Give(area):
                return await self._give(root, area, channel)
            case Take(area):
                taken = await drained(pieces, lambda read: self._unpack(root, area, read))
                return Done(taken.files, taken.bytes, taken.left_out)
            case Remove(_, paths):
                return Done(files=await asyncio.to_thread(archive.remove, root, paths))

    def _unpack(self, root: Path, area: Area, read: Callable[[int], bytes]) -> FilesTaken:
        root.mkdir(parents=True, exist_ok=True)
        taken = archive.unpack(root, read, moves(area))
        with contextlib.suppress(OSError):  # the files are in place; the next pod tries again
            self._furnish()
        return taken

    async def _list(self, root: Path, area: Area, channel: Channel[ToPod]) -> Done:
        found = _Portions(root, area)
        while files := await asyncio.to_thread(next, found, None):
            await channel.send(Found(files))
        return Done(left_out=found.left_out)

    async def _give(self, root: Path, area: Area, channel: Channel[ToPod]) -> Done:
        wanted = moves(area)
        await asyncio.to_thread(_count, root, area)  # what is refused is refused before the first piece
        paths = (file.path for file in archive.walked(root, wanted) if file is not None)
        async with contextlib.aclosing(flowing(gathered(archive.pack(root, paths), archive.PIECE))) as stream:
            async for piece in stream:
                await channel.send(Piece(piece))
        return Done()


def _count(root: Path, area: Area) -> int:
    return sum(1 for _ in archive.walked(root, moves(area)))


class _Portions:
    """The files of an area, some at a time, so that never all of them are in memory."""

    def __init__(self, root: Path, area: Area) -> None:
        self._found = archive.walked(root, moves(area))
        self.left_out = 0

    def __iter__(self) -> Iterator[list[File]]:
        return self

    def __next__(self) -> list[File]:
        files, names = list[File](), 0
        for file in self._found:
            if file is None:
                self.left_out += 1
                continue
            files.append(File(file.path, file.size, file.modified))
            names += len(file.path)
            if len(files) >= FILES_AT_ONCE or names >= NAMES_AT_ONCE:
                break
        if not files:
            raise StopIteration
        return files


class _Incoming:
    """What comes on the connection. No generator: whoever is cancelled leaves a thread that still reads."""

    def __init__(self, channel: Channel[ToPod]) -> None:
        self._channel = channel
        self._over = False

    async def following(self) -> ToPod:
        """The next word but that the other end lives. Raises StreamEnded."""
        try:
            async with asyncio.timeout(PATIENCE):
                while isinstance(message := await self._channel.receive(), Alive):
                    pass
        except TimeoutError:
            raise StreamEnded("it says nothing") from None
        return message

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if not self._over:
            message = await self.following()
            if not isinstance(message, Piece):
                raise StreamEnded(f"{type(message).__name__} in the middle of an archive")
            if message.content:
                return message.content
            self._over = True
        raise StopAsyncIteration


def _told(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.strerror or type(error).__name__} in the pod"
    return str(error)
