"""One of several processes does something: on a real API server, with the rights the controller has."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp.web import StreamResponse

from nanoclaw_dev.cluster.control_plane import ControlPlane
from nanoclaw_runtime.contract.permissions import CONTROLLER_RULES, NODELOCAL_RULES, Rule
from nanoclaw_runtime.kube.client import KubeClient
from nanoclaw_runtime.kube.errors import Conflict
from nanoclaw_runtime.kube.lease import LEASES, Election, Timing, create_lease, lease_spec, replace
from tests.support import fault_proxy
from tests.support.fault_proxy import Exchange, FaultProxy

pytestmark = pytest.mark.apiserver

NAME = "nanoclaw-assigner"
QUICK = Timing(duration=1.0, renew=0.1, margin=0.4)
STEADY = Timing(duration=5.0, renew=0.2, margin=1.0)
"""Of one that a busy machine does not make lose it."""
CONTENDER = Path(__file__).parent.parent / "support" / "contender.py"
PATIENCE = 60


@pytest.fixture
def contract_rules() -> tuple[Rule, ...]:
    return CONTROLLER_RULES + NODELOCAL_RULES


@contextlib.asynccontextmanager
async def running(election: Election) -> AsyncIterator[Election]:
    life = asyncio.create_task(election.run())
    try:
        yield election
    finally:
        life.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await life


async def until(condition) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.02)


def election(client: KubeClient, namespace: str, who: str, timing: Timing = QUICK) -> Election:
    return Election(client, NAME, who, namespace=namespace, timing=timing)


async def holder(client: KubeClient, namespace: str) -> tuple[str, int]:
    spec = (await client.get(LEASES, NAME, namespace=namespace))["spec"]
    return spec["holderIdentity"], spec["leaseTransitions"]


async def test_one_of_two_holds_the_lease_and_the_other_has_it_as_soon_as_it_is_given_up(
    controller: KubeClient, namespace: str
) -> None:
    patient = Timing(duration=3600, renew=0.1, margin=1)
    first, second = (election(controller, namespace, who, patient) for who in "ab")
    async with contextlib.AsyncExitStack() as lives:
        async with running(first):
            await until(lambda: first.held)
            await lives.enter_async_context(running(second))
            await asyncio.sleep(0.5)  # five looks
            assert first.held
            assert not second.held
        assert not first.held
        await until(lambda: second.held)
        assert await holder(controller, namespace) == ("b", 1)
    assert await holder(controller, namespace) == ("", 1)


async def test_a_lease_that_is_taken_unheard_is_given_up_as_well(
    apiserver: ControlPlane, controller: KubeClient, namespace: str, tmp_path: Path
) -> None:
    """The process ends between its write and the answer; the next one would wait for as long as for a dead one."""
    await create_lease(controller, NAME, lease_spec("", 1), namespace=namespace)
    patient = Timing(duration=3600, renew=PATIENCE, margin=1)
    async with FaultProxy(apiserver) as proxy, await KubeClient.connect(proxy.kubeconfig(tmp_path)) as client:
        proxy.spoil("call", fault_proxy.forward, fault_proxy.half_open(after=0))  # it looks, and takes it
        async with running(election(client, namespace, "a", patient)) as unheard, asyncio.timeout(PATIENCE):
            while await holder(controller, namespace) != ("a", 1):
                await asyncio.sleep(0.02)
            assert not unheard.held
    assert await holder(controller, namespace) == ("", 1)


async def test_a_holder_that_died_is_replaced_whatever_the_times_in_its_lease_say(
    controller: KubeClient, namespace: str
) -> None:
    spec = lease_spec("dead", 1) | {"renewTime": "2099-01-01T00:00:00.000000Z"}
    await create_lease(controller, NAME, spec, namespace=namespace)
    async with running(election(controller, namespace, "a")) as alive:
        await until(lambda: alive.held)
        assert await holder(controller, namespace) == ("a", 1)


async def test_a_lease_that_is_renewed_is_not_taken_however_old_its_times_are(
    apiserver: ControlPlane, controller: KubeClient, namespace: str, tmp_path: Path
) -> None:
    """Renewed behind each look, so that however slow we are no look finds it as the last one did."""
    old = "1999-01-01T00:00:00.{:06}Z"
    made = await create_lease(
        controller, NAME, lease_spec("slow", 1) | {"renewTime": old.format(0)}, namespace=namespace
    )
    times = itertools.count(1)

    async def renewed(exchange: Exchange) -> StreamResponse:
        nonlocal made
        beat = made | {"spec": made["spec"] | {"renewTime": old.format(next(times))}}
        made = await replace(controller, LEASES, beat, namespace=namespace)
        return await fault_proxy.forward(exchange)

    async with FaultProxy(apiserver) as proxy, await KubeClient.connect(proxy.kubeconfig(tmp_path)) as client:
        proxy.spoil("call", *[renewed] * 20)  # twice as many looks as one that is not renewed would last
        async with running(election(client, namespace, "a")) as waiting:
            await until(lambda: proxy.unused == 0)
            assert not waiting.held
    assert await holder(controller, namespace) == ("slow", 0)


async def test_a_process_that_wakes_from_a_freeze_knows_that_it_lost_before_it_does_anything(
    controller: KubeClient, controller_kubeconfig: Path, namespace: str
) -> None:
    frozen = await asyncio.create_subprocess_exec(
        sys.executable, CONTENDER, controller_kubeconfig, namespace, NAME, "frozen", stdout=asyncio.subprocess.PIPE
    )
    assert frozen.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE):
            assert await frozen.stdout.readline() == b"held True\n"
            frozen.send_signal(signal.SIGSTOP)
            async with running(election(controller, namespace, "a", STEADY)) as other:
                await until(lambda: other.held)
                frozen.send_signal(signal.SIGCONT)
                # Its first look at the clock says so, without any call.
                assert await frozen.stdout.readline() == b"held False\n"
                await asyncio.sleep(1)
                assert other.held
                assert (await holder(controller, namespace))[0] == "a"
    finally:
        frozen.kill()
        await frozen.communicate()


async def test_two_processes_that_fight_never_hold_it_at_the_same_time(
    admin: KubeClient, controller_kubeconfig: Path, namespace: str, tmp_path: Path
) -> None:
    """Each notes when it looked and held the lease; the spans must not overlap."""
    record = tmp_path / "record"
    contenders = {
        who: await asyncio.create_subprocess_exec(
            sys.executable, CONTENDER, controller_kubeconfig, namespace, NAME, who, record
        )
        for who in "ab"
    }
    try:
        for _ in range(4):
            await _next_holder_frozen(admin, namespace, contenders, record)
    finally:
        for contender in contenders.values():
            contender.send_signal(signal.SIGCONT)
            contender.terminate()
            await contender.wait()
    found = sorted(spans(record).values())
    assert len(found) >= 4
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(found))


async def _next_holder_frozen(client: KubeClient, namespace: str, processes, record: Path) -> None:
    """Freeze whoever has it, and knows, until the other one has."""
    async with asyncio.timeout(PATIENCE):
        since = time.monotonic()
        while (who := _at_work(record, since)) is None:
            await asyncio.sleep(0.02)
        processes[who].send_signal(signal.SIGSTOP)
        while (await holder(client, namespace))[0] in {who, ""}:
            await asyncio.sleep(0.1)
        processes[who].send_signal(signal.SIGCONT)


def _at_work(record: Path, moment: float) -> str | None:
    """Who has looked more than once and held it, the last time behind this moment."""
    return next((who for (who, _), span in spans(record).items() if span[0] < span[1] > moment), None)


def spans(record: Path) -> dict[tuple[str, str], tuple[float, float]]:
    """From the first look to the last, by who had it and since when."""
    found = {}
    if record.exists():
        for line in record.read_text().split("\n")[:-1]:  # behind the last newline one may be half written
            who, since, now = line.split()
            found[who, since] = float(since), float(now)
    return found


async def test_a_write_on_what_somebody_else_changed_meanwhile_is_refused(
    controller: KubeClient, namespace: str
) -> None:
    read = await create_lease(controller, NAME, lease_spec("a", 1), namespace=namespace)
    await replace(controller, LEASES, read | {"spec": lease_spec("b", 1)}, namespace=namespace)
    with pytest.raises(Conflict):
        await replace(controller, LEASES, read | {"spec": lease_spec("a", 1)}, namespace=namespace)
    assert (await holder(controller, namespace))[0] == "b"
