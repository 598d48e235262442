"""Looks for what agents ask of their host, and sees to it that what is allowed is done once.

A look takes one group after the other, messages before tasks, one file at a time. What happens in
the database is committed with the file's key before the file goes; what happens elsewhere may
happen twice and must not mind. Agents never hear what became of a request.
Not here: who may ask for what (`domain.requests`), what lies in the folders (`ipc.requests`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Final

import structlog

from nanoclaw_runtime.contract.config import GroupSpec
from nanoclaw_runtime.controller.scheduler import new_task_id
from nanoclaw_runtime.domain import recurrence
from nanoclaw_runtime.domain.errors import NanoclawError, StoreFailed
from nanoclaw_runtime.domain.requests import (
    ChangeTask,
    Known,
    RefreshGroups,
    Refused,
    RegisterGroup,
    RequestKind,
    ScheduleTask,
    SendMessage,
    UpdateTask,
    decide,
    named_task,
)
from nanoclaw_runtime.domain.tasks import TaskKind, TaskState
from nanoclaw_runtime.ipc.requests import RequestFile, RequestFolder
from nanoclaw_runtime.store import requests as statements
from nanoclaw_runtime.store.database import Database, Work
from nanoclaw_runtime.store.records import Task
from nanoclaw_runtime.store.requests import RequestBook
from nanoclaw_runtime.telemetry import Metrics

POLL: Final = 1.0
"""Seconds from the end of a look to the next, as NanoClaw has it."""
FORGET: Final = timedelta(hours=1)
# Between two times that old keys are dropped.

_log = structlog.get_logger(__name__)


class Outcome(StrEnum):
    DONE = "done"
    REPEATED = "repeated"
    """It was done before, and only the file was left."""
    REFUSED = "refused"
    """Not allowed, or incomplete; the file is removed."""
    QUARANTINED = "quarantined"
    """Unreadable, or handling it broke; a human finds the file in `ipc.requests.ERRORS_DIR`."""


@dataclass(frozen=True)
class Effects:
    """What requests bring about besides their records. All of it may be done again without harm."""

    is_network: Callable[[str], bool]
    """Whether some chat network has this chat."""
    register: Callable[[GroupSpec, str], Awaitable[object]]
    """Add or change a group; the second argument is the folder of who asked. Raises RegistrationRefused."""
    refresh_groups: Callable[[], Awaitable[None]]
    """Tell main's agent anew which chats there are."""
    tasks_changed: Callable[[str], Awaitable[None]]
    """The tasks of a group are others now."""


@dataclass(frozen=True)
class Verdict:
    """What became of one file, and why if it is not done."""

    outcome: Outcome
    reason: str | None = None


_DONE: Final = Verdict(Outcome.DONE)


class RequestDesk:
    """The requests of all groups. `run` is its life; `groups` are those that are served, `zone` the time zone."""

    def __init__(
        self,
        tree: Path,
        database: Database,
        groups: Callable[[], Sequence[GroupSpec]],
        effects: Effects,
        *,
        zone: str,
        metrics: Metrics,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._tree = tree
        self._book = RequestBook(database)
        self._groups = groups
        self._effects = effects
        self._zone = zone
        self._metrics = metrics
        self._now = now
        self._folders: dict[tuple[str, RequestKind], RequestFolder] = {}
        self._broken: dict[tuple[str, RequestKind], str] = {}
        self._changed: set[str] = set()
        self._forgot: datetime | None = None

    async def run(self) -> None:
        """Look, wait a second, look again, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(POLL)

    async def look(self) -> None:
        """Take what lies there. Without a database everything stays for the next look."""
        try:
            await self._forget()
            for group in self._groups():
                for kind in RequestKind:
                    await self._serve(group, kind)
                await self._tell_of_tasks()
        except StoreFailed as error:
            _log.error("agents' requests wait", reason=str(error))

    async def _forget(self) -> None:
        now = self._now()
        if self._forgot is None or now - self._forgot >= FORGET:
            await self._book.forget(now)
            self._forgot = now

    async def _serve(self, group: GroupSpec, kind: RequestKind) -> None:
        """One directory of a group. One that is broken does not hold up the others, and is told of once."""
        place = (group.folder, kind)
        folder = self._folders.setdefault(place, RequestFolder(self._tree, group.folder, kind))
        try:
            for name in await asyncio.to_thread(folder.names):
                if (file := await asyncio.to_thread(folder.read, name)) is not None:
                    await self._take(group, folder, file)
        except OSError as error:
            if self._broken.get(place) != str(error):
                _log.warning("agent's requests not readable", group=group.folder, kind=kind, error=str(error))
            self._broken[place] = str(error)
        else:
            self._broken.pop(place, None)

    async def _take(self, group: GroupSpec, folder: RequestFolder, file: RequestFile) -> None:
        log = _log.bind(group=group.folder, kind=folder.kind, file=file.plain_name)
        try:
            verdict = await self._verdict(group.folder, folder.kind, file)
        except StoreFailed:
            raise
        except NanoclawError as error:
            verdict = Verdict(Outcome.REFUSED, str(error))
        except Exception:  # the next file may be a good one
            log.exception("agent's request broke")
            verdict = Verdict(Outcome.QUARANTINED, "it broke in the controller")
        self._metrics.agent_requests.labels(verdict.outcome).inc()
        level = logging.INFO if verdict.reason is None else logging.WARNING
        log.log(level, "agent's request taken", outcome=verdict.outcome, reason=verdict.reason)
        remove = folder.quarantine if verdict.outcome is Outcome.QUARANTINED else folder.done
        if not await asyncio.to_thread(remove, file):
            log.warning("agent's request stays where it is, and is not looked at again")

    async def _verdict(self, source: str, kind: RequestKind, file: RequestFile) -> Verdict:
        if file.problem is not None:
            return Verdict(Outcome.QUARANTINED, file.problem)
        match decide(source, kind, file.document, await self._known(file)):
            case Refused(reason):
                return Verdict(Outcome.REFUSED, reason)
            case SendMessage() as message:
                return await self._send(source, message, file.key)
            case ScheduleTask() | ChangeTask() | UpdateTask() as request:
                return await self._change_tasks(request, file.key)
            case RefreshGroups():
                await self._effects.refresh_groups()
            case RegisterGroup(group):
                await self._effects.register(group, source)
        return _DONE

    async def _known(self, file: RequestFile) -> Known:
        task = named_task(file.document)
        folder = await self._book.task_folder(task) if task else None
        return Known(self._groups(), {task: folder} if task and folder else {})

    async def _send(self, source: str, message: SendMessage, key: str) -> Verdict:
        now, network = self._now(), self._effects.is_network(message.jid)
        if message.folder is None and not network:
            return Verdict(Outcome.QUARANTINED, "no chat network that is connected has its chatJid")
        done = await self._book.carry_out(
            key,
            lambda connection: statements.send(connection, source, message, key=key, network=network, at=now),
            at=now,
        )
        return _DONE if done else Verdict(Outcome.REPEATED)

    async def _change_tasks(self, request: ScheduleTask | ChangeTask | UpdateTask, key: str) -> Verdict:
        done = await self._book.carry_out(key, self._task_work(request), at=self._now())
        self._changed.add(request.folder)  # of what is repeated, too: who did it may have died before it told
        return _DONE if done else Verdict(Outcome.REPEATED)

    async def _tell_of_tasks(self) -> None:
        """Once for all the changes of a group's requests: telling takes time, and an agent may ask for a hundred."""
        while self._changed:
            folder = self._changed.pop()
            try:
                await self._effects.tasks_changed(folder)
            except Exception:  # noqa: BLE001 - the task is committed, whoever could not be told of it
                _log.exception("change of tasks not told", group=folder)

    def _task_work(self, request: ScheduleTask | ChangeTask | UpdateTask) -> Work[None]:
        match request:
            case ScheduleTask():
                task = self._task(request)
                return lambda connection: statements.schedule(connection, task)
            case ChangeTask():
                return lambda connection: statements.change(connection, request)
            case UpdateTask():
                return lambda connection: statements.update(connection, request, self._first_run)

    def _task(self, request: ScheduleTask) -> Task:
        """Raises TaskInvalid."""
        now = self._now()
        return Task(
            id=request.task or new_task_id(now),
            folder=request.folder,
            jid=request.jid,
            prompt=request.prompt,
            kind=request.kind,
            value=request.value,
            context=request.context,
            state=TaskState.ACTIVE,
            next_run=self._first_run(request.kind, request.value),
            last_run=None,
            last_result=None,
            created=now,
        )

    def _first_run(self, kind: TaskKind, value: str) -> datetime:
        return recurrence.first_run(kind, value, now=self._now(), zone=self._zone)
