"""What passes on the stream between an agent's pod and the controller, and the frames it passes in.

Both ends keep two folders equal, so there are few messages: files go down, what the agent took and what it asks for
goes up. A file is known by its name and its version (its time of change here), so that it may be sent as often as
streams break. Each frame is its length in four bytes and a MessagePack document; whoever is silent for too long, sends
too much or something else is given up. Not here: who may connect (`callers`), what becomes of a file.
"""

from __future__ import annotations

import asyncio
import contextlib
from enum import StrEnum
from typing import Any, Final, Generic, TypeVar

import msgspec

from nanoclaw_runtime.contract import bridge

BODY: Final = 60.0
"""Seconds for the rest of a frame that has begun, and for one to leave."""
LINGER: Final = 1.0
"""Seconds that what was sent last may take to leave when a stream ends."""
LAST: Final = 0
"""Number of the report after which nothing more comes: the agent has ended."""
LATEST: Final = 2**62
"""Nanoseconds; file times that all file systems and Python take."""
_LENGTH: Final = 4


class Hello(msgspec.Struct, tag="hello"):
    """The pod's first word."""

    token: str
    carried: bool = False
    """Whether it has fetched its files before."""
    errands: bool = False
    """Whether it can be sent for files of its group; one of an earlier version cannot."""
    errand: int = 0
    """On a connection of its own: which one it was sent on. See `errands`."""


class Taken(msgspec.Struct, tag="taken"):
    """The agent took an input, or removed it."""

    name: str
    version: int


class Form(StrEnum):
    """What lies where an agent puts requests."""

    FILE = "file"
    LARGE = "large"
    """More than a request may have; the content is the beginning of it."""
    FOREIGN = "foreign"
    """No plain file."""


class Request(msgspec.Struct, tag="request"):
    """A file that the agent left for its host."""

    serial: int
    """Of this stream: `Handled` tells it again."""
    kind: str
    name: bytes
    modified: int
    """Nanoseconds; part of what makes it this very request and no other."""
    form: Form
    content: bytes = b""


class Report(msgspec.Struct, tag="report"):
    """Everything that was so when `Ask` came has been told."""

    number: int


class Alive(msgspec.Struct, tag="alive"):
    """Nothing new."""


class Welcome(msgspec.Struct, tag="welcome"):
    """The controller knows whose pod this is."""


class Refused(msgspec.Struct, tag="refused"):
    reason: str


class Piece(msgspec.Struct, tag="piece"):
    """Of the archive that the pod has not fetched before; an empty one ends it."""

    content: bytes


class Input(msgspec.Struct, tag="input"):
    """A follow-up, or the request to end. It may come again on another stream, and counts once."""

    name: str
    version: int
    content: bytes


class Snapshot(msgspec.Struct, tag="snapshot"):
    """A file that the agent reads: the tasks, the chats."""

    name: str
    content: bytes


class Synced(msgspec.Struct, tag="synced"):
    """Everything that waited for the pod has been sent."""


class Handled(msgspec.Struct, tag="handled"):
    """A request is dealt with: its file may go, if it still is that one."""

    serial: int


class Ask(msgspec.Struct, tag="ask"):
    number: int


class Go(msgspec.Struct, tag="go"):
    """Connect once more, for this errand."""

    errand: int


class Bye(msgspec.Struct, tag="bye"):
    """The last report has arrived."""


Up = Hello | Taken | Request | Report | Alive
Down = Welcome | Refused | Piece | Input | Snapshot | Synced | Handled | Ask | Go | Bye | Alive

UP: Final[msgspec.msgpack.Decoder[Up]] = msgspec.msgpack.Decoder(Up)
DOWN: Final[msgspec.msgpack.Decoder[Down]] = msgspec.msgpack.Decoder(Down)
_encode = msgspec.msgpack.Encoder().encode

_Got = TypeVar("_Got")
_Other = TypeVar("_Other")


class StreamEnded(ConnectionError):
    """The other end is gone, silent, or does not keep to the protocol."""


class Pace:
    """Messages that are taken from a pod in the long run, so many a second; it is made to wait for more."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst = rate, burst
        self._room, self._since = burst, asyncio.get_running_loop().time()

    async def keep(self) -> None:
        """One more came."""
        now = asyncio.get_running_loop().time()
        self._room = min(self._room + (now - self._since) * self._rate, self._burst) - 1
        self._since = now
        if self._room < 0:
            await asyncio.sleep(-self._room / self._rate)


class Channel(Generic[_Got]):
    """One end of a stream. Any task may send; one receives."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        decoder: msgspec.msgpack.Decoder[_Got],
        *,
        largest: int,
    ) -> None:
        self._reader, self._writer, self._decoder = reader, writer, decoder
        self.largest = largest
        """Bytes of a frame that is received; may be changed between two."""
        self._sending = asyncio.Lock()

    async def send(self, message: Any) -> None:
        """Return when it is on its way. Raises StreamEnded."""
        body = _encode(message)
        try:
            async with self._sending, asyncio.timeout(BODY):
                self._writer.write(len(body).to_bytes(_LENGTH, "big"))
                self._writer.write(body)
                await self._writer.drain()
        except (OSError, TimeoutError) as error:
            raise StreamEnded(f"nothing goes out any more ({error})") from error

    async def receive(self, within: float = bridge.SILENCE) -> _Got:
        """The next message. Raises StreamEnded."""
        try:
            async with asyncio.timeout(within):
                length = int.from_bytes(await self._reader.readexactly(_LENGTH), "big")
            if length > self.largest:
                raise StreamEnded(f"a message of {length} bytes; {self.largest} are the most")
            async with asyncio.timeout(BODY):
                body = await self._reader.readexactly(length)
            return self._decoder.decode(body)
        except TimeoutError as error:
            raise StreamEnded("it is silent") from error
        except asyncio.IncompleteReadError as error:
            raise StreamEnded("it went away") from error
        except (ValueError, RecursionError) as error:  # text that is no UTF-8 is no MsgspecError
            raise StreamEnded("it says what nobody understands") from error
        except OSError as error:
            raise error if isinstance(error, StreamEnded) else StreamEnded(str(error)) from error

    def speaking(self, decoder: msgspec.msgpack.Decoder[_Other], *, largest: int) -> Channel[_Other]:
        """The same end, where other messages come from now on; this one is not used any more."""
        return Channel(self._reader, self._writer, decoder, largest=largest)

    async def beat(self) -> None:
        """Say again and again that this end lives, until cancelled. Raises StreamEnded."""
        while True:
            await asyncio.sleep(bridge.BEAT)
            await self.send(Alive())

    async def close(self) -> None:
        """Let go of the connection; what was sent may still arrive, but nobody waits long for it."""
        self._writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(LINGER):
                await self._writer.wait_closed()
        self.abort()

    def abort(self) -> None:
        """Let go of it at once; whoever sends or receives is told."""
        with contextlib.suppress(AttributeError):  # early 3.11, as in Debian: it was closed already
            self._writer.transport.abort()


def reasons(errors: BaseExceptionGroup[Any]) -> str:
    """What a stream broke on, for the log."""
    each = (reasons(error) if isinstance(error, BaseExceptionGroup) else _told(error) for error in errors.exceptions)
    return "; ".join(each)


def _told(error: BaseException) -> str:
    return str(error) or type(error).__name__
