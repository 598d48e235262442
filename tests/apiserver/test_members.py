"""Members on a real API server, with the rights the controller has: who lives, who writes, who has which group."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from datetime import UTC, datetime

import pytest

from nanoclaw_dev.cluster.control_plane import ControlPlane
from nanoclaw_runtime.contract import names
from nanoclaw_runtime.contract.config import Groups, GroupSpec, NodelocalSettings
from nanoclaw_runtime.contract.permissions import CONTROLLER_RULES, NODELOCAL_RULES, Rule
from nanoclaw_runtime.domain.assignment import Assigned, Assignments
from nanoclaw_runtime.kube.client import KubeClient
from nanoclaw_runtime.kube.errors import Conflict
from nanoclaw_runtime.kube.lease import LEASES, Election, Timing, replace
from nanoclaw_runtime.kube.resources import CONFIG_MAPS
from nanoclaw_runtime.members.assigner import Assigner
from nanoclaw_runtime.members.holdings import Holdings
from nanoclaw_runtime.members.membership import Membership
from nanoclaw_runtime.members.presence import DRAIN, Presence, lease_name
from nanoclaw_runtime.members.record import KEY, Edition, Record, RecordInvalid, Replaced, watch_record
from nanoclaw_runtime.telemetry import Metrics
from tests.support.fault_proxy import FaultProxy
from tests.support.objects import config_map

pytestmark = pytest.mark.apiserver

SETTINGS = NodelocalSettings(gone_after=5)
QUICK = Timing(duration=2.0, renew=0.2, margin=0.5)
PATIENCE = 60


@pytest.fixture
def contract_rules() -> tuple[Rule, ...]:
    return CONTROLLER_RULES + NODELOCAL_RULES


def group(folder: str, *, ephemeral: bool = False) -> GroupSpec:
    return GroupSpec(folder=folder, name=folder, ephemeral=ephemeral)


GROUPS = Groups(groups=(*map(group, "abcd"), group("guest", ephemeral=True)))


class Node:
    """One member without its host. `live` until it is cut off."""

    def __init__(self, client: KubeClient, namespace: str, node: str, folder) -> None:
        folder.mkdir(exist_ok=True)
        self.holdings = Holdings(folder)
        self.metrics = Metrics()
        self.presence = Presence(
            client,
            namespace=namespace,
            node=node,
            address=f"{node}:8080",
            gone_after=SETTINGS.gone_after,
            holds=self.holdings.groups,
            identity=f"{node}/1",
        )
        written = Record(client, namespace, node)
        self.membership = Membership(node, SETTINGS, self.presence, self.holdings, written.look)
        election = Election(client, names.ASSIGNER_LEASE, f"{node}/1", namespace=namespace, timing=QUICK)
        assigner = Assigner(
            election,
            written,
            presence=self.presence,
            membership=self.membership,
            settings=SETTINGS,
            metrics=self.metrics,
        )
        self.served: list[str] | None = None
        self._lives = [
            self.presence.run(),
            election.run(),
            assigner.run(),
            self.membership.follow_groups(declared()),
            self.membership.follow_record(watch_record(client, namespace)),
            self._serve(),
        ]

    @contextlib.asynccontextmanager
    async def live(self) -> AsyncIterator[Node]:
        tasks = [asyncio.create_task(life) for life in self._lives]
        try:
            yield self
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self) -> None:
        async for groups in self.membership.own():
            self.served = [each.folder for each in groups.groups]


async def declared() -> AsyncIterator[Groups]:
    yield GROUPS
    await asyncio.Event().wait()


async def until(condition) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.05)


@pytest.fixture
async def three(controller: KubeClient, namespace: str, tmp_path):
    async with contextlib.AsyncExitStack() as lives:
        nodes = {name: Node(controller, namespace, name, tmp_path / name) for name in ("n1", "n2", "n3")}
        cut = {name: await lives.enter_async_context(contextlib.AsyncExitStack()) for name in nodes}
        for name, node in nodes.items():
            await cut[name].enter_async_context(node.live())
        await until(lambda: all(node.served is not None for node in nodes.values()))
        yield nodes, cut


async def record(client: KubeClient, namespace: str) -> Assignments:
    found = await client.get(CONFIG_MAPS, names.ASSIGNMENTS_CONFIG, namespace=namespace)
    return Assignments.model_validate_json(found["data"][KEY])


async def test_three_members_share_the_groups_and_a_lost_one_keeps_all_but_guests(
    three, controller: KubeClient, namespace: str, tmp_path
) -> None:
    nodes, cut = three
    await until(lambda: sum(len(node.served) for node in nodes.values()) == 5)
    before = (await record(controller, namespace)).groups
    lost = before["guest"].node
    await cut[lost].aclose()
    rest = [node for name, node in nodes.items() if name != lost]
    await until(lambda: any("guest" in node.served for node in rest))
    after = (await record(controller, namespace)).groups
    assert {folder for folder in before if before[folder] != after[folder]} == {"guest"}
    assert after["guest"].generation == before["guest"].generation + 1
    stranded = [folder for folder, each in after.items() if each.node == lost]
    await until(lambda: sum(each.metrics.groups_stranded._value.get() for each in rest) == len(stranded))
    assert rest[0].membership.place(stranded[0]).node == lost if stranded else True
    # It comes back with what it had, without the group that went.
    again = Node(controller, namespace, lost, tmp_path / lost)
    async with again.live():
        await until(lambda: again.served is not None)
        assert sorted(again.served) == sorted(stranded)
        await until(lambda: "guest" not in again.holdings.groups())
        assert (await record(controller, namespace)).groups == after


async def test_nobody_counts_as_gone_for_the_time_in_which_the_api_server_was(
    apiserver: ControlPlane, controller: KubeClient, namespace: str, tmp_path
) -> None:
    """All were silent then. Who is first when it is back must not take what the others have."""
    async with FaultProxy(apiserver) as proxy, await KubeClient.connect(proxy.kubeconfig(tmp_path)) as client:
        async with Node(controller, namespace, "n2", tmp_path / "n2").live() as other:
            await until(lambda: other.presence.told)
        presence = alone(client, namespace)
        life = asyncio.create_task(presence.run())

        def silent() -> float:
            return next(each.silent for each in presence.members() if each.node == "n2")

        await until(lambda: "n2" in presence.peers())
        proxy.away = True
        await until(lambda: presence.peers()["n2"].silent > 2 * SETTINGS.gone_after)
        assert silent() < SETTINGS.gone_after
        assert presence.peers()["n2"].address == "n2:8080"
        looks = proxy.requests.count("list")
        proxy.away = False
        await proxy.seen("list", looks + 2)
        assert silent() < SETTINGS.gone_after
        await until(lambda: silent() > SETTINGS.gone_after)  # it is gone indeed
        assert presence.peers()["n2"].address == ""  # an agent's pod may have it now, and wait for our token
        life.cancel()
        await asyncio.gather(life, return_exceptions=True)


async def test_a_member_that_counts_again_looks_what_became_of_its_groups_before_it_takes_them_up(
    apiserver: ControlPlane, controller: KubeClient, namespace: str, tmp_path
) -> None:
    """Its watch of the record may come back later than the API server does."""
    writer = Record(controller, namespace, "n2")

    def of(node: str) -> Assignments:
        guest = Assigned(node=node, since=datetime.now(UTC), generation=1)
        return Assignments(term=1, groups={"guest": guest})

    async def as_watched() -> AsyncGenerator[Edition]:
        yield Edition(of("n1"))
        await asyncio.Event().wait()

    await writer.take()
    found, _ = await writer.read()
    await writer.write(found, of("n1"))
    served: list[list[str]] = []
    async with FaultProxy(apiserver) as proxy, await KubeClient.connect(proxy.kubeconfig(tmp_path)) as client:
        holdings = Holdings(tmp_path)
        presence = alone(client, namespace)
        membership = Membership("n1", SETTINGS, presence, holdings, Record(client, namespace, "n1").look)

        async def serve() -> None:
            async for groups in membership.own():
                served.append([each.folder for each in groups.groups])  # noqa: PERF401 - it never ends

        lives = [presence.run(), membership.follow_groups(declared()), membership.follow_record(as_watched()), serve()]
        tasks = [asyncio.create_task(life) for life in lives]
        await until(lambda: served == [["guest"]])
        proxy.away = True
        await until(lambda: served == [["guest"], []])
        found, _ = await writer.read()
        await writer.write(found, of("n2"))
        proxy.away = False
        await until(lambda: membership.node_of("guest") == "n2" or served[-1])
        assert served == [["guest"], []]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def alone(client: KubeClient, namespace: str) -> Presence:
    """Of `n1`."""
    gone_after = SETTINGS.gone_after
    return Presence(
        client, namespace=namespace, node="n1", address="n1:8080", gone_after=gone_after, holds=dict, identity="n1/1"
    )


async def test_a_lost_record_is_made_anew_from_what_the_nodes_have(three, controller, admin, namespace) -> None:
    nodes, _ = three
    await until(lambda: sum(len(node.served) for node in nodes.values()) == 5)
    before = (await record(controller, namespace)).groups
    held = {name: node.holdings.groups() for name, node in nodes.items()}
    await until(lambda: all(each.holds == held[each.node] for each in nodes["n1"].presence.members()))
    await admin.delete(CONFIG_MAPS, names.ASSIGNMENTS_CONFIG, namespace=namespace)

    async def there() -> bool:
        with contextlib.suppress(Exception):
            return len((await record(controller, namespace)).groups) == 5
        return False

    async with asyncio.timeout(PATIENCE):
        while not await there():
            await asyncio.sleep(0.2)
    after = (await record(controller, namespace)).groups
    assert {folder: each.node for folder, each in after.items()} == {
        folder: each.node for folder, each in before.items()
    }


async def test_an_operator_drains_a_node_and_its_member_does_not_undo_it(three, controller, namespace) -> None:
    nodes, _ = three
    await until(lambda: sum(len(node.served) for node in nodes.values()) == 5)
    home = (await record(controller, namespace)).groups["guest"].node
    while True:
        lease = await controller.get(LEASES, lease_name(home), namespace=namespace)
        lease["metadata"]["annotations"][DRAIN] = "true"
        with contextlib.suppress(Conflict):
            await replace(controller, LEASES, lease, namespace=namespace)
            break
    await until(lambda: any("guest" in node.served for name, node in nodes.items() if name != home))
    await until(lambda: "guest" not in nodes[home].served)
    lease = await controller.get(LEASES, lease_name(home), namespace=namespace)
    assert lease["metadata"]["annotations"][DRAIN] == "true"


async def test_who_was_replaced_writes_no_more(controller: KubeClient, namespace: str) -> None:
    first, second = (Record(controller, namespace, node) for node in ("n1", "n2"))
    await first.take()
    found, content = await first.read()
    await second.take()
    with pytest.raises(Conflict):
        await first.write(found, content)
    with pytest.raises(Replaced):
        await first.read()
    assert (await record(controller, namespace)).writer == "n2"


@pytest.mark.parametrize("data", [{}, {KEY: "{"}, {KEY: '{"groups": {"a": {"node": 3}}}'}], ids=["none", "cut", "odd"])
async def test_a_record_that_cannot_be_read_is_never_written_over(
    admin: KubeClient, controller: KubeClient, namespace: str, data: dict[str, str]
) -> None:
    await admin.create(CONFIG_MAPS, config_map(names.ASSIGNMENTS_CONFIG, **data), namespace=namespace)
    with pytest.raises(RecordInvalid, match="correct it"):
        await Record(controller, namespace, "n1").take()
    found = await admin.get(CONFIG_MAPS, names.ASSIGNMENTS_CONFIG, namespace=namespace)
    assert found.get("data", {}) == data
