"""The groups there are: those of the stack, and those that were added while the controller ran.

A group that is added is written down before anything is made for it that could replace this
process. Until its storage is here it is pending: its messages are accepted and wait. Not here:
which requests of agents may add one (`domain.requests`), and what runs in a group.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final, Protocol

import structlog
from pydantic import ValidationError

from nanoclaw_runtime.contract.config import ContainerConfig, Groups, GroupSpec, Priority
from nanoclaw_runtime.controller.status import Origin, SessionStatus
from nanoclaw_runtime.controller.volumes import GroupVolumes
from nanoclaw_runtime.domain.errors import GroupUnknown, NanoclawError, RegistrationRefused, SessionUnknown
from nanoclaw_runtime.domain.registration import in_the_stack, objection, overruled
from nanoclaw_runtime.store.records import Registration
from nanoclaw_runtime.store.registrations import RegistrationBook

SETTLE: Final = 2.0
# Seconds after a change; groups that are added together cost one new pod.
RETRY: Final = 30.0
# Seconds to the next try when the cluster does not let us mount.

_NOT_ALLOWED: Final = (
    "groups are not added, changed or removed here: the stack does not allow it; "
    "set `runtime.registration: true` there and run `pulumi up`"
)

_log = structlog.get_logger(__name__)


class Sessions(Protocol):
    """What the book has to know of the controller to let a group go."""

    def sessions(self) -> Sequence[SessionStatus]: ...

    async def stop_session(self, session: str) -> None:
        """Raises SessionUnknown."""
        ...


class GroupBook:
    """Every group, by folder and by chat. `load` it before it is asked; `run` keeps the storage mounted."""

    def __init__(
        self, store: RegistrationBook, volumes: GroupVolumes, *, allowed: bool, is_network: Callable[[str], bool]
    ) -> None:
        """`is_network` tells whether a chat is one of a network, where a text for it is posted."""
        self._store = store
        self._volumes = volumes
        self._allowed = allowed
        self._is_network = is_network
        self.on_change: Callable[[], Awaitable[None]] | None = None
        """Called behind every change of the groups."""
        self.complete = asyncio.Event()
        """Set once the stack's groups are known, too: until then nobody can tell whose chat or session one is."""
        self._declared: dict[str, GroupSpec] = {}
        self._registered: dict[str, GroupSpec] = {}
        self._overruled: dict[str, str] = {}
        self._pending: set[str] = set()
        self._turn = asyncio.Lock()
        self._mounts = asyncio.Event()

    # What there is

    def all(self) -> list[GroupSpec]:
        """In the order of their folders."""
        return sorted([*self._declared.values(), *self._added()], key=lambda group: group.folder)

    def by_folder(self, folder: str) -> GroupSpec:
        """Raises GroupUnknown."""
        if folder in self._declared:
            return self._declared[folder]
        if folder in self._registered and folder not in self._overruled:
            return self._registered[folder]
        raise GroupUnknown(folder)

    def by_jid(self, jid: str) -> GroupSpec | None:
        return next((group for group in self.all() if group.jid == jid), None)

    def origin(self, folder: str) -> Origin:
        """Raises GroupUnknown."""
        self.by_folder(folder)
        return Origin.DECLARED if folder in self._declared else Origin.REGISTERED

    def pending(self, folder: str) -> bool:
        """Whether the group waits for its storage, and its messages with it."""
        return folder in self._pending and folder not in self._declared

    # What changes it

    async def load(self) -> None:
        """Take up the groups that were added before. Raises StoreFailed."""
        for row in await self._store.all():
            try:
                group = GroupSpec.model_validate(row.spec)
            except ValidationError as error:
                _log.warning("registered group left out", group=row.folder, problem=error.errors()[0]["msg"])
                continue
            await self._take(group)
        await self._changed()

    async def declare(self, groups: Groups) -> None:
        """These are the groups of the stack from now on."""
        before, self._declared = self._declared, {group.folder: group for group in groups.groups}
        new = sorted(self._declared.keys() - before.keys())
        _log.info("groups declared", groups=sorted(self._declared), new=new)
        self.complete.set()
        await self._changed()

    async def register(self, group: GroupSpec, by: str) -> GroupSpec:
        """Add a group, or write one with the same folder and chat anew; `by` is who asked.

        Raises RegistrationRefused, or StoreFailed.
        """
        async with self._turn:
            self._check_allowed()
            if problem := objection(group, self._declared.values(), self._registered.values()):
                raise RegistrationRefused(problem)
            await self._volumes.provide(group.folder)
            await self._keep(group, by)
        return group

    async def change(
        self,
        folder: str,
        *,
        name: str | None = None,
        requires_trigger: bool | None = None,
        priority: Priority | None = None,
        container_config: ContainerConfig | None = None,
        by: str,
    ) -> GroupSpec:
        """Change what is given. Raises GroupUnknown, RegistrationRefused or StoreFailed."""
        wanted = {
            "name": name,
            "requires_trigger": requires_trigger,
            "priority": priority,
            "container_config": container_config,
        }
        async with self._turn:
            self._check_allowed()
            given = {field: value for field, value in wanted.items() if value is not None}
            group = self._own(folder).model_copy(update=given)
            await self._keep(group, by)
        return group

    async def remove(self, folder: str, sessions: Sessions, *, force: bool = False) -> None:
        """Let a group go; its files, history and conversation stay for the day it is added again.

        Raises GroupUnknown or StoreFailed; RegistrationRefused while it has a session or messages
        wait, unless with `force`: then both end visibly.
        """
        async with self._turn:
            self._check_allowed()
            group = self._own(folder)
            session = next((each.session for each in sessions.sessions() if each.folder == folder), None)
            if session is not None and not force:
                raise RegistrationRefused(
                    f"session {session} of group {folder!r} is alive; stop it first, or remove the group with force"
                )
            jid = group.jid if self._is_network(group.jid) else None
            waiting = await self._store.remove(folder, force=force, jid=jid, at=datetime.now(UTC))
            if waiting and not force:
                raise RegistrationRefused(
                    f"{waiting} messages wait in group {folder!r}; have them answered first, or remove the group "
                    "with force, which gives them up"
                )
            del self._registered[folder]
            self._pending.discard(folder)
            _log.info("group removed", group=folder, given_up=waiting, session=session)
            await self._changed()
        if session is not None:
            with suppress(SessionUnknown):  # it ended by itself
                await sessions.stop_session(session)

    # What keeps its storage

    async def run(self) -> None:
        """Have the storage of the groups that were added mounted, now and after each change."""
        while self._allowed:
            self._mounts.clear()
            mounted = await self._mount()
            with suppress(TimeoutError):
                async with asyncio.timeout(None if mounted else RETRY):
                    await self._mounts.wait()
            await asyncio.sleep(SETTLE)

    async def _mount(self) -> bool:
        try:
            await self._volumes.mount(sorted(self._registered))
        except NanoclawError as error:
            _log.warning("storage of added groups not mounted", reason=str(error), again_in=RETRY)
            return False
        return True

    # Small things

    def _added(self) -> list[GroupSpec]:
        return [group for folder, group in self._registered.items() if folder not in self._overruled]

    def _own(self, folder: str) -> GroupSpec:
        if folder in self._declared:
            raise RegistrationRefused(in_the_stack(folder))
        try:
            return self._registered[folder]
        except KeyError:
            raise GroupUnknown(folder) from None

    def _check_allowed(self) -> None:
        if not self._allowed:
            raise RegistrationRefused(_NOT_ALLOWED)

    async def _keep(self, group: GroupSpec, by: str) -> None:
        spec = group.model_dump(mode="json", by_alias=True)
        await self._store.put(Registration(group.folder, group.jid, spec, datetime.now(UTC), by))
        await self._take(group)
        _log.info("group registered", group=group.folder, by=by, pending=self.pending(group.folder))
        await self._changed()

    async def _take(self, group: GroupSpec) -> None:
        if not await self._volumes.mounted(group.folder):  # asked first: who is known and not pending is served
            self._pending.add(group.folder)
        self._registered[group.folder] = group

    async def _changed(self) -> None:
        before, self._overruled = self._overruled, overruled(self._registered.values(), self._declared.values())
        for folder in sorted(self._overruled.keys() - before.keys()):
            _log.warning(
                "registered group stands back behind the stack's", group=folder, reason=self._overruled[folder]
            )
        self._mounts.set()
        if self.on_change is not None:
            await self.on_change()
