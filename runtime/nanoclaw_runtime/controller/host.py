"""The whole host in one place: every part of the controller made, joined and run together.

The parts know each other only through what is handed over here. Where agents run, how groups are
declared and who serves the API is the caller's business (`app`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from nanoclaw_runtime.backends.base import Backend
from nanoclaw_runtime.channels.base import Channel
from nanoclaw_runtime.contract.bridge import BridgeFacts
from nanoclaw_runtime.contract.config import ControllerConfig
from nanoclaw_runtime.controller import parking
from nanoclaw_runtime.controller.controller import Controller
from nanoclaw_runtime.controller.courier import Courier
from nanoclaw_runtime.controller.groups import GroupBook
from nanoclaw_runtime.controller.inbound import ChannelInbound
from nanoclaw_runtime.controller.mounts import permitted_mounts
from nanoclaw_runtime.controller.parking import Parking
from nanoclaw_runtime.controller.plans import Plans
from nanoclaw_runtime.controller.pod_files import PodFiles, Reach, Why, nothing_known
from nanoclaw_runtime.controller.presence import Typing
from nanoclaw_runtime.controller.requests import Effects, RequestDesk
from nanoclaw_runtime.controller.runs import new_session_id
from nanoclaw_runtime.controller.scheduler import Scheduler
from nanoclaw_runtime.controller.session import Surroundings
from nanoclaw_runtime.controller.snapshots import Snapshots
from nanoclaw_runtime.controller.status import Check
from nanoclaw_runtime.controller.transfer import Transfer
from nanoclaw_runtime.controller.volumes import GroupVolumes
from nanoclaw_runtime.domain.errors import GroupUnknown
from nanoclaw_runtime.domain.model import SessionRef
from nanoclaw_runtime.ipc.mailbox import Carrier, Nearby
from nanoclaw_runtime.manifests.identity import fingerprint
from nanoclaw_runtime.store.activity import LastMessages
from nanoclaw_runtime.store.chats import ChatBook
from nanoclaw_runtime.store.outbox import Outbox
from nanoclaw_runtime.store.registrations import RegistrationBook
from nanoclaw_runtime.store.store import Store
from nanoclaw_runtime.store.tasks import TaskBook
from nanoclaw_runtime.store.transfer import TransferBook
from nanoclaw_runtime.telemetry import Metrics


@dataclass(frozen=True)
class Means:
    """What a host is given."""

    config: ControllerConfig
    backend: Backend
    store: Store
    tree: Path
    credentials: Callable[[str], Mapping[str, str]]
    """What agents of a group, given by its folder, get on stdin; read anew for each session."""
    metrics: Metrics
    volumes: GroupVolumes
    channels: Sequence[Channel] = ()
    """Chat networks besides HTTP."""
    checks: Sequence[Callable[[], Check]] = ()
    """Of the place where agents run; part of the controller's own."""
    node: str | None = None
    """The one node agents have to run on."""
    folder_elsewhere: Callable[[str], str | None] = lambda _jid: None
    """The group another host has for a chat: what comes in for it is kept here, to be handed over."""
    carrier: Carrier = field(default_factory=Nearby)
    """Who takes files to agents, where they do not look into our folders."""
    bridge: BridgeFacts | None = None
    """Where agents' pods find the carrier."""
    reach: Reach | None = None
    """The way to the files of groups, where only pods mount them."""
    pod_trouble: Why = nothing_known
    """Why the pod of a group and a session is not ready."""


class Networks:
    """The chat networks as the controller sees them."""

    def __init__(self, channels: Sequence[Channel]) -> None:
        self._channels = channels
        self.presence = Typing(channels)

    def owns(self, jid: str) -> bool:
        """See `controller.Networks`."""
        return any(channel.owns(jid) for channel in self._channels)

    def typing(self, jid: str, *, on: bool) -> None:
        """See `controller.Networks`."""
        self.presence.set(jid, on=on)


class Host:
    """One NanoClaw host. `run` is its life."""

    def __init__(self, means: Means) -> None:
        config, store, metrics = means.config, means.store, means.metrics
        self._channels = means.channels
        self._store = store
        self._folder_elsewhere = means.folder_elsewhere
        self._networks = Networks(means.channels)
        self.chats = ChatBook(store.database)
        self.outbox = Outbox(store.database)
        self.groups = GroupBook(
            RegistrationBook(store.database),
            allowed=config.registration,
            volumes=means.volumes,
            is_network=self._networks.owns,
        )
        tasks = TaskBook(store.database)
        self._snapshots = Snapshots(means.tree, tasks, self.chats, self.groups.all, changed=means.carrier.changed)
        self.tasks = Scheduler(
            tasks,
            zone=config.timezone,
            group=self.groups.by_folder,
            enqueue=self._task_due,
            on_change=self._snapshots.tasks_changed,
        )
        around = Surroundings(
            config=config,
            backend=means.backend,
            store=store,
            tree=means.tree,
            credentials=means.credentials,
            metrics=metrics,
            plans=(plans := Plans(config, permitted_mounts(config, means.tree), means.node, means.bridge)),
            carrier=means.carrier,
            prepare=self._snapshots.write,
        )
        self.parking = Parking(
            parking.Means(
                config=config,
                backend=means.backend,
                tree=means.tree,
                metrics=metrics,
                groups=lambda: [group for group in self.groups.all() if not self.groups.pending(group.folder)],
                busy=self._busy,
                sweep=self._sweep,
                new_session=new_session_id,
                plan=lambda group, session: plans.of(group, SessionRef(group.folder, session), parked=True),
                fingerprint=fingerprint,
                used=LastMessages(store),
                due=tasks.due_in_groups,
            )
        )
        means.backend.make_room = self.parking.make_room
        self.controller = Controller(around, self.groups, self.tasks, self._networks, self.parking, checks=means.checks)
        self.groups.on_change = self.controller.groups_changed
        effects = Effects(
            is_network=self._networks.owns,
            register=self.groups.register,
            refresh_groups=self._snapshots.refresh_groups,
            tasks_changed=self._tasks_changed,
        )
        self._desk = RequestDesk(
            means.tree, store.database, self.groups.all, effects, zone=config.timezone, metrics=metrics
        )
        self._courier = Courier(self.outbox, means.channels, metrics=metrics)
        self._inbound = ChannelInbound(self._accept, self._folder_of, self.chats, assistant_name=config.assistant_name)

        self.transfer = Transfer(
            means.tree,
            TransferBook(store.database),
            config,
            groups=self.groups.all,
            sessions=self.controller.sessions,
            found=self.controller.recovered.is_set,
            taken_in=self._taken_in,
            reservations=self.parking.reservations,
            pods=self._pod_files(means),
        )

    async def run(self) -> None:
        """Everything at once, until cancelled; what runs by itself begins when old sessions are found again.

        These are looked for once all groups are known: what an agent said goes to its group's chat.
        """
        await self.groups.load()
        await self.groups.complete.wait()
        async with asyncio.TaskGroup() as parts:
            parts.create_task(self._networks.presence.run(), name="typing")
            parts.create_task(self.controller.run(), name="controller")
            await self.controller.recovered.wait()
            parts.create_task(self.groups.run(), name="storage of added groups")
            parts.create_task(self.tasks.run(), name="scheduler")
            parts.create_task(self._desk.run(), name="requests of agents")
            parts.create_task(self._courier.run(), name="courier")
            for channel in self._channels:
                parts.create_task(channel.run(self._inbound), name=f"channel {channel.name}")

    def _pod_files(self, means: Means) -> PodFiles | None:
        if means.reach is None:
            return None
        return PodFiles(means.reach, self.parking, self.controller.sessions, means.pod_trouble)

    async def _sweep(self, folder: str) -> None:
        await self.controller.sweep(folder)

    def _busy(self, folder: str) -> bool:
        return self.controller.busy(folder)

    def _task_due(self, folder: str, task: str) -> None:
        self.controller.task_due(folder, task)

    async def _tasks_changed(self, folder: str) -> None:
        self.tasks.changed()
        await self._snapshots.tasks_changed(folder)

    async def _taken_in(self, _folder: str) -> None:
        self.tasks.changed()
        await self.controller.groups_changed()

    def _folder_of(self, jid: str) -> str | None:
        group = self.groups.by_jid(jid)
        return group.folder if group else self._folder_elsewhere(jid)

    async def _accept(
        self, folder: str, text: str, *, sender: str, sender_name: str, client_id: str | None, at: datetime | None
    ) -> object:
        """What a chat network brings in. See `Means.folder_elsewhere`."""
        try:
            return await self.controller.accept(
                folder, text, sender=sender, sender_name=sender_name, client_id=client_id, at=at
            )
        except GroupUnknown:
            return await self._store.add_message(
                folder, text, sender=sender, sender_name=sender_name, client_id=client_id, at=at or datetime.now(UTC)
            )
