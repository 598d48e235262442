"""Files come and go where only pods mount them: over HTTP, through a real bridge, whatever the group is doing."""

import asyncio
import contextlib
import io
import os
import tarfile

import pytest

from nanoclaw_runtime.controller.status import GroupState, SessionState, Warmth
from nanoclaw_runtime.domain.errors import Diagnosis, FailureKind
from tests.support.archives import archive
from tests.support.bridged import PATIENCE, until
from tests.support.bridged_house import BridgedHouse
from tests.support.command_line import CommandLine
from tests.support.served import TOKEN
from tests.support.v1_host import V1Host, at

TAR = {"Content-Type": "application/x-tar"}
QUOTA = Diagnosis(FailureKind.QUOTA, "exceeded quota: pods; raise the ResourceQuota", "No room.")
IMAGE = Diagnosis(FailureKind.IMAGE, "pod p: ErrImagePull; check the stack's agent image", "It cannot start.")
FULL = Diagnosis(FailureKind.UNSCHEDULABLE, "pod p fits on no node; free or add capacity", "No room.")


@pytest.fixture
async def here(tmp_path, monkeypatch):
    held(monkeypatch, 3 * PATIENCE)  # a pod that comes is waited for, however busy the machine is
    async with BridgedHouse.open(tmp_path) as opened:
        yield opened


@pytest.fixture
async def http(here):
    async with here.http() as session:
        yield session


async def put(http, content, area="group", folder="a"):
    content = io.BytesIO(content) if isinstance(content, bytes) else content
    async with http.put(f"/v1/transfer/groups/{folder}/{area}/files", data=content, headers=TAR) as answer:
        return answer.status, await answer.json(content_type=None)


async def got(http, area="group", folder="a"):
    async with http.get(f"/v1/transfer/groups/{folder}/{area}/files.tar") as answer:
        assert answer.status == 200, await answer.text()
        with tarfile.open(fileobj=io.BytesIO(await answer.read())) as tar:
            return {member.name: tar.extractfile(member).read() for member in tar}


async def listed(http, area="group", folder="a"):
    async with http.get(f"/v1/transfer/groups/{folder}/{area}/files") as answer:
        return answer.status, await answer.json(content_type=None)


def held(monkeypatch, seconds):
    """How long one request may wait for a pod."""
    monkeypatch.setattr("nanoclaw_runtime.controller.pod_files.WAIT", seconds)


# A group that nobody talks to


async def test_files_travel_both_ways_though_the_controller_mounts_none(here, http):
    large = os.urandom(3 * 1024 * 1024)
    status, taken = await put(http, archive(large=large, b=b"b"))
    assert (status, taken) == (200, {"files": 2, "bytes": len(large) + 1, "leftOut": 0})
    assert (here.claims() / "group/large").read_bytes() == large
    assert [file["path"] for file in (await listed(http))[1]["files"]] == ["b", "large"]
    assert await got(http) == {"large": large, "b": b"b"}
    async with http.post("/v1/transfer/groups/a/group/files/removal", json={"paths": ["b", "gone"]}) as answer:
        assert await answer.json() == {"files": 1}
    assert not (here.bridged.tree / "groups/a").exists()


async def test_all_of_it_is_done_by_one_pod_that_had_no_input_and_goes_afterwards(here, http, monkeypatch):
    monkeypatch.setattr("nanoclaw_runtime.controller.parking.PERIOD", 0.05)
    await put(http, archive(a=b"a"), "sessions")
    await got(http, "sessions")
    (session,) = here.backend.pods
    assert here.backend.agents == []
    assert (await here.house.group("a")).warm in {Warmth.STARTING, Warmth.WAITING}
    monkeypatch.setattr("nanoclaw_runtime.controller.reservations.LENT", 0.0)
    await listed(http)
    assert list(here.backend.pods) == [session]
    await until(lambda: here.backend.parked[session].exit_code is not None)
    await until(lambda: not here.bridged.reaches("a"))


async def test_the_next_session_may_have_that_pod(here, http):
    await put(http, archive(a=b"a"))
    (session,) = here.backend.pods
    await here.house.send("hello", "a")
    assert (await here.backend.agent(0)).ref.session == session


async def test_it_is_taken_up_by_the_next_controller_like_any_other(here, http, monkeypatch):
    await put(http, archive(a=b"a"))
    (session,) = here.backend.pods
    monkeypatch.setattr("nanoclaw_runtime.controller.parking.PERIOD", 0.05)
    await here.house.restart()
    await until(lambda: here.backend.parked[session].exit_code is not None)


async def test_a_group_that_is_gone_is_said_to_be(http):
    assert (await listed(http, folder="nobody"))[0] == 404
    assert (await put(http, archive(a=b"a"), folder="nobody"))[0] == 404


async def test_other_areas_need_no_pod(here, http):
    async with http.put("/v1/transfer/global/files", data=archive(n=b"n"), headers=TAR) as answer:
        assert answer.status == 200
    assert (here.bridged.tree / "groups/global/n").read_bytes() == b"n"
    assert here.backend.pods == {}


# A group that somebody talks to


async def test_a_live_session_is_read_from_in_its_own_pod_and_written_under_by_nobody(here, http):
    await here.house.send("hello", "a")
    agent = await here.backend.agent(0)
    await until(lambda: here.bridged.reaches("a"))
    (here.claims() / "group/note").write_text("kept")
    assert await got(http) == {"note": b"kept"}
    assert list(here.backend.pods) == [agent.ref.session]
    for area in ("group", "sessions"):
        status, problem = await put(http, archive(a=b"a"), area)
        assert (status, agent.ref.session in problem["detail"]) == (409, True)


async def test_a_session_that_cannot_be_asked_is_named_with_what_to_do(here, http, monkeypatch):
    held(monkeypatch, 0.3)
    here.backend.running_pods.clear()
    await here.house.send("hello", "a")
    agent = await here.backend.agent(0)
    await until(lambda: here.house.controller.sessions()[0].state is not SessionState.STARTING)
    status, problem = await listed(http)
    assert (status, f"nanoclaw sessions stop {agent.ref.session}" in problem["detail"]) == (422, True)


async def upload_under_way(here, http):
    """An import that is in the middle: (the request, what ends it)."""
    await put(http, archive(first=b"1"))
    rest = asyncio.Event()
    content = archive(large=b"x" * 300_000)

    async def slowly():
        yield content[:200_000]
        await rest.wait()
        yield content[200_000:]

    request = asyncio.create_task(put(http, slowly()))
    await until(lambda: list((here.claims() / "group").glob(".nanoclaw-transfer-*/0")))
    return request, rest


async def test_a_session_waits_for_an_import_and_begins_behind_it(here, http):
    request, rest = await upload_under_way(here, http)
    await here.house.send("hello", "a")
    await here.house.send("elsewhere", "b")
    assert (await here.backend.agent(0)).ref.folder == "b"
    rest.set()
    assert (await request)[0] == 200
    agent = await here.backend.agent(1)
    assert "hello" in agent.stdin["prompt"]
    assert (here.claims() / "group/large").stat().st_size == 300_000


async def test_two_imports_at_once_are_one_too_many(here, http):
    request, rest = await upload_under_way(here, http)
    status, problem = await put(http, archive(other=b"x"))
    assert (status, "are being changed already" in problem["detail"]) == (422, True)
    rest.set()
    assert (await request)[0] == 200


async def test_no_import_begins_beside_a_session_that_waits_for_one(here, http):
    request, rest = await upload_under_way(here, http)
    await here.house.send("hello", "a")
    await here.house.until_state(GroupState.ACTIVE, "a")
    rest.set()
    assert (await request)[0] == 200
    await here.backend.agent(0)
    assert (await put(http, archive(other=b"x")))[0] == 409


async def test_whoever_stalls_in_an_import_keeps_no_session_waiting(here, http, monkeypatch):
    begun = asyncio.Event()

    async def stalls():
        yield archive(large=b"x" * 300_000)[:200_000]
        begun.set()
        await asyncio.Event().wait()

    await put(http, archive(first=b"1"))
    monkeypatch.setattr("nanoclaw_runtime.controller.transfer.STALLED", 0.5)
    request = asyncio.create_task(put(http, stalls()))
    await begun.wait()
    await here.house.send("hello", "a")
    status, problem = await request
    assert (status, "nothing came for" in problem["detail"]) == (422, True)
    await here.backend.agent(0)
    assert not (here.claims() / "group/large").exists()


async def test_a_message_in_the_middle_of_an_export_is_answered_at_once(here, http):
    await put(http, archive(large=bytes(40 * 1024 * 1024)))
    async with http.get("/v1/transfer/groups/a/group/files.tar") as answer:
        assert len(await answer.content.readexactly(1000)) == 1000
        await here.house.send("hello", "a")
        agent = await here.backend.agent(0)
        await agent.say("hi")
        await here.house.answers()
        assert len(await answer.read()) > 39 * 1024 * 1024
    assert agent.ref.session in here.backend.pods
    assert len(here.backend.pods) == 1


# What fails


async def test_a_pod_that_may_not_be_made_is_said_in_a_sentence(here, http):
    here.backend.park_refusals = [QUOTA]
    status, problem = await listed(http)
    assert (status, problem["detail"].endswith(f"session {here.backend.asked[0].ref.session}: {QUOTA.operator}")) == (
        422,
        True,
    )
    assert (await listed(http))[0] == 200


async def test_a_pod_that_takes_its_time_is_to_be_asked_for_again(here, http, monkeypatch):
    held(monkeypatch, 0.3)
    here.backend.running_pods.clear()
    status, problem = await listed(http)
    assert (status, "is being started" in problem["detail"]) == (503, True)
    here.backend.running_pods.set()
    await until(lambda: here.bridged.reaches("a"))
    assert (await listed(http))[0] == 200
    assert len(here.backend.pods) == 1


@pytest.mark.parametrize(
    ("why", "status"), [pytest.param(IMAGE, 422, id="hopeless"), pytest.param(FULL, 503, id="may come")]
)
async def test_why_a_pod_does_not_come_is_told_as_the_cluster_tells_it(here, http, monkeypatch, why, status):
    asked = []

    async def trouble(folder, session):
        asked.append((folder, session))
        return why

    held(monkeypatch, 0.3)
    monkeypatch.setattr(here.house.host.transfer._pods, "_why", trouble)
    here.backend.running_pods.clear()
    answered, problem = await listed(http)
    assert (answered, why.operator in problem["detail"]) == (status, True)
    await until(lambda: here.backend.pods)
    assert asked == [("a", session) for session in here.backend.pods]


async def test_room_for_it_is_made_by_dropping_what_another_group_has_parked(here, http, monkeypatch):
    async def full(_folder, _session):
        return FULL

    monkeypatch.setattr("nanoclaw_runtime.controller.reservations.LENT", 0.0)
    assert (await listed(http, folder="b"))[0] == 200
    (other,) = here.backend.pods
    held(monkeypatch, 0.3)
    here.backend.running_pods.clear()
    monkeypatch.setattr(here.house.host.transfer._pods, "_why", full)
    await listed(http)
    assert here.backend.parked[other].exit_code is not None


async def test_a_pod_that_is_lost_in_mid_import_leaves_nothing_and_no_session_begins_in_it(here, http):
    request, rest = await upload_under_way(here, http)
    (session,) = here.backend.pods
    await here.backend.pods[session].vanish()
    rest.set()
    status, problem = await request
    assert (status, "is lost" in problem["detail"]) == (503, True)
    await until(lambda: here.backend.parked[session].exit_code is not None)
    assert (await put(http, archive(second=b"2")))[0] == 200
    assert await got(http) == {"first": b"1", "second": b"2"}


async def test_a_pod_that_is_lost_in_mid_export_breaks_the_answer_off(here, http):
    await put(http, archive(large=bytes(30 * 1024 * 1024)))
    (pod,) = here.backend.pods.values()
    async with http.get("/v1/transfer/groups/a/group/files.tar") as answer:
        await answer.content.readexactly(1000)
        await pod.vanish()
        with pytest.raises(Exception, match="payload is not completed"):
            await answer.read()


# From the command line


@pytest.fixture
def terminal(here):
    return CommandLine(NANOCLAW_URL=here.url, NANOCLAW_TOKEN=TOKEN)


async def test_a_household_moves_out_while_pods_take_their_time_and_in_again(here, terminal, tmp_path, monkeypatch):
    held(monkeypatch, 0.2)
    (here.claims("a") / "group").mkdir(parents=True)
    (here.claims("a") / "group/notes").write_text("watered")
    (here.claims("a") / "sessions/projects").mkdir(parents=True)
    (here.claims("a") / "sessions/projects/talk").write_text("said")
    here.backend.running_pods.clear()
    exporting = asyncio.create_task(terminal.done("export", tmp_path / "out"))
    await until(lambda: here.backend.pods)
    await asyncio.sleep(0.5)
    here.backend.running_pods.set()
    await exporting
    assert (tmp_path / "out/groups/a/notes").read_text() == "watered"
    assert (tmp_path / "out/data/sessions/a/.claude/projects/talk").read_text() == "said"
    (tmp_path / "out/groups/a/notes").write_text("watered twice")
    os.utime(tmp_path / "out/groups/a/notes", (2_000_000_000, 2_000_000_000))
    told = await terminal.told("import", tmp_path / "out", "--yes")
    assert told["done"]
    assert (here.claims("a") / "group/notes").read_text() == "watered twice"


async def test_an_export_that_broke_off_begins_again(here, terminal, tmp_path):
    (here.claims("a") / "group").mkdir(parents=True)
    (here.claims("a") / "group/large").write_bytes(os.urandom(30 * 1024 * 1024))
    exporting = asyncio.create_task(terminal.done("export", tmp_path / "out"))
    await until(lambda: list((tmp_path / "out/groups").glob("a/.nanoclaw-transfer-*/0")))
    broken = here.house.host.transfer._pods._parking._agents["a"].session
    await here.backend.pods[broken].vanish()
    here.backend.pods[broken].begin()
    await exporting
    there = (tmp_path / "out/groups/a/large").read_bytes()
    assert there == (here.claims("a") / "group/large").read_bytes()


async def test_a_host_moves_in(here, terminal, tmp_path):
    host = V1Host(tmp_path / "v1")
    host.group("a", "http:a", session="claude-a", cursor=at(30))
    host.message("http:a", 40, "@Andy plants?")
    with contextlib.suppress(FileExistsError):
        (tmp_path / "v1/groups/a").mkdir(parents=True)
    (tmp_path / "v1/groups/a/notes").write_text("mine")
    assert (await terminal.told("import", tmp_path / "v1", "--yes"))["done"]
    assert (here.claims("a") / "group/notes").read_text() == "mine"
    agent = await here.backend.agent(0)
    assert (agent.stdin["sessionId"], "plants?" in agent.stdin["prompt"]) == ("claude-a", True)
