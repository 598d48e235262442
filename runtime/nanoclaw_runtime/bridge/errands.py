"""What passes on the connection of an errand: files of a group, asked of its pod or brought to it.

The controller tells a pod on its stream to connect once more, and the pod says hello there with its token again and the
errand's number. So a large archive holds up no input and no request, TCP slows down whoever is faster, and an errand
that breaks off leaves the stream alone. The controller says what it wants; the pod does it by the rules of
`ipc.archive` and ends with `Done` or `Failed`. Not here: either end (`errand`, `pod_errands`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec

from nanoclaw_runtime.bridge.protocol import Alive, Channel, Piece, Refused, Welcome
from nanoclaw_runtime.domain.transfer import Area

PATIENCE: Final = 300.0
"""Seconds for each end's next word beyond that it lives: walking a large folder takes a while."""
FILES_AT_ONCE: Final = 500
NAMES_AT_ONCE: Final = 256 * 1024
"""Files, and characters of their paths, after which a message with some of them goes out."""


class List(msgspec.Struct, tag="list"):
    """Tell which files there are."""

    area: Area


class Give(msgspec.Struct, tag="give"):
    """Send them all as a tar stream, in pieces; `Done` ends it."""

    area: Area


class Take(msgspec.Struct, tag="take"):
    """Put the files of a tar stream in place, all or none; its pieces follow, an empty one ends it."""

    area: Area


class Remove(msgspec.Struct, tag="remove"):
    area: Area
    paths: list[str]


class File(msgspec.Struct, array_like=True):
    path: str
    size: int
    modified: int


class Found(msgspec.Struct, tag="found"):
    """Some of the files."""

    files: list[File]


class Done(msgspec.Struct, tag="done"):
    files: int = 0
    bytes: int = 0
    left_out: int = 0


class Failed(msgspec.Struct, tag="failed"):
    """Nothing was changed."""

    reason: str


Order = List | Give | Take | Remove
ToPod = Order | Piece | Alive | Welcome | Refused
FromPod = Found | Piece | Done | Failed | Alive

TO_POD: Final[msgspec.msgpack.Decoder[ToPod]] = msgspec.msgpack.Decoder(ToPod)
FROM_POD: Final[msgspec.msgpack.Decoder[FromPod]] = msgspec.msgpack.Decoder(FromPod)


@contextlib.asynccontextmanager
async def beating(channel: Channel[Any]) -> AsyncIterator[None]:
    """Say meanwhile that this end lives. That the other does not is found out by who receives."""
    beat = asyncio.create_task(channel.beat(), name="bridge, heartbeat of an errand")
    try:
        yield
    finally:
        beat.cancel()
        await asyncio.gather(beat, return_exceptions=True)
