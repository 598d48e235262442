"""A watch that cannot freeze: whatever happens on the way, the picture is right in the end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from nanoclaw_dev.cluster.control_plane import ControlPlane
from nanoclaw_runtime.kube import watch as watch_module
from nanoclaw_runtime.kube.client import KubeClient
from nanoclaw_runtime.kube.deadline import Deadline
from nanoclaw_runtime.kube.errors import DeadlineExceeded, Target, Unavailable
from nanoclaw_runtime.kube.reflector import Reflector
from nanoclaw_runtime.kube.resources import CONFIG_MAPS, ConfigMap
from nanoclaw_runtime.kube.watch import Pace
from tests.support import fault_proxy
from tests.support.fault_proxy import Fault, FaultProxy
from tests.support.objects import config_map

pytestmark = pytest.mark.apiserver

PATIENCE = 60.0
QUICK = Pace(watch=2, silence=2.0)
# A watch that ends and is given up soon, so that every way of ending happens within a test.
ENDLESS = Pace(watch=600, silence=600.0)
# Here neither its end nor the watchdog repairs anything.


@pytest.fixture
async def proxy(apiserver: ControlPlane) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(apiserver) as running:
        yield running


@pytest.fixture
async def proxied(proxy: FaultProxy, tmp_path: Path) -> AsyncIterator[KubeClient]:
    async with await KubeClient.connect(proxy.kubeconfig(tmp_path)) as client:
        yield client


@contextlib.asynccontextmanager
async def watching(client: KubeClient, namespace: str, *, pace: Pace = QUICK) -> AsyncIterator[Reflector[ConfigMap]]:
    reflector = Reflector(client, CONFIG_MAPS, ConfigMap, namespace=namespace, labels="test=yes", pace=pace)
    task = asyncio.create_task(reflector.run(), name="reflector")
    try:
        await reflector.synced(Deadline.after(PATIENCE))
        yield reflector
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def labelled(name: str, **data: str) -> dict:
    made = config_map(name, **data)
    made["metadata"]["labels"] = {"test": "yes"}
    return made


async def change(client: KubeClient, namespace: str, name: str, **data: str) -> None:
    path = CONFIG_MAPS.path(namespace, name)
    await client.request("PUT", path, Target("update", "configmaps"), body=labelled(name, **data))


async def live_through_a_day(client: KubeClient, namespace: str) -> None:
    """Objects come, change, go, and come again under the same name."""
    await client.create(CONFIG_MAPS, labelled("stays"), namespace=namespace)
    await client.create(CONFIG_MAPS, labelled("goes"), namespace=namespace)
    await change(client, namespace, "stays", now="second")
    await client.delete(CONFIG_MAPS, "goes", namespace=namespace)
    await client.create(CONFIG_MAPS, labelled("returns", now="first"), namespace=namespace)
    await client.delete(CONFIG_MAPS, "returns", namespace=namespace)
    await client.create(CONFIG_MAPS, labelled("returns", now="second"), namespace=namespace)
    await client.create(CONFIG_MAPS, labelled("last"), namespace=namespace)


async def settle(reflector: Reflector[ConfigMap], client: KubeClient, namespace: str) -> None:
    """Return when the cache shows exactly what the API server has."""
    deadline = Deadline.after(PATIENCE)
    await reflector.until("last", lambda item: item is not None, deadline)
    await reflector.until("goes", lambda item: item is None, deadline)
    await reflector.until("stays", lambda item: item is not None and item.data == {"now": "second"}, deadline)
    await reflector.until("returns", lambda item: item is not None and item.data == {"now": "second"}, deadline)
    truth = await client.list(CONFIG_MAPS, namespace=namespace, labels="test=yes")
    assert {name: item.metadata.resource_version for name, item in reflector.objects.items()} == {
        item["metadata"]["name"]: item["metadata"]["resourceVersion"] for item in truth
    }


GONE_EVENT = b'{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired","message":"too old"}}'


@pytest.mark.parametrize(
    "faults",
    [
        pytest.param([], id="nothing"),
        pytest.param([fault_proxy.drop(after=0)], id="drop-at-once"),
        pytest.param([fault_proxy.drop(after=2), fault_proxy.drop(after=1)], id="drop-in-between"),
        pytest.param([fault_proxy.half_open(after=0)], id="half-open"),
        pytest.param([fault_proxy.half_open(after=3)], id="half-open-later"),
        pytest.param([fault_proxy.silent_from_the_start()], id="no-headers"),
        pytest.param([fault_proxy.drip()], id="bytes-but-no-event"),
        pytest.param([fault_proxy.answer(410, reason="Expired")], id="gone-as-status"),
        pytest.param([fault_proxy.event(GONE_EVENT)], id="gone-as-event"),
        pytest.param([fault_proxy.answer(429, headers={"Retry-After": "1"})], id="throttled"),
        pytest.param([fault_proxy.answer(500), fault_proxy.answer(503)], id="server-errors"),
        pytest.param([fault_proxy.answer(403)], id="forbidden-for-a-moment"),
        pytest.param([fault_proxy.crumbs(7)], id="crumbs"),
        pytest.param([fault_proxy.truncate(after=1)], id="truncated-line"),
        pytest.param([fault_proxy.event(b"<html>not for you</html>")], id="not-json"),
        pytest.param([fault_proxy.repeat_each()], id="duplicated"),
        pytest.param([fault_proxy.swap_pairs()], id="reordered"),
    ],
)
async def test_the_picture_is_right_in_the_end(
    admin: KubeClient, proxied: KubeClient, proxy: FaultProxy, namespace: str, faults: list[Fault]
) -> None:
    proxy.spoil("watch", *faults)
    async with watching(proxied, namespace) as reflector:
        await live_through_a_day(admin, namespace)
        await settle(reflector, admin, namespace)
    assert proxy.unused == 0


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(fault_proxy.half_open(after=0), id="half-open"),
        pytest.param(fault_proxy.drip(), id="bytes-but-no-event"),
        pytest.param(fault_proxy.answer(410), id="gone-as-status"),
        pytest.param(fault_proxy.event(GONE_EVENT), id="gone-as-event"),
    ],
)
async def test_what_vanished_meanwhile_is_told_as_a_deletion(
    admin: KubeClient, proxied: KubeClient, proxy: FaultProxy, namespace: str, fault: Fault
) -> None:
    await admin.create(CONFIG_MAPS, labelled("goes"), namespace=namespace)
    # The first watch shows nothing; only the list behind it can tell that the object is gone.
    proxy.spoil("watch", fault)
    async with watching(proxied, namespace) as reflector:
        assert "goes" in reflector.objects
        await admin.delete(CONFIG_MAPS, "goes", namespace=namespace)
        assert await reflector.until("goes", lambda item: item is None, Deadline.after(PATIENCE)) is None
        assert "goes" not in reflector.objects


async def test_an_event_that_comes_too_late_is_not_lost(
    admin: KubeClient, proxied: KubeClient, proxy: FaultProxy, namespace: str
) -> None:
    proxy.spoil("watch", fault_proxy.swap_pairs())
    async with watching(proxied, namespace, pace=ENDLESS) as reflector:
        await admin.create(CONFIG_MAPS, labelled("first"), namespace=namespace)
        await admin.create(CONFIG_MAPS, labelled("second"), namespace=namespace)
        assert await reflector.until("first", lambda item: item is not None, Deadline.after(PATIENCE))
        assert await reflector.until("second", lambda item: item is not None, Deadline.after(PATIENCE))


async def test_an_event_that_comes_too_late_brings_nothing_back(
    admin: KubeClient, proxied: KubeClient, proxy: FaultProxy, namespace: str
) -> None:
    await admin.create(CONFIG_MAPS, labelled("goes"), namespace=namespace)
    proxy.spoil("watch", fault_proxy.swap_pairs())
    async with watching(proxied, namespace, pace=ENDLESS) as reflector:
        await change(admin, namespace, "goes", now="changed")
        await admin.delete(CONFIG_MAPS, "goes", namespace=namespace)
        await reflector.until("goes", lambda item: item is None, Deadline.after(PATIENCE))
        await admin.create(CONFIG_MAPS, labelled("last"), namespace=namespace)
        await reflector.until("last", lambda item: item is not None, Deadline.after(PATIENCE))
        assert set(reflector.objects) == {"last"}


async def test_a_quiet_watch_that_ends_is_taken_up_again_at_once(
    proxied: KubeClient, proxy: FaultProxy, namespace: str
) -> None:
    """Where nothing happens there is no bookmark either: with a longer pause behind each one this took minutes."""
    async with watching(proxied, namespace, pace=Pace(watch=1, silence=600.0)) as reflector:
        async with asyncio.timeout(PATIENCE):
            await proxy.seen("watch", 15)
        assert reflector.relists == 0
        assert proxy.requests.count("list") == 1


@pytest.mark.parametrize(
    "mute", [fault_proxy.instead(b""), fault_proxy.instead(b"\n", cut=True)], ids=["ended", "broken off"]
)
async def test_a_watch_that_is_answered_and_told_nothing_is_not_believed_for_long(
    admin: KubeClient, proxied: KubeClient, proxy: FaultProxy, namespace: str, mute: Fault
) -> None:
    """So does a server whose history was set back: what happens there has versions that we had long ago."""
    proxy.spoil("watch", *[mute] * 1000)
    async with watching(proxied, namespace) as reflector:
        await admin.create(CONFIG_MAPS, labelled("one"), namespace=namespace)
        assert await reflector.until("one", lambda item: item is not None, Deadline.after(PATIENCE))


async def test_a_list_that_fails_is_tried_again(
    admin: KubeClient, proxied: KubeClient, proxy: FaultProxy, namespace: str
) -> None:
    await admin.create(CONFIG_MAPS, labelled("one"), namespace=namespace)
    failures = [
        fault_proxy.answer(500),
        fault_proxy.drop(after=0),
        fault_proxy.answer(429, headers={"Retry-After": "0"}),
    ]
    proxy.spoil("list", *failures)
    async with watching(proxied, namespace) as reflector:
        assert set(reflector.objects) == {"one"}


async def test_a_history_that_ends_between_two_pages_is_listed_anew(
    admin: KubeClient, proxied: KubeClient, proxy: FaultProxy, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_module, "PAGE", 2)
    for number in range(5):
        await admin.create(CONFIG_MAPS, labelled(f"page-{number}"), namespace=namespace)
    proxy.spoil("list", fault_proxy.forward, fault_proxy.answer(410, reason="Expired"))
    async with watching(proxied, namespace) as reflector:
        assert len(reflector.objects) == 5


async def test_an_object_larger_than_any_buffer_passes(admin: KubeClient, namespace: str) -> None:
    async with watching(admin, namespace) as reflector:
        await admin.create(CONFIG_MAPS, labelled("large", text="x" * 900_000), namespace=namespace)
        found = await reflector.until("large", lambda item: item is not None, Deadline.after(PATIENCE))
        assert found is not None
        assert len((found.data or {})["text"]) == 900_000


async def test_a_condition_that_raises_hurts_only_who_asked(admin: KubeClient, namespace: str) -> None:
    async with watching(admin, namespace) as reflector:
        broken = asyncio.create_task(
            reflector.until("one", lambda item: bool(item) and 1 / 0, Deadline.after(PATIENCE))
        )
        whole = asyncio.create_task(reflector.find(lambda item: item.metadata.name == "one", Deadline.after(PATIENCE)))
        await asyncio.sleep(0)
        await admin.create(CONFIG_MAPS, labelled("one"), namespace=namespace)
        with pytest.raises(ZeroDivisionError):
            await broken
        assert (await whole).metadata.name == "one"
        await admin.create(CONFIG_MAPS, labelled("two"), namespace=namespace)
        assert await reflector.until("two", lambda item: item is not None, Deadline.after(PATIENCE))


async def test_waiting_ends_with_the_deadline(admin: KubeClient, namespace: str) -> None:
    async with watching(admin, namespace) as reflector:
        with pytest.raises(DeadlineExceeded, match="wait for configmaps"):
            await reflector.until("never", lambda item: item is not None, Deadline.after(0.05))


async def test_calls_are_repeated_until_they_are_served(
    admin: KubeClient, proxied: KubeClient, proxy: FaultProxy, namespace: str
) -> None:
    await admin.create(CONFIG_MAPS, labelled("one"), namespace=namespace)
    proxy.spoil(
        "call",
        fault_proxy.answer(500),
        fault_proxy.answer(429, headers={"Retry-After": "0"}),
        fault_proxy.drop(after=0),
    )
    assert (await proxied.get(CONFIG_MAPS, "one", namespace=namespace))["metadata"]["name"] == "one"
    assert proxy.requests == ["call"] * 4


async def test_a_create_whose_answer_is_lost_happens_once(
    admin: KubeClient, proxied: KubeClient, proxy: FaultProxy, namespace: str
) -> None:
    proxy.spoil("call", fault_proxy.drop(after=0))  # the API server has served it by then
    made = await proxied.create(CONFIG_MAPS, labelled("one"), namespace=namespace, identity="test")
    [only] = await admin.list(CONFIG_MAPS, namespace=namespace, labels="test=yes")
    assert made["metadata"]["uid"] == only["metadata"]["uid"]


async def test_a_server_that_never_recovers_is_given_up(proxied: KubeClient, proxy: FaultProxy, namespace: str) -> None:
    proxy.spoil("call", *[fault_proxy.answer(503)] * 20)
    with pytest.raises(Unavailable, match="told by the proxy"):
        await proxied.get(CONFIG_MAPS, "one", namespace=namespace)
    assert proxy.unused > 0


async def test_a_call_ends_with_its_deadline(proxied: KubeClient, proxy: FaultProxy, namespace: str) -> None:
    proxy.spoil("call", fault_proxy.silent_from_the_start())
    with pytest.raises(DeadlineExceeded):
        await proxied.get(CONFIG_MAPS, "one", namespace=namespace, deadline=Deadline.after(0.2))


async def test_longer_waits_than_the_deadline_are_not_begun(
    proxied: KubeClient, proxy: FaultProxy, namespace: str
) -> None:
    proxy.spoil("call", fault_proxy.answer(429, headers={"Retry-After": "3600"}))
    with pytest.raises(Exception, match="told by the proxy") as caught:
        await proxied.get(CONFIG_MAPS, "one", namespace=namespace)
    assert caught.value.retry_after == 3600
