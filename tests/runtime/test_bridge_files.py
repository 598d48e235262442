"""Files of a group that only its pod mounts: listed, given and taken over a connection of their own."""

import asyncio
import contextlib
import io
import os
import ssl
import tarfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nanoclaw_runtime.bridge import errand as controllers_end
from nanoclaw_runtime.bridge.errands import (
    TO_POD,
    Done,
    Failed,
    File,
    Found,
    List,
)
from nanoclaw_runtime.bridge.protocol import DOWN, Alive, Channel, Go, Hello, Piece, StreamEnded, Synced, Welcome
from nanoclaw_runtime.contract import bridge
from nanoclaw_runtime.domain.errors import TransferRefused
from nanoclaw_runtime.domain.transfer import Area, FilesTaken
from nanoclaw_runtime.ipc import archive
from tests.support.bridged import HOST, PATIENCE, Bridged, until

LARGE = 3 * 1024 * 1024


@pytest.fixture
async def bridged(tmp_path):
    async with Bridged.open(tmp_path) as opened:
        yield opened


async def listed(bridged, area=Area.GROUP, folder="team"):
    async with bridged.server.errand(folder) as errand:
        return await errand.listing(area)


async def given_out(bridged, area=Area.GROUP, folder="team"):
    async with bridged.server.errand(folder) as errand, contextlib.aclosing(errand.pieces(area)) as pieces:
        return b"".join([piece async for piece in pieces])


async def taken(bridged, content, area=Area.GROUP, folder="team", size=100_000):
    async def chunks():
        for start in range(0, len(content), size):
            yield content[start : start + size]

    async with bridged.server.errand(folder) as errand:
        return await errand.take(area, chunks())


def tar(*members, end=True):
    out = io.BytesIO()
    for name, content, more in members:
        info = tarfile.TarInfo(name)
        info.size, info.mtime = len(content), 1_700_000_000
        for key, value in more.items():
            setattr(info, key, value)
        out.write(info.tobuf(tarfile.PAX_FORMAT) + content + b"\0" * (-len(content) % 512))
    return out.getvalue() + b"\0" * (1024 if end else 0)


def contents(content):
    with tarfile.open(fileobj=io.BytesIO(content)) as opened:
        return {member.name: opened.extractfile(member).read() for member in opened}


def written(root, **files):
    for name, content in files.items():
        file = root / name.replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


# A pod that does as it should


async def test_an_area_goes_out_as_it_is_and_links_and_logs_do_not(bridged, tmp_path):
    large = os.urandom(LARGE)
    async with bridged.pod("team") as pod:
        written(pod.place.group, notes=b"mine", large=large, deep__er__file=b"x", logs__today=b"log")
        (tmp_path / "secret").write_bytes(b"of another group")
        (pod.place.group / "link").symlink_to(tmp_path / "secret")
        (pod.place.group / "folder").symlink_to(tmp_path)
        os.mkfifo(pod.place.group / "pipe")
        found = await listed(bridged)
        assert [(file.path, file.size) for file in found.files] == [("deep/er/file", 1), ("large", LARGE), ("notes", 4)]
        assert found.left_out == 3
        assert contents(await given_out(bridged)) == {"notes": b"mine", "large": large, "deep/er/file": b"x"}


async def test_what_goes_out_of_a_pod_is_what_a_volume_would_have_given(bridged):
    async with bridged.pod("team") as pod:
        written(pod.place.sessions, projects__one=b"1" * 70_000, settings=b"{}")
        root = pod.place.sessions
        assert await listed(bridged, Area.SESSIONS) == archive.listing(root)
        there = contents(b"".join(archive.pack(root, [file.path for file in archive.listing(root).files])))
        assert contents(await given_out(bridged, Area.SESSIONS)) == there


async def test_files_come_in_whole_and_what_was_there_stays(bridged):
    large = os.urandom(LARGE)
    async with bridged.pod("team") as pod:
        written(pod.place.group, old=b"old", replaced=b"before")
        done = await taken(bridged, tar(("large", large, {}), ("replaced", b"after", {}), ("logs/l", b"no", {})))
        assert done == FilesTaken(files=2, bytes=LARGE + 5, left_out=1)
        assert (pod.place.group / "large").read_bytes() == large
        assert (pod.place.group / "replaced").read_bytes() == b"after"
        assert (pod.place.group / "old").read_bytes() == b"old"
        assert not (pod.place.group / "logs/l").exists()
        async with bridged.server.errand("team") as errand:
            assert await errand.remove(Area.GROUP, ["old", "gone"]) == 1
        assert not (pod.place.group / "old").exists()


async def test_the_projects_skills_are_back_when_memory_came_in(bridged):
    skill = bridged.tree / "project/container/skills/read/SKILL.md"
    skill.parent.mkdir(parents=True)
    skill.write_text("ours")
    async with bridged.pod("main") as pod:
        theirs = tar(("skills/read/SKILL.md", b"theirs", {}), ("projects/x", b"x", {}))
        await taken(bridged, theirs, Area.SESSIONS, "main")
        assert (pod.place.sessions / "skills/read/SKILL.md").read_text() == "ours"
        assert (pod.place.sessions / "projects/x").read_bytes() == b"x"


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        pytest.param(tar(("../outside", b"x", {})), "not one below", id="outside"),
        pytest.param(b"no archive at all" * 100, "no whole tar archive", id="no archive"),
        pytest.param(tar(("a", b"x" * 600, {}), end=False)[:700], "no whole tar archive", id="cut off"),
    ],
)
async def test_an_archive_that_is_refused_changes_nothing_and_says_why(bridged, sent, why):
    async with bridged.pod("team") as pod:
        written(pod.place.group, kept=b"kept")
        before = await listed(bridged)
        with pytest.raises(TransferRefused, match=why):
            await taken(bridged, sent)
        assert await listed(bridged) == before


async def test_an_archive_may_take_longer_than_its_answer(bridged, monkeypatch):
    monkeypatch.setattr(controllers_end, "PATIENCE", 4.0)
    content = tar(("a", b"a" * 200_000, {}))

    async def slowly():
        yield content[:100_000]
        await asyncio.sleep(4.5)
        yield content[100_000:]

    async with bridged.pod("team") as pod, bridged.server.errand("team") as errand:
        assert (await errand.take(Area.GROUP, slowly())).files == 1
        assert (pod.place.group / "a").stat().st_size == 200_000


async def test_a_sender_that_goes_away_leaves_nothing(bridged):
    async def breaking():
        yield tar(("a", b"a" * 200_000, {}))[:100_000]
        await until(lambda: list(pod.place.group.glob(".nanoclaw-transfer-*/0")))
        raise ConnectionResetError

    async with bridged.pod("team") as pod:
        with pytest.raises(ConnectionResetError):
            async with bridged.server.errand("team") as errand:
                await errand.take(Area.GROUP, breaking())
        await until(lambda: not list(pod.place.group.glob(".nanoclaw-transfer-*")))
        assert (await listed(bridged)).files == ()


async def test_a_controller_that_dies_in_the_middle_leaves_nothing_and_its_successor_can_go_on(bridged):
    begun = asyncio.Event()

    async def endless():
        yield tar(("a", b"a" * 200_000, {}))[:100_000]
        begun.set()
        await asyncio.Event().wait()

    async def brings():
        async with bridged.server.errand("team") as errand:
            await errand.take(Area.GROUP, endless())

    async with bridged.pod("team") as pod:
        bringing = asyncio.create_task(brings())
        await begun.wait()
        await bridged.stop()
        bringing.cancel()
        await asyncio.gather(bringing, return_exceptions=True)
        await bridged.start()
        await until(lambda: bridged.server.reaches("team"))
        assert await taken(bridged, tar(("b", b"b", {}))) == FilesTaken(files=1, bytes=1, left_out=0)
        assert [path.name for path in pod.place.group.iterdir() if path.name != "logs"] == ["b"]


async def test_a_pod_that_dies_in_the_middle_is_said_and_not_taken_for_an_end(bridged):
    async with bridged.pod("team") as pod:
        written(pod.place.group, large=bytes(20 * 1024 * 1024))

        async def dies():
            async with (
                bridged.server.errand("team") as errand,
                contextlib.aclosing(errand.pieces(Area.GROUP)) as pieces,
            ):
                await anext(pieces)
                await pod.vanish()
                async for _ in pieces:
                    pass

        with pytest.raises(StreamEnded):
            await dies()
    assert not bridged.server.reaches("team")


async def test_a_large_archive_that_nobody_reads_holds_up_no_input(bridged):
    box = bridged.mailbox("team")
    await box.prepare()
    async with bridged.pod("team") as pod:
        written(pod.place.group, large=bytes(50 * 1024 * 1024))
        async with bridged.server.errand("team") as errand, contextlib.aclosing(errand.pieces(Area.GROUP)) as pieces:
            await anext(pieces)
            await box.close()
            await until((pod.inputs / "_close").exists)
            size = 0
            async for piece in pieces:
                size += len(piece)
        assert size > 49 * 1024 * 1024


async def test_several_errands_of_one_pod_do_not_mix(bridged):
    async with bridged.pod("team") as pod:
        written(pod.place.group, a=os.urandom(LARGE))
        written(pod.place.sessions, b=os.urandom(LARGE))
        first, second, third = await asyncio.gather(
            given_out(bridged), given_out(bridged, Area.SESSIONS), listed(bridged)
        )
        assert contents(first) == {"a": (pod.place.group / "a").read_bytes()}
        assert contents(second)["b"] == (pod.place.sessions / "b").read_bytes()
        assert [file.path for file in third.files] == ["a"]


async def test_a_pod_has_the_areas_of_its_group_and_no_other(bridged):
    async with bridged.pod("team"):
        with pytest.raises(TransferRefused, match="no area 'global'"):
            await listed(bridged, Area.GLOBAL)


async def test_a_group_without_a_pod_cannot_be_asked(bridged):
    async with bridged.pod("main"):
        assert not bridged.server.reaches("team")
        with pytest.raises(StreamEnded, match="no pod"):
            await listed(bridged)


name = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20).filter(
    lambda name: name not in {".", "..", "logs"}
)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(files=st.dictionaries(name, st.binary(max_size=2000), max_size=6), size=st.integers(1, 3000))
async def test_what_comes_in_goes_out_again(bridged, files, size):
    async with bridged.pod("team", "s9") as pod:
        await until(lambda: bridged.server.reaches("team"))
        sent = tar(*((name, content, {}) for name, content in files.items()))
        await taken(bridged, sent, size=size)
        assert contents(await given_out(bridged)) == files
        await asyncio.to_thread(archive.remove, pod.place.group, list(files))


# A pod that does not


@contextlib.asynccontextmanager
async def connected(bridged, hello):
    tls = ssl.create_default_context(cadata=bridged.certificate.pem)
    reader, writer = await asyncio.open_connection("127.0.0.1", bridged.port, ssl=tls, server_hostname=HOST)
    channel = Channel(reader, writer, DOWN, largest=bridge.LARGEST_INPUT)
    try:
        await channel.send(hello)
        assert isinstance(await channel.receive(), Welcome)
        yield channel
    finally:
        await channel.close()


async def is_let_go(channel):
    with contextlib.suppress(StreamEnded):
        while True:
            await channel.receive(10)


@contextlib.asynccontextmanager
async def stream_of(bridged, token="team s1", *, errands=True):
    async with connected(bridged, Hello(token, carried=True, errands=errands)) as channel:
        while not isinstance(await channel.receive(), Synced):
            pass
        yield channel


@contextlib.asynccontextmanager
async def liar(bridged, answers, token="team s1"):
    """A pod that says `answers` on whatever errand it is sent on."""

    async def lies(channel):
        while not isinstance(order := await channel.receive(), Go):
            pass
        async with connected(bridged, Hello(token, errand=order.errand)) as errand:
            said = errand.speaking(TO_POD, largest=bridge.LARGEST_INPUT)
            while isinstance(await said.receive(), Alive):
                pass
            for answer in answers:
                await said.send(answer)
            while True:
                await said.receive(100)

    async with stream_of(bridged, token) as channel:
        lying = asyncio.create_task(lies(channel))
        try:
            yield
        finally:
            lying.cancel()
            await asyncio.gather(lying, return_exceptions=True)


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param([tar(("../../evil", b"x", {}))], id="outside"),
        pytest.param([tar(("/etc/passwd", b"x", {}))], id="absolute"),
        pytest.param([b"\xff" * 100_000], id="no archive"),
        pytest.param([tar(("a", b"x" * 1000, {}), end=False)[:600]], id="cut off within a file"),
        pytest.param([tar(("p", b"11 size=-1\n", {"type": tarfile.XHDTYPE}), ("a", b"", {}))], id="of negative size"),
    ],
)
async def test_no_path_outside_and_nothing_but_an_archive_passes_through(bridged, bad):
    async with liar(bridged, [*map(Piece, bad), Done()]):
        with pytest.raises(TransferRefused):
            await given_out(bridged)


async def test_of_an_archive_only_plain_files_pass_through(bridged):
    link = {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}
    sent = tar(
        ("link", b"", link),
        ("hard", b"", {"type": tarfile.LNKTYPE, "linkname": "x"}),
        ("device", b"", {"type": tarfile.CHRTYPE}),
        ("suid", b"x", {"mode": 0o6777, "uid": 0, "uname": "root"}),
        ("logs/of", b"a container", {}),
    )
    async with liar(bridged, [Piece(sent), Done()]):
        content = await given_out(bridged)
    with tarfile.open(fileobj=io.BytesIO(content)) as opened:
        (member,) = opened.getmembers()
    assert (member.name, member.mode, member.uname) == ("suid", archive.RUNNABLE_MODE, "")


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param([Found([File("../x", 1, 1)])], id="a path outside"),
        pytest.param([Found([File("/x", 1, 1)])], id="an absolute path"),
        pytest.param([Found([File("x" * 300, 1, 1)])], id="too long a name"),
        pytest.param([Found([File("a", 1, 1)] * 500)] * 401, id="too many files"),
    ],
)
async def test_a_listing_that_cannot_be_one_is_refused(bridged, bad):
    async with liar(bridged, [*bad, Done()]):
        with pytest.raises(TransferRefused):
            await listed(bridged)


async def test_longer_names_than_fit_into_memory_are_refused(bridged, monkeypatch):
    monkeypatch.setattr(archive, "MOST_NAMES", 1000)
    wide = "\N{GRINNING FACE}" * 30
    async with liar(bridged, [Found([File(f"{wide}{number}", 1, 1) for number in range(20)]), Done()]):
        with pytest.raises(TransferRefused, match="1000 bytes of names"):
            await listed(bridged)


async def test_more_files_in_one_message_than_there_are_is_none(bridged):
    async with liar(bridged, [Found([File("a", 1, 1)] * 400_000), Done()]):
        with pytest.raises(StreamEnded, match="400000 files at once"):
            await listed(bridged)


async def test_figures_that_no_file_has_are_bounded(bridged):
    async with liar(bridged, [Found([File("a", -5, 2**63)]), Done(left_out=-1)]):
        found = await listed(bridged)
    assert (found.files[0].size, found.left_out) == (0, 0)


@pytest.mark.parametrize("bad", [[Piece(b"x")], [Found([])], [List(Area.GROUP)]], ids=["piece", "found", "an order"])
async def test_a_word_that_is_none_here_ends_the_errand_and_not_the_stream(bridged, bad):
    async with liar(bridged, bad):
        with pytest.raises(StreamEnded):
            await taken(bridged, tar(("a", b"a", {})))
        assert bridged.streams == 1


async def test_a_reason_is_told_without_what_a_terminal_would_obey(bridged):
    async with liar(bridged, [Failed("no room\x1b[2J\nroot#" + "x" * 5000)]):
        with pytest.raises(TransferRefused) as refused:
            await listed(bridged)
    assert str(refused.value).startswith("no room?[2J?root#x")
    assert len(str(refused.value)) <= 500


async def test_a_pod_goes_on_no_errand_of_another_group(bridged):
    async with stream_of(bridged, "team s1") as channel:
        asking = asyncio.create_task(listed(bridged))
        while not isinstance(order := await channel.receive(), Go):
            pass
        for token in ("main s2", "team s3"):  # and on none of another session of its own
            async with connected(bridged, Hello(token, errand=order.errand)) as other:
                await is_let_go(other)
        assert not asking.done()
        async with connected(bridged, Hello("team s1", errand=order.errand)) as own:
            said = own.speaking(TO_POD, largest=bridge.LARGEST_INPUT)
            assert await said.receive() == List(Area.GROUP)
            await said.send(Done())
            assert (await asking).files == ()


async def test_a_pod_that_was_not_sent_is_not_listened_to(bridged):
    async with connected(bridged, Hello("team s1", errand=1)) as channel:
        await is_let_go(channel)


async def test_a_pod_that_does_not_come_is_not_waited_for(bridged, monkeypatch):
    monkeypatch.setattr("nanoclaw_runtime.bridge.server.MET", 0.2)
    async with stream_of(bridged):
        with pytest.raises(StreamEnded, match="did not connect"):
            await listed(bridged)
        assert bridged.server._awaited == {}


async def test_a_pod_that_goes_before_it_comes_is_not_waited_for(bridged, monkeypatch):
    monkeypatch.setattr("nanoclaw_runtime.bridge.server.MET", 10 * PATIENCE)
    async with stream_of(bridged) as channel, asyncio.timeout(PATIENCE):
        asking = asyncio.create_task(listed(bridged))
        while not isinstance(await channel.receive(), Go):
            pass
        await channel.close()
        with pytest.raises(StreamEnded, match="did not connect"):
            await asking


async def test_a_pod_of_an_earlier_version_is_not_asked(bridged):
    async with stream_of(bridged, errands=False):
        assert not bridged.server.reaches("team")


async def test_a_pod_that_only_says_that_it_lives_is_given_up(bridged, monkeypatch):
    monkeypatch.setattr(controllers_end, "PATIENCE", 0.3)
    async with liar(bridged, [Alive()] * 100):
        with pytest.raises(StreamEnded, match="says nothing"):
            await listed(bridged)


async def test_a_pod_whose_archive_comes_by_drops_is_given_up(bridged, monkeypatch):
    monkeypatch.setattr(controllers_end, "PATIENCE", 0.5)
    header = tar(("a", b"", {"size": 2**30}), end=False)
    async with liar(bridged, [Piece(header), *[Piece(b"x")] * 5000, Done()]):
        with pytest.raises(StreamEnded, match="says nothing"):
            await given_out(bridged)


async def test_a_pod_that_does_not_say_whether_it_has_the_files_is_given_up(bridged, monkeypatch):
    monkeypatch.setattr(controllers_end, "PATIENCE", 0.3)
    async with liar(bridged, [Alive()] * 100):
        with pytest.raises(StreamEnded, match="says nothing"):
            await taken(bridged, tar(("a", b"a", {})))


async def test_a_pod_that_never_comes_to_an_end_with_its_list_is_given_up(bridged, monkeypatch):
    monkeypatch.setattr(controllers_end, "LISTED", 0.3)
    async with liar(bridged, [Found([])] * 5000):
        with pytest.raises(StreamEnded, match="did not list"):
            await listed(bridged)
