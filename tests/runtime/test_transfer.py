"""What a controller takes in and gives out, over HTTP: the real app, a real store, real folders."""

import asyncio
import io
import os
import tarfile

import aiohttp
import pytest

from nanoclaw_runtime.api.guard import BODY_LIMIT
from nanoclaw_runtime.api.server import listen, serve_on
from nanoclaw_runtime.domain.errors import FilesAway, GroupBusy
from nanoclaw_runtime.domain.transfer import Area, Portion
from nanoclaw_runtime.store.records import EventType, MessageState
from tests.support.archives import archive
from tests.support.house import started
from tests.support.served import TOKEN, whole_api

TAR = {"Content-Type": "application/x-tar"}
BEARER = {"Authorization": f"Bearer {TOKEN}"}
CREATED = "2026-03-01T10:00:00.123Z"


@pytest.fixture
async def http(house):
    listener = listen("127.0.0.1", 0)
    serving = asyncio.create_task(serve_on(whole_api(house.host), listener))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    async with aiohttp.ClientSession(url, headers=BEARER) as session:
        yield session
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


def message(key, text="hello", *, waiting=False):
    return {
        "key": key, "sender": "49@s", "senderName": "Ada", "text": text, "created": CREATED, "waiting": waiting
    }  # fmt: skip


def task(identity="task-1", folder="a", **more):
    return {
        "id": identity, "folder": folder, "jid": "http:a", "prompt": "water", "kind": "cron", "value": "0 9 * * *",
        "context": "group", "state": "paused", "nextRun": "2026-03-02T09:00:00Z", "lastRun": None,
        "lastResult": None, "created": CREATED,
    } | more  # fmt: skip


def run(identity="task-1"):
    return {
        "task": identity, "started": CREATED, "seconds": 1.5, "outcome": "success", "result": "ok", "error": None
    }  # fmt: skip


async def take(http, folder="a", **portion):
    async with http.post(f"/v1/transfer/groups/{folder}/records", json={"importId": "i1"} | portion) as answer:
        return answer.status, await answer.json(content_type=None)


async def got(http, path):
    async with http.get(f"/v1/transfer/{path}") as answer:
        assert answer.status == 200
        return await answer.json()


# Records


async def test_history_comes_in_once(house, http):
    portion = {"messages": [message("v1:1"), message("v1:2")], "tasks": [task()], "runs": [run()], "conversation": "c1"}
    first = {"messages": 2, "settled": 0, "tasks": 1, "runs": 1, "conversation": True}
    again = {"messages": 0, "settled": 0, "tasks": 0, "runs": 0, "conversation": False}
    assert await take(http, **portion) == (200, first)
    assert await take(http, **portion) == (200, again)
    history = await house.controller.history("a")
    assert [(one.client_id, one.state) for one in history] == [
        ("v1:1", MessageState.DONE),
        ("v1:2", MessageState.DONE),
    ]
    assert await house.store.agent_session("a") == "c1"
    assert await house.events(EventType.IMPORTED) == [{"import": "i1"}]


async def test_the_portions_of_an_import_make_one_event(house, http):
    await take(http, messages=[message("v1:1")])
    await take(http, messages=[message("v1:2")])
    await take(http, importId="i2", messages=[message("v1:3")])
    assert await house.events(EventType.IMPORTED, count=2) == [{"import": "i1"}, {"import": "i2"}]
    assert len({one.event for one in await house.controller.history("a")}) == 2


async def test_what_waits_is_answered_when_the_import_is_complete(house, http):
    await take(http, messages=[message("v1:1"), message("v1:2", "what now?", waiting=True)])
    assert house.controller.sessions() == []
    await take(http, messages=[], complete=True)
    agent = await house.backend.agent(0)
    assert "what now?" in agent.stdin["prompt"]
    assert "hello" not in agent.stdin["prompt"]


async def test_what_the_agent_there_has_had_waits_no_longer_and_its_sender_is_told(house, http):
    await take(http, messages=[message("v1:1", waiting=True), message("v1:2", waiting=True)])
    had = [message("v1:1"), message("v1:2", waiting=True)]
    assert (await take(http, messages=had))[1]["settled"] == 1
    assert (await take(http, messages=had, complete=True))[1]["settled"] == 0
    first, second = await house.controller.history("a")
    assert (first.state is MessageState.DONE, second.state is MessageState.DONE) == (True, False)
    assert await house.events(EventType.DONE) == [{"session": None, "messages": [first.id]}]


async def test_the_conversation_goes_on_where_it_was(house, http):
    await take(http, conversation="claude-7", complete=True)
    await house.send("hello", "a")
    assert (await house.backend.agent(0)).stdin["sessionId"] == "claude-7"


async def test_what_is_here_is_replaced_only_on_demand(house, http):
    await take(http, tasks=[task()], conversation="c1")
    await take(http, tasks=[task(prompt="harvest")], conversation="c2")
    assert (await got(http, "tasks"))["tasks"][0]["prompt"] == "water"
    _, taken = await take(http, tasks=[task(prompt="harvest")], conversation="c2", replace=True)
    assert (taken["tasks"], taken["conversation"]) == (1, True)
    assert (await got(http, "tasks"))["tasks"][0]["prompt"] == "harvest"
    assert await house.store.agent_session("a") == "c2"


async def test_a_task_that_is_due_runs(house, http):
    await take(
        http, tasks=[task(state="active", nextRun=CREATED, kind="once", value="2026-03-01T10:00:00")], complete=True
    )
    agent = await house.backend.agent(0)
    assert agent.stdin["prompt"].endswith("water")


async def test_a_task_of_another_group_is_refused_and_nothing_kept(http):
    await take(http, folder="b", tasks=[task(folder="b")])
    for wrong in (task(), task("task-2", folder="b")):
        status, problem = await take(http, messages=[message("v1:1")], tasks=[wrong])
        assert status == 422
        assert wrong["id"] in problem["detail"]
    assert (await got(http, "groups/a/messages"))["messages"] == []


async def test_nothing_comes_in_while_an_agent_works(house, http):
    await house.send("hello", "a")
    await house.backend.agent(0)
    session = house.controller.sessions()[0].session
    status, problem = await take(http, messages=[message("v1:1")])
    assert (status, f"nanoclaw sessions stop {session}" in problem["detail"]) == (409, True)
    for area in ("group", "sessions"):
        async with http.put(f"/v1/transfer/groups/a/{area}/files", data=archive(x=b"x"), headers=TAR) as answer:
            assert answer.status == 409
    assert not (house.tmp_path / "groups/a/x").exists()


async def test_a_session_that_is_only_recorded_counts_as_alive(house, http):
    # One that another process began, and that this one has not found again.
    await house.execute(
        "INSERT INTO sessions (id, folder, kind, state, created, outputs, generation)"
        " VALUES ('s0', 'a', 'messages', 'starting', '2026-03-01 10:00:00.000000', 0, 1)"
    )
    assert (await take(http, messages=[message("v1:1")]))[0] == 409


async def test_messages_go_out_with_what_became_of_them(house, http):
    await house.send("one", "a", client_id="c1")
    agent = await house.backend.agent(0)
    await agent.say("first answer")
    await house.answers()
    await take(http, folder="b", messages=[message("v1:9", waiting=True), message("v1:10")])
    messages = (await got(http, "groups/a/messages"))["messages"]
    assert [(one["key"], one["waiting"]) for one in messages] == [("c1", False)]
    assert [one["text"] for one in (await got(http, "groups/a/answers"))["answers"]] == ["first answer"]
    assert [one["waiting"] for one in (await got(http, "groups/b/messages"))["messages"]] == [True, False]
    assert (await got(http, f"groups/a/messages?after={messages[-1]['number']}"))["messages"] == []


async def test_chats_are_kept_at_their_latest(http):
    chat = {"jid": "g@g.us", "name": "Old", "channel": "whatsapp", "isGroup": True, "lastActivity": CREATED}
    newer = chat | {"name": "New", "lastActivity": "2026-03-02T10:00:00Z"}
    for sent, taken in ((chat, 1), (newer, 1), (chat, 0)):
        async with http.post("/v1/transfer/chats", json={"chats": [sent]}) as answer:
            assert await answer.json() == {"chats": taken}
    assert [one["name"] for one in (await got(http, "chats"))["chats"]] == ["New"]


async def test_the_inventory_says_who_is_here_and_who_works(house, http):
    await take(http, folder="b", conversation="c1")
    await house.send("hello", "a")
    await house.backend.agent(0)
    inventory = await got(http, "groups")
    found = {group["spec"]["folder"]: (group["conversation"], group["session"]) for group in inventory["groups"]}
    assert found["b"] == ("c1", None)
    assert found["a"] == (None, house.controller.sessions()[0].session)
    assert (inventory["registration"], inventory["assistantName"]) == (False, "Andy")


async def test_a_group_nobody_knows_is_a_404(http):
    assert (await take(http, folder="nobody"))[0] == 404
    for method, path in (("GET", "files"), ("GET", "files.tar"), ("PUT", "files")):
        async with http.request(method, f"/v1/transfer/groups/nobody/group/{path}", headers=TAR) as answer:
            assert answer.status == 404


async def test_a_portion_that_cannot_be_written_leaves_nothing(house, http):
    async with house.refusing("INSERT ON tasks", "1"):
        status, _ = await take(http, messages=[message("v1:1")], tasks=[task()])
    assert status == 503
    assert await house.store.history("a") == []
    assert (await take(http, messages=[message("v1:1")], tasks=[task()]))[1]["messages"] == 1


def test_a_portion_without_records_is_one():
    assert Portion.model_validate_json('{"importId": "i"}').messages == ()


# Files


async def test_files_travel_both_ways(house, http):
    large = os.urandom(3 * BODY_LIMIT)
    async with http.put(
        "/v1/transfer/groups/a/group/files", data=io.BytesIO(archive(large=large, b=b"b")), headers=TAR
    ) as answer:
        assert answer.status == 200
        assert await answer.json() == {"files": 2, "bytes": len(large) + 1, "leftOut": 0}
    assert (house.tmp_path / "groups/a/large").read_bytes() == large
    listing = await got(http, "groups/a/group/files")
    assert [(file["path"], file["modified"]) for file in listing["files"]] == [
        ("b", 1_700_000_000),
        ("large", 1_700_000_000),
    ]
    async with http.get("/v1/transfer/groups/a/group/files.tar") as answer:
        assert answer.content_type == "application/x-tar"
        with tarfile.open(fileobj=io.BytesIO(await answer.read())) as tar:
            assert tar.extractfile("large").read() == large


AREAS = [
    ("groups/a/group", "groups/a"),
    ("groups/a/sessions", "data/sessions/a/.claude"),
    ("global", "groups/global"),
    ("project", "project"),
]


@pytest.mark.parametrize(("area", "folder"), AREAS)
async def test_every_area_has_its_folder(house, http, area, folder):
    async with http.put(f"/v1/transfer/{area}/files", data=archive(note=b"x"), headers=TAR) as answer:
        assert answer.status == 200
    assert (house.tmp_path / folder / "note").read_bytes() == b"x"
    async with http.post(f"/v1/transfer/{area}/files/removal", json={"paths": ["note", "gone"]}) as answer:
        assert await answer.json() == {"files": 1}
    assert (await got(http, f"{area}/files"))["files"] == []


async def upload_under_way(house, http, area, folder):
    """An upload that is in the middle: (its status, what ends it)."""
    rest = asyncio.Event()
    content = archive(large=b"x" * 200_000)

    async def slowly():
        yield content[:100_000]
        await rest.wait()
        yield content[100_000:]

    async def upload():
        async with http.put(f"/v1/transfer/{area}/files", data=slowly(), headers=TAR) as answer:
            return answer.status

    uploading = asyncio.create_task(upload())
    while not list(house.tmp_path.glob(f"{folder}/.nanoclaw-transfer-*/0")):
        await asyncio.sleep(0.005)
    return uploading, rest


@pytest.mark.parametrize(("area", "folder"), AREAS)
async def test_two_uploads_at_once_are_one_too_many(house, http, area, folder):
    uploading, rest = await upload_under_way(house, http, area, folder)
    async with http.put(f"/v1/transfer/{area}/files", data=archive(other=b"x"), headers=TAR) as answer:
        problem = await answer.json(content_type=None)
        assert (answer.status, "are being changed already" in problem["detail"]) == (422, True)
    rest.set()
    assert await uploading == 200
    assert sorted(path.name for path in (house.tmp_path / folder).iterdir() if path.is_file()) == ["large"]
    async with http.put(f"/v1/transfer/{area}/files", data=archive(other=b"x"), headers=TAR) as answer:
        assert answer.status == 200


async def test_a_session_waits_for_files_that_come_in(house, http):
    uploading, rest = await upload_under_way(house, http, "groups/a/group", "groups/a")
    await house.send("hello", "a")
    await house.send("hello", "b")
    assert (await house.backend.agent(0)).ref.folder == "b"
    rest.set()
    assert await uploading == 200
    assert (await house.backend.agent(1)).ref.folder == "a"


async def test_secrets_never_reach_the_project(house, http):
    sent = archive(**{".env": b"KEY", "store/messages.db": b"x", "src/a.ts": b"a"})
    async with http.put("/v1/transfer/project/files", data=sent, headers=TAR) as answer:
        assert await answer.json() == {"files": 1, "bytes": 1, "leftOut": 2}
    assert not (house.tmp_path / "project/.env").exists()


async def test_an_archive_that_leads_outside_is_refused(house, http):
    async with http.put("/v1/transfer/global/files", data=archive(**{"../evil": b"x"}), headers=TAR) as answer:
        assert answer.status == 422
        assert "not one below" in (await answer.json(content_type=None))["detail"]
    assert not (house.tmp_path / "groups/evil").exists()


async def test_only_archives_may_be_long(http):
    long = b"x" * (BODY_LIMIT + 1)
    for headers in ({"Content-Type": "application/json"}, {"Content-Type": "text/plain"}):
        async with http.put("/v1/transfer/global/files", data=io.BytesIO(long), headers=headers) as answer:
            assert answer.status == 413
    async with http.post("/v1/transfer/chats", data=io.BytesIO(long), headers=TAR) as answer:
        assert answer.status == 415


async def test_without_a_token_nothing_is_read(http):
    async with http.put(
        "/v1/transfer/global/files", data=archive(a=b"a"), headers=TAR | {"Authorization": ""}
    ) as answer:
        assert answer.status == 401


async def test_an_upload_that_breaks_off_leaves_nothing(house, http):
    sending = asyncio.Event()

    async def breaking():
        yield archive(a=b"a" * 100_000)[:50_000]
        sending.set()
        await asyncio.Event().wait()

    upload = asyncio.create_task(http.put("/v1/transfer/global/files", data=breaking(), headers=TAR).__aenter__())
    await sending.wait()
    while not list((house.tmp_path / "groups").glob("global/.nanoclaw-transfer-*/0")):
        await asyncio.sleep(0.005)
    upload.cancel()
    await asyncio.gather(upload, return_exceptions=True)
    while list((house.tmp_path / "groups/global").iterdir()):
        await asyncio.sleep(0.005)


async def test_nothing_changes_before_it_is_known_whose_agents_of_before_still_work(house):
    await house.send("hello")
    agent = await house.backend.agent(0)
    await house.until(lambda: started(house))
    await house.end()
    answered, running = asyncio.Event(), house.backend.running

    async def slowly():
        await answered.wait()
        return await running()

    house.backend.running = slowly
    await house.begin(declared=False)
    await house.host.groups.declare(house.groups)
    with pytest.raises(FilesAway, match="in a moment"):
        await house.host.transfer.remove_files(["notes.txt"], Area.GROUP, "main")
    answered.set()
    await house.until(lambda: started(house))
    with pytest.raises(GroupBusy):
        await house.host.transfer.remove_files(["notes.txt"], Area.GROUP, "main")
    await agent.exit()
