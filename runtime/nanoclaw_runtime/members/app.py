"""The process of one member: an ordinary host for its node's groups, and what joins it with the others."""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol, Self

import httpx

from nanoclaw_runtime.api.app import Between
from nanoclaw_runtime.api.members import Forwarding
from nanoclaw_runtime.api.members import client as http_client
from nanoclaw_runtime.api.places import UNSEEN
from nanoclaw_runtime.backends.cluster import ClusterBackend
from nanoclaw_runtime.channels.configured import configured
from nanoclaw_runtime.contract import config as contract
from nanoclaw_runtime.contract import layout, names
from nanoclaw_runtime.contract.config import Groups
from nanoclaw_runtime.controller.host import Means
from nanoclaw_runtime.controller.status import Check
from nanoclaw_runtime.controller.volumes import OneTree
from nanoclaw_runtime.domain.errors import SettingsInvalid
from nanoclaw_runtime.kube.client import KubeClient
from nanoclaw_runtime.kube.groups import watch_groups
from nanoclaw_runtime.kube.lease import Election
from nanoclaw_runtime.members.assigner import Assigner
from nanoclaw_runtime.members.handover import Handover
from nanoclaw_runtime.members.holdings import Holdings
from nanoclaw_runtime.members.membership import Membership
from nanoclaw_runtime.members.presence import Presence
from nanoclaw_runtime.members.record import Record, watch_record
from nanoclaw_runtime.settings import RuntimeSettings
from nanoclaw_runtime.store.store import Store
from nanoclaw_runtime.telemetry import Metrics

LOCK_FILE: Final = "member.lock"


class Serve(Protocol):
    """`app.serve_host`."""

    async def __call__(
        self,
        means: Means,
        groups: AsyncGenerator[Groups],
        token: Callable[[], str],
        *,
        address: str,
        port: int,
        between: Between,
    ) -> None: ...


@dataclass(frozen=True)
class Here:
    """Which member this is."""

    node: str
    address: str
    """Host and port where the others reach it."""

    @classmethod
    def load(cls, environ: Mapping[str, str]) -> Self:
        """Raises SettingsInvalid."""
        node, ip = environ.get(contract.ENV_NODE, ""), environ.get(contract.ENV_POD_IP, "")
        if not node or not ip:
            raise SettingsInvalid(
                f"{contract.ENV_NODE} and {contract.ENV_POD_IP} are not both set; the stack's DaemonSet sets them from "
                "spec.nodeName and status.podIP"
            )
        return cls(node, f"[{ip}]:{names.API_PORT}" if ":" in ip else f"{ip}:{names.API_PORT}")

    def store(self, tree: Path, *, shared: bool) -> Path:
        """The folder of this member's database; where all nodes have one folder, each member has one of its own."""
        directory = tree / layout.STORE_DIR
        return directory / "nodes" / names.slug(self.node) if shared else directory


class Member:
    """The parts that make one host a member; `means` is what that host is given, `lives` run beside it."""

    def __init__(
        self,
        settings: RuntimeSettings,
        here: Here,
        *,
        client: KubeClient,
        http: httpx.AsyncClient,
        store: Store,
        holdings: Holdings,
        watched: Callable[[ClusterBackend], Check],
        metrics: Metrics,
    ) -> None:
        config, node, namespace = settings.config, here.node, settings.namespace
        nodelocal, identity = config.nodelocal, f"{node}/{secrets.token_hex(4)}"
        backend = ClusterBackend(client, namespace, pattern=config.pattern, node=node, apart=not nodelocal.shared)
        presence = Presence(
            client,
            namespace=namespace,
            node=node,
            address=here.address,
            gone_after=nodelocal.gone_after,
            holds=holdings.groups,
            identity=identity,
        )
        record = Record(client, namespace, node)
        self.membership = membership = Membership(node, nodelocal, presence, holdings, record.look)
        election = Election(client, names.ASSIGNER_LEASE, identity, namespace=namespace)
        metrics.watch_age_seconds.labels("pods").set_function(lambda: backend.pods.age)
        self.means = Means(
            config=config,
            backend=backend,
            store=store,
            tree=settings.tree,
            credentials=settings.agent_secrets,
            metrics=metrics,
            volumes=OneTree(),
            channels=configured(
                config.channels,
                settings.channel_secret,
                assistant_name=config.assistant_name,
                turn=lambda: election.held,
            ),
            checks=[lambda: watched(backend), lambda: _presence_check(presence, node)],
            node=node,
            folder_elsewhere=membership.folder_of,
        )
        assigner = Assigner(
            election,
            record,
            presence=presence,
            membership=membership,
            settings=nodelocal,
            metrics=metrics,
        )
        handover = Handover(store, http, settings.api_token, membership.left, node)
        self.lives: dict[str, Coroutine[Any, Any, None]] = {
            "watch of the agents' pods": backend.run(),
            "presence": presence.run(),
            "election": election.run(),
            "assigner": assigner.run(),
            "groups of the stack": membership.follow_groups(watch_groups(client, namespace)),
            "assignments": membership.follow_record(watch_record(client, namespace)),
            "handover": handover.run(),
        }
        """By name; each is awaited once, until it is cancelled."""


async def run(settings: RuntimeSettings, serve: Serve, watched: Callable[[ClusterBackend], Check]) -> None:
    """Be the member of a node until cancelled; `watched` judges how fresh the picture of the cluster is."""
    here = Here.load(os.environ)
    directory = here.store(settings.tree, shared=settings.config.nodelocal.shared)
    url = os.environ.get(contract.ENV_DATABASE_URL) or f"sqlite+aiosqlite:///{directory / layout.DATABASE_FILE}"
    metrics = Metrics()
    async with AsyncExitStack() as stack:
        stack.enter_context(_taken(directory))
        client = await stack.enter_async_context(await KubeClient.connect())
        http = await stack.enter_async_context(http_client())
        store = await Store.open(url, on_error=metrics.database_errors.inc)
        stack.push_async_callback(store.close)
        member = Member(
            settings,
            here,
            client=client,
            http=http,
            store=store,
            holdings=Holdings(directory),
            watched=watched,
            metrics=metrics,
        )
        async with asyncio.TaskGroup() as parts:
            for name, life in member.lives.items():
                parts.create_task(life, name=name)
            await serve(
                member.means,
                member.membership.own(),
                settings.api_token,
                address="0.0.0.0",  # noqa: S104
                port=names.API_PORT,
                between=partial(Forwarding, members=member.membership, http=http),
            )


@contextmanager
def _taken(directory: Path) -> Iterator[None]:
    """Keep every other process out of this member's database, one of a pod that is being replaced, say.

    Raises SettingsInvalid when the folder cannot be used, or somebody else still does.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = os.open(directory / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SettingsInvalid(
            f"{directory} cannot be written ({error.strerror}); runtime.nodeRoot has to be there on each node and "
            "belong to uid 1000"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise SettingsInvalid(f"another controller still works on {directory}; this one is tried again") from error
    finally:
        os.close(lock)


def _presence_check(presence: Presence, node: str) -> Check:
    gone = [peer.node for peer in presence.peers().values() if peer.silent > UNSEEN and peer.node != node]
    others = f"; not seen for a while: {', '.join(sorted(gone))}" if gone else ""
    if presence.believed:
        return Check("member", ok=True, detail=f"node {node} of {len(presence.peers())}{others}")
    return Check("member", ok=False, detail=f"node {node} could not tell the API server that it lives{others}")
