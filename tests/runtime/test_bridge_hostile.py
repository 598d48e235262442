"""Whoever can reach the controller's port, and an agent's pod that does not keep to the protocol."""

import asyncio
import contextlib
import gc
import socket
import ssl
import stat
from datetime import UTC, datetime, timedelta

import pytest

from nanoclaw_runtime.bridge import certificate, listener, protocol
from nanoclaw_runtime.bridge.protocol import (
    DOWN,
    Alive,
    Channel,
    Form,
    Hello,
    Refused,
    Report,
    Request,
    StreamEnded,
    Synced,
    Taken,
    Welcome,
)
from nanoclaw_runtime.contract import bridge
from tests.support.bridged import HOST, PATIENCE, Bridged, until


@pytest.fixture
async def bridged(tmp_path):
    async with Bridged.open(tmp_path) as opened:
        yield opened


@contextlib.asynccontextmanager
async def connected(bridged, tls=None):
    if tls is None:
        tls = ssl.create_default_context(cadata=bridged.certificate.pem)
    reader, writer = await asyncio.open_connection("127.0.0.1", bridged.port, ssl=tls, server_hostname=HOST)
    channel = Channel(reader, writer, DOWN, largest=bridge.LARGEST_INPUT)
    try:
        yield channel
    finally:
        await channel.close()


@contextlib.asynccontextmanager
async def admitted(bridged, token="team s1"):
    """A stream that has begun as it should."""
    async with connected(bridged) as channel:
        await channel.send(Hello(token, carried=True))
        assert isinstance(await channel.receive(), Welcome)
        while not isinstance(await channel.receive(), Synced):
            pass
        yield channel


async def ends(channel):
    with contextlib.suppress(StreamEnded):
        while True:
            await channel.receive(10)


def request(**changes):
    given = {"serial": 1, "kind": "tasks", "name": b"1.json", "modified": 1, "form": Form.FILE, "content": b"{}"}
    return Request(**(given | changes))


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


# At the door


async def test_who_is_no_pod_of_a_session_hears_why_and_nothing_else(bridged):
    bridged.refusal = "the token is none"
    async with connected(bridged) as channel:
        await channel.send(Hello("team s1"))
        assert await channel.receive() == Refused("the token is none")
        await ends(channel)
    assert bridged.metrics.registry.get_sample_value("nanoclaw_bridge_refused_total") == 1


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(b"\xff\xff\xff\xff", id="a length beyond all bounds"),
        pytest.param((bridge.LARGEST_HELLO + 1).to_bytes(4, "big"), id="a hello that is too long"),
        pytest.param(b"\0\0\0\1\xc1", id="no MessagePack"),
        pytest.param(b"\0\0\0\3" + b"\x92\x01\x02", id="no message"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="HTTP"),
        pytest.param(b"\0\0\0\x15" + b"\x82\xa4type\xa5hello\xa5token\xa2\xff\xfe", id="text that is no UTF-8"),
    ],
)
async def test_a_first_word_that_is_none_ends_the_connection_and_no_other(bridged, first):
    async with connected(bridged) as channel:
        channel._writer.write(first)
        await ends(channel)
    async with admitted(bridged):
        assert bridged.streams == 1


async def test_what_breaks_on_one_connection_leaves_the_others(bridged, monkeypatch):
    async with admitted(bridged):
        with monkeypatch.context() as broken, contextlib.suppress(StreamEnded):
            broken.setattr(bridged, "_identify", None)
            broken.setattr(bridged.server, "_identify", None)
            async with admitted(bridged, "main s2"):
                pass
        assert bridged.streams == 1
    async with admitted(bridged):
        pass


async def test_who_never_ends_its_hello_is_not_waited_for(bridged, monkeypatch):
    monkeypatch.setattr("nanoclaw_runtime.bridge.server.HELLO", 0.1)
    async with connected(bridged) as channel, asyncio.timeout(10):
        channel._writer.write(b"\0\0\1\0")
        assert await channel._reader.read() == b""


async def test_connections_that_come_all_at_once_are_counted_one_by_one(bridged, monkeypatch):
    monkeypatch.setattr(listener, "PER_ADDRESS", 3)
    monkeypatch.setattr(listener, "HANDSHAKE", 3 * PATIENCE)  # so that those that are let in stay
    with contextlib.ExitStack() as stack:
        lines = [stack.enter_context(socket.create_connection(("127.0.0.1", bridged.port))) for _ in range(20)]
        await until(lambda: sum(is_over(line) for line in lines) == 17)


def is_over(line):
    line.setblocking(False)
    try:
        return line.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


async def test_a_listener_that_ends_in_whatever_moment_of_a_connection_leaves_none_half_open(tmp_path, recwarn):
    async def knocks():
        with contextlib.suppress(OSError):
            async with connected(bridged, tls):
                pass

    bridged = Bridged(tmp_path)
    tls = ssl.create_default_context(cadata=bridged.certificate.pem)
    try:
        for moment in range(60):
            await bridged.start()
            knocking = [asyncio.create_task(knocks()) for _ in range(3)]
            for _ in range(moment // 2):
                await asyncio.sleep(0)
            async with asyncio.timeout(PATIENCE):
                await bridged.stop()
                await asyncio.gather(*knocking)  # raises where a number of before is still taken
    finally:
        await bridged.end()
    gc.collect()
    assert [str(warning.message) for warning in recwarn if warning.category is ResourceWarning] == []


async def test_nothing_but_a_hello_comes_first(bridged):
    async with connected(bridged) as channel:
        await channel.send(Report(0))
        await ends(channel)


async def test_who_says_nothing_is_not_waited_for(bridged, monkeypatch):
    monkeypatch.setattr("nanoclaw_runtime.bridge.server.HELLO", 0.1)
    async with connected(bridged) as channel:
        await ends(channel)


async def test_old_tls_and_no_tls_are_refused(bridged):
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.load_verify_locations(cadata=bridged.certificate.pem)
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError):
        async with connected(bridged, old):
            pass
    reader, writer = await asyncio.open_connection("127.0.0.1", bridged.port)
    writer.write(b"\0\0\0\1\x80")
    with contextlib.suppress(ConnectionError):
        while await reader.read(100):  # an alert, at most
            pass
    writer.close()


async def test_one_address_has_so_many_connections_and_more_when_they_go(bridged, monkeypatch):
    monkeypatch.setattr(listener, "PER_ADDRESS", 3)
    async with contextlib.AsyncExitStack() as stack:
        channels = [await stack.enter_async_context(connected(bridged)) for _ in range(3)]
        with pytest.raises(OSError):  # noqa: PT011 - reset, or an end in the handshake
            await stack.enter_async_context(connected(bridged))
        await channels[0].close()
        await until(lambda: bridged.server.listener._from.total() < 3)
        async with connected(bridged) as channel:
            await channel.send(Hello("team s1", carried=True))
            assert isinstance(await channel.receive(), Welcome)


# Behind it


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(request(name=b"../1.json"), id="outside"),
        pytest.param(request(name=b"/etc/x.json"), id="absolute"),
        pytest.param(request(name=b"a\0.json"), id="NUL"),
        pytest.param(request(name=b"x" * 251 + b".json"), id="too long a name"),
        pytest.param(request(name=b"1.txt"), id="another kind of file"),
        pytest.param(request(kind="inputs"), id="another folder"),
        pytest.param(request(kind="../team2/tasks"), id="another group"),
        pytest.param(request(modified=2**63 - 1), id="a time no file has"),
        pytest.param(request(content=b"x" * (1024 * 1024 + 1)), id="too large"),
        pytest.param(Hello("team s1"), id="a second hello"),
    ],
)
async def test_what_no_pod_of_ours_sends_ends_its_stream_and_leaves_no_file(bridged, bad):
    async with admitted(bridged) as channel:
        await channel.send(bad)
        await ends(channel)
    assert files(bridged.tree / "data") == []


async def test_more_than_may_be_open_at_once_ends_the_stream(bridged):
    async with admitted(bridged) as channel:
        with contextlib.suppress(StreamEnded):
            for number in range(bridge.REQUESTS_AT_ONCE + 1):
                await channel.send(request(serial=number, name=b"%d.json" % number))
        await ends(channel)
    assert len(files(bridged.tree / "data")) == bridge.REQUESTS_AT_ONCE


async def test_more_bytes_than_may_be_open_at_once_end_the_stream(bridged):
    async with admitted(bridged) as channel:
        with contextlib.suppress(StreamEnded):
            for number in range(20):
                await channel.send(request(serial=number, name=b"%d.json" % number, content=b"x" * 1024 * 1024))
        await ends(channel)
    assert len(files(bridged.tree / "data")) == 9


async def test_a_pod_reaches_only_its_own_group_and_session(bridged):
    own, other = bridged.mailbox("team", "s1"), bridged.mailbox("main", "s2")
    for box in (own, other):
        await box.prepare()
        await box.close()
    theirs = bridged.tree / "data/ipc/main/inputs/s2/_close"
    async with admitted(bridged) as channel:
        for name in ("../../../main/inputs/s2/_close", "../s2/_close", "_close"):
            await channel.send(Taken(name, theirs.stat().st_mtime_ns))
        await channel.send(request())
        await until((bridged.tree / "data/ipc/team/tasks/1.json").exists)
    assert theirs.exists()


async def test_a_pod_that_talks_without_end_is_slowed_down_and_stops_nobody(bridged):
    async def talks():
        async with admitted(bridged, "team s1") as channel:
            while True:
                await channel.send(Alive())

    talking = asyncio.create_task(talks())
    box = bridged.mailbox("main", "s2")
    await box.prepare()
    async with bridged.pod("main", "s2") as pod:
        await box.close()
        await until((pod.inputs / "_close").exists)
    talking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await talking


async def test_a_pod_that_does_not_read_holds_up_only_itself(bridged, monkeypatch):
    monkeypatch.setattr(protocol, "BODY", 0.5)
    slow, other = bridged.mailbox("team", "s1"), bridged.mailbox("main", "s2")
    await slow.prepare()
    await other.prepare()

    async def recorded():
        """The store has it."""

    async with admitted(bridged) as channel, bridged.pod("main", "s2") as pod:
        channel._reader._transport.pause_reading()
        for number in (1, 2):  # the first one goes into buffers on its way
            await slow.send("x" * 16_000_000, [number], recorded)
        await other.close()
        await until((pod.inputs / "_close").exists)
        await until(lambda: bridged.streams == 1)
    assert len(list((bridged.tree / "data/ipc/team/inputs/s1").glob("*.json"))) == 2


# The certificate


def test_the_key_is_made_once_and_nobody_else_reads_it(tmp_path):
    first = certificate.own_certificate(tmp_path, HOST)
    file = tmp_path / certificate.FILE
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert certificate.own_certificate(tmp_path, HOST).pem == first.pem
    assert "PRIVATE" not in first.pem
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize(
    ("host", "days"),
    [pytest.param("other.svc", 0, id="another name"), pytest.param(HOST, 3650 - 364, id="its last year")],
)
def test_it_is_made_anew_when_it_does_not_fit_any_more(tmp_path, host, days):
    first = certificate.own_certificate(tmp_path, HOST)
    later = datetime.now(UTC) + timedelta(days=days)
    assert certificate.own_certificate(tmp_path, host, now=lambda: later).pem != first.pem


@pytest.mark.parametrize("left", [b"", b"-----BEGIN CERTIFICATE-----\n", b"\xff\xfe"])
def test_a_file_that_is_none_is_replaced(tmp_path, left):
    (tmp_path / certificate.FILE).parent.mkdir()
    (tmp_path / certificate.FILE).write_bytes(left)
    (tmp_path / f"{certificate.FILE}").with_name(".bridge.pem.new").write_bytes(b"cut off")
    assert certificate.own_certificate(tmp_path, HOST).pem.startswith("-----BEGIN CERTIFICATE-----")
