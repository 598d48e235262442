"""The container beside an agent: makes its folders, fetches its files, and keeps them equal with the controller's.

It is ready, and the agent starts, when all that waited has arrived. From then on it comes back whenever its stream
breaks, and says its last when it is asked to end, which is when the agent has. It holds nothing but the token of its
own pod. Not here: what is done with a file (`pod_inputs`, `pod_requests`).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import random
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import structlog

from nanoclaw_runtime.bridge.errands import TO_POD
from nanoclaw_runtime.bridge.pod_errands import Errands
from nanoclaw_runtime.bridge.pod_inputs import Entry, Inputs, replace_snapshot
from nanoclaw_runtime.bridge.pod_requests import Requests
from nanoclaw_runtime.bridge.protocol import (
    DOWN,
    LAST,
    Ask,
    Bye,
    Channel,
    Down,
    Go,
    Handled,
    Hello,
    Input,
    Piece,
    Refused,
    Report,
    Request,
    Snapshot,
    StreamEnded,
    Synced,
    Taken,
    Welcome,
    reasons,
)
from nanoclaw_runtime.contract import bridge, layout
from nanoclaw_runtime.domain.errors import TransferRefused
from nanoclaw_runtime.domain.requests import RequestKind
from nanoclaw_runtime.ipc import archive
from nanoclaw_runtime.ipc.folders import furnish
from nanoclaw_runtime.ipc.mailbox import make_mailbox
from nanoclaw_runtime.ipc.streams import drained

CONNECT: Final = 5.0
"""Seconds for a connection with its TLS handshake."""
ADMITTED: Final = 30.0
"""Seconds for the controller to have the token reviewed."""
LOCK: Final = "lock"
FIRST_PAUSE: Final = 0.2
LONGEST_PAUSE: Final = 5.0
"""Seconds between two tries to connect; half of it by chance, so that pods do not come back all at once."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Place:
    """Where the container finds everything."""

    address: str
    """`host:port` to connect to."""
    server: str
    """The name that the certificate is for."""
    certificate: str
    folder: str
    session: str
    group: Path
    ipc: Path
    sessions: Path
    root: Path

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Self:
        """Raises KeyError for what is missing."""
        return cls(
            address=environ[bridge.ENV_ADDRESS],
            server=environ.get(bridge.ENV_SERVER) or environ[bridge.ENV_ADDRESS].rsplit(":", 1)[0],
            certificate=environ[bridge.ENV_CERTIFICATE],
            folder=environ[bridge.ENV_FOLDER],
            session=environ[bridge.ENV_SESSION],
            group=Path(environ[bridge.ENV_GROUP_DIR]),
            ipc=Path(environ[bridge.ENV_IPC_DIR]),
            sessions=Path(environ[bridge.ENV_SESSIONS_DIR]),
            root=Path(environ.get(bridge.ENV_ROOT) or bridge.ROOT),
        )

    @property
    def own(self) -> Path:
        return self.root / bridge.OWN_DIR

    @property
    def carried(self) -> Path:
        return self.root / bridge.CARRIED_DIR

    @property
    def ready(self) -> Path:
        return self.root / bridge.READY_FILE

    def token(self) -> str:
        """As it is now: the kubelet renews it."""
        return (self.root / bridge.TOKEN_DIR / bridge.TOKEN_FILE).read_text()


class PodBridge:
    """`run` is its life; `stop` has it say its last."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._inputs = Inputs(place.ipc, place.session, place.own)
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """The agent has ended."""
        self._stopping.set()

    async def run(self) -> None:
        """Until the last report has arrived. Raises OSError when the group's folders cannot be made."""
        async with _alone(self._place.own):
            await asyncio.to_thread(self._prepare)
            await self._carry()

    async def _carry(self) -> None:
        pause = FIRST_PAUSE
        while True:
            begun = asyncio.get_running_loop().time()
            over = False
            try:
                async with _connected(self._place) as channel:
                    await _Talk(channel, self._place, self._inputs, self._stopping).run()
                over = True
            except* OSError as errors:
                _log.warning("bridge.broken", reason=reasons(errors))
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise asyncio.CancelledError  # a group of tasks that broke in the same moment does not tell
            if over:
                return
            if asyncio.get_running_loop().time() - begun > bridge.SILENCE:
                pause = FIRST_PAUSE
            await self._rest(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _rest(self, pause: float) -> None:
        if self._stopping.is_set():
            await asyncio.sleep(FIRST_PAUSE)  # there is little time left
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause * random.uniform(0.5, 1)):  # noqa: S311
                await self._stopping.wait()

    def _prepare(self) -> None:
        place = self._place
        (place.carried / bridge.carried_folder(place.folder)[0]).mkdir(parents=True, exist_ok=True)
        make_mailbox(place.ipc, place.session)
        self._inputs.recover()


class _Talk:
    """One stream, from hello to its end."""

    def __init__(self, channel: Channel[Down], place: Place, inputs: Inputs, stopping: asyncio.Event) -> None:
        self._channel, self._place, self._inputs, self._stopping = channel, place, inputs, stopping
        self._requests = Requests(place.ipc)
        self._telling = asyncio.Lock()
        self._told: set[Entry] = set()
        self._unreadable: dict[RequestKind, str] = {}
        self._errands: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Return behind the last report. Raises OSError, also in a group."""
        furnished = self._place.ready.exists()
        await self._channel.send(Hello(await asyncio.to_thread(self._place.token), carried=furnished, errands=True))
        await _admitted(self._channel)
        async with asyncio.TaskGroup() as self._tasks:
            tasks = self._tasks
            beat = tasks.create_task(self._channel.beat(), name="bridge, heartbeat")
            if not furnished:
                await self._fetch()
            up = tasks.create_task(self._up(), name="bridge, up")
            await self._down()
            for task in (up, beat, *self._errands):
                task.cancel()

    async def _fetch(self) -> None:
        """What the controller has for every agent of the group, and the skills in it."""
        place, pieces = self._place, _Pieces(self._channel)
        try:
            await drained(pieces, lambda read: archive.unpack(place.carried, read))
        except TransferRefused as refused:
            _log.warning("bridge.not-fetched", reason=str(refused))
        async for _ in pieces:
            pass
        await asyncio.to_thread(self._furnish)

    def _furnish(self) -> None:
        place = self._place
        project, stamp = place.carried / layout.PROJECT_DIR, place.own / "skills" / place.folder
        furnish(place.group, place.sessions, project=project, stamp=stamp)

    async def _down(self) -> None:
        while True:
            match await self._channel.receive():
                case Input(name, version, content):
                    if not await asyncio.to_thread(self._inputs.accept, name, version, content):
                        await self._channel.send(Taken(name, version))
                case Snapshot(name, content):
                    await asyncio.to_thread(replace_snapshot, self._place.ipc, name, content)
                case Handled(serial):
                    async with self._telling:
                        await asyncio.to_thread(self._requests.handled, serial)
                case Ask(number):
                    await self._tell()
                    await self._channel.send(Report(number))
                case Go(errand):
                    task = self._tasks.create_task(self._errand(errand), name=f"bridge, errand {errand}")
                    self._errands.add(task)
                    task.add_done_callback(self._errands.discard)
                case Synced():
                    self._place.ready.touch()
                case Bye():
                    return

    async def _errand(self, number: int) -> None:
        """On a connection of its own; what becomes of it does not matter to the stream."""
        place = self._place
        try:
            async with _connected(place) as channel:
                await channel.send(Hello(await asyncio.to_thread(place.token), errand=number))
                await _admitted(channel)
                errands = Errands(place.group, place.sessions, self._furnish)
                await errands.run(channel.speaking(TO_POD, largest=bridge.LARGEST_INPUT))
        except OSError as error:
            _log.info("bridge.errand-over", reason=str(error))
        except Exception:  # noqa: BLE001 - the stream goes on
            _log.exception("bridge.errand-broke")

    async def _up(self) -> None:
        while not self._stopping.is_set():
            await self._tell()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(bridge.POLL):
                    await self._stopping.wait()
        await self._tell()
        await self._channel.send(Report(LAST))

    async def _tell(self) -> None:
        """What the agent took, and what it asks for, that was not told on this stream.

        The first time that is everything it ever took: a report must not come before what an earlier stream lost.
        """
        async with self._telling:
            for entry in await asyncio.to_thread(self._inputs.taken, self._told):
                await self._channel.send(Taken(*entry))
                self._told.add(entry)
            for request in await asyncio.to_thread(self._new_requests):
                await self._channel.send(request)

    def _new_requests(self) -> list[Request]:
        """What was found before a look broke counts as sent from then on, so it goes all the same."""
        found = list[Request]()
        for kind in RequestKind:
            try:
                for request in self._requests.look(kind):
                    found.append(request)
            except OSError as error:  # the agent's own doing; its inputs and other requests go on
                if self._unreadable.get(kind) != str(error):
                    _log.warning("bridge.requests-not-readable", kind=kind, reason=str(error))
                self._unreadable[kind] = str(error)
        return found


async def _admitted(channel: Channel[Down]) -> None:
    """Return when the controller knows whose pod this is. Raises StreamEnded."""
    match await channel.receive(ADMITTED):
        case Welcome():
            pass
        case Refused(reason):
            raise StreamEnded(reason)
        case other:
            raise StreamEnded(f"it begins with {type(other).__name__}")


class _Pieces:
    """Of the archive, to its end. No generator: whoever is cancelled leaves a thread that still reads."""

    def __init__(self, channel: Channel[Down]) -> None:
        self._channel = channel
        self._over = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        while not self._over:
            message = await self._channel.receive()
            if isinstance(message, Piece):
                if message.content:
                    return message.content
                self._over = True
        raise StopAsyncIteration


@contextlib.asynccontextmanager
async def _alone(own: Path) -> AsyncIterator[None]:
    """Not beside another process of the same container, which would have a ledger of its own in mind.

    A kubelet that is behind may start a container again while the one of before still ends.
    """
    await asyncio.to_thread(own.mkdir, parents=True, exist_ok=True)
    with (own / LOCK).open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(FIRST_PAUSE)
        yield


@contextlib.asynccontextmanager
async def _connected(place: Place) -> AsyncIterator[Channel[Down]]:
    host, port = place.address.rsplit(":", 1)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.minimum_version = ssl.TLSVersion.TLSv1_2
    tls.load_verify_locations(cadata=place.certificate)  # nobody else is trusted
    async with asyncio.timeout(CONNECT):
        reader, writer = await asyncio.open_connection(host, int(port), ssl=tls, server_hostname=place.server)
    channel = Channel(reader, writer, DOWN, largest=bridge.LARGEST_INPUT)
    try:
        yield channel
    finally:
        await channel.close()
