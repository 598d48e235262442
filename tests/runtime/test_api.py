"""The API as clients meet it: real HTTP against a real server on loopback."""

import asyncio
import contextlib
import io
import json
import socket

import aiohttp
import pytest
import pytest_asyncio
from prometheus_client import generate_latest

from nanoclaw_runtime.api import stream
from nanoclaw_runtime.api.app import create_app
from nanoclaw_runtime.api.guard import BODY_LIMIT
from nanoclaw_runtime.api.server import CONNECTIONS, PortTaken, listen, serve, serve_on
from nanoclaw_runtime.controller.status import Check
from nanoclaw_runtime.domain.errors import SettingsInvalid
from nanoclaw_runtime.telemetry import Metrics
from tests.support.small_controller import SmallController

TOKEN = "correct horse"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


class House:
    """A served API and everything around it."""

    def __init__(self) -> None:
        self.controller = SmallController()
        self.metrics = Metrics()
        self.token = TOKEN
        self.app = create_app(self.controller, self._token, self.metrics)
        listener = listen("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self.serving = asyncio.create_task(serve_on(self.app, listener))

    def _token(self) -> str:
        if not self.token:
            raise SettingsInvalid("there is no token; make one")
        return self.token

    async def stop(self) -> None:
        self.serving.cancel()
        await asyncio.gather(self.serving, return_exceptions=True)


@pytest.fixture
async def house():
    house = House()
    yield house
    await house.stop()


@pytest.fixture
async def http(house):
    async with aiohttp.ClientSession(house.url, headers=BEARER) as session:
        yield session


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared():
    """One house for the tests that change nothing; stopping a server takes its time."""
    house = House()
    yield house
    await house.stop()


async def problem(answer: aiohttp.ClientResponse) -> dict:
    assert answer.content_type == "application/problem+json"
    document = await answer.json(content_type=None)
    assert document["status"] == answer.status
    assert document["title"]
    assert document["detail"]
    return document


@contextlib.asynccontextmanager
async def following(http, path, **more):
    """The events of a stream, as (id, event, data), and the raw answer."""
    async with http.get(path, **more) as answer:
        assert (answer.status, answer.content_type) == (200, "text/event-stream")

        async def events():
            fields = {}
            async for line in answer.content:
                key, _, value = line.decode().rstrip("\n").partition(": ")
                if key:
                    fields[key] = value
                elif "data" in fields:
                    yield int(fields["id"]), fields["event"], json.loads(fields["data"])
                    fields = {}

        yield events()


async def test_a_message_is_accepted_with_everything_to_follow_it(house, http):
    body = {"text": "hello\n\x00", "sender": "u1", "senderName": "Ada", "id": "c1"}
    async with http.post("/v1/groups/main/messages", json=body) as answer:
        assert answer.status == 202
        assert answer.headers["Location"] == "/v1/groups/main/messages/1"
        told = await answer.json()
    assert told["id"] == 1
    assert (told["state"], told["event"], told["created"]) == ("waiting", 1, True)
    assert (told["group"]["state"], told["group"]["queuePosition"]) == ("queued", 2)
    async with http.get("/v1/groups/main/messages/1") as answer:
        message = await answer.json()
    assert message.items() >= {"text": "hello\n\x00", "sender": "u1", "senderName": "Ada", "clientId": "c1"}.items()
    assert "nanoclaw_messages_accepted_total 1.0" in generate_latest(house.metrics.registry).decode()


async def test_the_same_message_again_is_the_same_message(house, http):
    for created in (True, False):
        async with http.post("/v1/groups/main/messages", json={"text": "a", "id": "c1"}) as answer:
            assert (answer.status, (await answer.json())["created"]) == (202, created)
    assert len(house.controller.messages) == 1
    async with http.post("/v1/groups/main/messages", json={"text": "other", "id": "c1"}) as answer:
        assert "another message" in (await problem(answer))["detail"]
        assert answer.status == 409
    assert "nanoclaw_messages_accepted_total 1.0" in generate_latest(house.metrics.registry).decode()


async def test_groups_sessions_and_history_are_lists(http):
    await http.post("/v1/groups/team/messages", json={"text": "a"})
    await http.post("/v1/groups/team/messages", json={"text": "b"})
    async with http.get("/v1/groups") as answer:
        assert [group["folder"] for group in (await answer.json())["groups"]] == ["main", "team"]
    async with http.get("/v1/groups/team") as answer:
        assert (await answer.json()).items() >= {"isMain": False, "jid": "http:team"}.items()
    async with http.get("/v1/sessions") as answer:
        (session,) = (await answer.json())["sessions"]
        assert session.items() >= {"session": "s1", "kind": "messages", "state": "idle", "outputs": 3}.items()
    async with http.get("/v1/groups/team/messages?after=1&limit=1") as answer:
        assert [message["text"] for message in (await answer.json())["messages"]] == ["b"]


async def test_a_session_is_stopped(house, http):
    async with http.delete("/v1/sessions/s1") as answer:
        assert answer.status == 202
    assert house.controller.stopped == ["s1"]


def post(body=None, *, path="/v1/groups/main/messages", **more):
    if body is not None:
        more = {"json": body} | more
    return ("POST", path, more)


JSON = {"Content-Type": "application/json"}

REFUSALS = [
    pytest.param(post({"text": "x"}, path="/v1/groups/nope/messages"), 404, "pulumi up", id="unknown group"),
    pytest.param(("GET", "/v1/groups/nope", {}), 404, "nope", id="unknown group's status"),
    pytest.param(("GET", "/v1/groups/nope/events", {}), 404, "nope", id="unknown group's events"),
    pytest.param(("GET", "/v1/groups/nope/messages", {}), 404, "nope", id="unknown group's history"),
    pytest.param(("GET", "/v1/groups/main/messages/7", {}), 404, "no message 7", id="unknown message"),
    pytest.param(("GET", "/v1/groups/main/messages/0", {}), 422, "number: ", id="message number below 1"),
    pytest.param(("DELETE", "/v1/sessions/s9", {}), 404, "nanoclaw sessions", id="unknown session"),
    pytest.param(("GET", "/v1/nothing", {}), 404, "/v1/groups", id="unknown address"),
    pytest.param(("GET", "/v1/groups/", {}), 404, "/v1/groups", id="slash at the end"),
    pytest.param(("GET", "/nothing", {}), 404, "/v1/groups", id="unknown address outside"),
    pytest.param(("PUT", "/v1/groups", {"json": {}}), 405, "Allow", id="wrong method"),
    pytest.param(post({"text": " \n\t"}), 422, "text: is blank", id="blank text"),
    pytest.param(post({}), 422, "text: field required", id="no text"),
    pytest.param(post({"text": 5}), 422, "text: input should be a valid string", id="text is a number"),
    pytest.param(post({"text": "x", "txt": "y"}), 422, "txt: ", id="unknown field"),
    pytest.param(post({"text": "x", "sender_name": "y"}), 422, "sender_name: ", id="snake case"),
    pytest.param(post({"text": "x", "id": "y" * 129}), 422, "id: ", id="long id"),
    pytest.param(post({"text": "x", "sender": ""}), 422, "sender: is blank", id="blank sender"),
    pytest.param(post([1]), 422, "body: ", id="a list"),
    pytest.param(post(data=b"{", headers=JSON), 400, "body: is no JSON", id="broken JSON"),
    pytest.param(post(data=b"\xff\xfe{}", headers=JSON), 400, "", id="no UTF-8"),
    pytest.param(post(data=b"", headers=JSON), 422, "body: ", id="nothing"),
    pytest.param(post(data=b'{"text": "\\ud800"}', headers=JSON), 422, "text: ", id="half a surrogate"),
    pytest.param(post(data=b"text=x"), 415, "application/json", id="a form"),
    pytest.param(
        post(data=io.BytesIO(b" " * BODY_LIMIT * 2), headers=JSON, expect100=True), 413, "send less", id="too large"
    ),
    pytest.param(("GET", "/v1/events?after=x", {}), 422, "after: ", id="position is a word"),
    pytest.param(("GET", f"/v1/events?after={2**63}", {}), 422, "after: ", id="position is too large"),
    pytest.param(("GET", "/v1/events", {"headers": {"Last-Event-ID": "-1"}}), 422, "last-event-id: ", id="below 0"),
    pytest.param(("GET", "/v1/groups/main/messages?limit=0", {}), 422, "limit: ", id="empty page"),
]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("call", "status", "told"), REFUSALS)
async def test_a_refusal_says_what_and_changes_nothing(shared, call, status, told):
    method, path, more = call
    async with (
        aiohttp.ClientSession(shared.url, headers=BEARER) as http,
        http.request(method, path, **more) as answer,
    ):
        document = await problem(answer)
    assert answer.status == status
    assert told in document["detail"]
    if status == 422:
        assert all(one["field"] and one["problem"] and one["remedy"] for one in document["errors"])
    if status == 405:
        assert answer.headers["Allow"] == "GET"
    assert (shared.controller.messages, shared.controller.stopped) == ([], [])


async def test_a_body_without_a_length_is_limited_too(house, http):
    async def too_much():
        yield b" " * (BODY_LIMIT + 1)
        await asyncio.Event().wait()  # the answer comes although the body has no end

    async with http.post("/v1/groups/main/messages", data=too_much(), headers=JSON) as answer:
        assert answer.status == 413
        await problem(answer)
    assert house.controller.messages == []


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param({}, 401, id="none"),
        pytest.param({"Authorization": "Bearer wrong"}, 401, id="wrong"),
        pytest.param({"Authorization": TOKEN}, 401, id="no scheme"),
        pytest.param({"Authorization": f"Basic {TOKEN}"}, 401, id="other scheme"),
        pytest.param({"X-Nanoclaw-Token": "wörng"}, 401, id="not ASCII"),
        pytest.param({"Authorization": f"bearer {TOKEN}"}, 200, id="bearer"),
        pytest.param({"X-Nanoclaw-Token": TOKEN}, 200, id="own header"),
        pytest.param({"Authorization": "Basic x", "X-Nanoclaw-Token": TOKEN}, 200, id="a proxy's own authorization"),
    ],
)
async def test_the_api_asks_for_the_token(shared, headers, status):
    async with aiohttp.ClientSession(shared.url) as http, http.get("/v1/groups", headers=headers) as answer:
        assert answer.status == status
        if status == 401:
            assert answer.headers["WWW-Authenticate"] == "Bearer"
            assert TOKEN not in str(await problem(answer))


async def test_every_address_below_v1_asks_for_the_token(house):
    async with aiohttp.ClientSession(house.url) as http:
        for path in ("/v1", "/v1/", "/v1/events", "/v1/openapi.json", "/v1/nothing"):
            async with http.get(path) as answer:
                assert answer.status == 401, path


async def test_a_rotated_token_works_at_once_and_none_refuses_everybody(house, http):
    house.token = "new"
    async with http.get("/v1/groups") as answer:
        assert answer.status == 401
    house.token = ""
    for headers in (BEARER, {"Authorization": "Bearer "}, {}):
        async with http.get("/v1/groups", headers=headers) as answer:
            assert answer.status == 503


async def test_a_failing_database_is_a_problem_and_not_an_acknowledgement(house, http):
    house.controller.broken = True
    async with http.post("/v1/groups/main/messages", json={"text": "x"}) as answer:
        assert answer.status == 503
        assert "disk full" in (await problem(answer))["detail"]


async def test_probes_and_metrics_need_no_token(house):
    async with aiohttp.ClientSession(house.url) as http:
        async with http.get("/healthz") as answer:
            assert answer.status == 200
        async with http.get("/readyz") as answer:
            assert (answer.status, (await answer.json())["ready"]) == (200, True)
        house.controller.health = [Check("database", ok=False, detail="locked")]
        async with http.get("/readyz") as answer:
            assert answer.status == 503
            assert await answer.json() == {
                "ready": False,
                "checks": [{"name": "database", "ok": False, "detail": "locked"}],
            }
        async with http.get("/metrics") as answer:
            assert "nanoclaw_messages_accepted_total" in await answer.text()


async def test_a_stream_tells_what_was_and_what_comes(house, http):
    first = await house.controller.says("main", "one\ntwo")
    async with following(http, "/v1/events?after=0") as events:
        number, kind, data = await anext(events)
        assert (number, kind) == (first.id, "answer")
        assert (
            data.items()
            >= {"id": 1, "group": "main", "type": "answer", "payload": {"text": "one\ntwo", "messages": []}}.items()
        )
        await house.controller.says("team", "later")
        assert (await anext(events))[2]["payload"]["text"] == "later"


async def test_a_stream_resumes_behind_the_last_event_seen(house, http):
    for text in "abc":
        await house.controller.says("main", text)
    async with following(http, "/v1/events?after=0", headers={"Last-Event-ID": "2"}) as events:
        assert (await anext(events))[0] == 3


async def test_a_stream_of_what_is_new_says_from_where_it_goes_on(house, http):
    """So that one who loses it before the first event misses nothing."""
    for text in "ab":
        await house.controller.says("main", text)
    async with http.get("/v1/groups/main/events") as answer:
        assert await answer.content.readuntil(b"\n\n") == b": connected\nid: 2\n\n"
        await house.controller.says("main", "c")
        assert await answer.content.readline() == b"id: 3\n"


async def test_a_groups_stream_tells_only_of_the_group(house, http):
    await house.controller.says("main", "a")
    await house.controller.says("team", "b")
    async with following(http, "/v1/groups/team/events?after=0") as events:
        assert (await anext(events))[2]["group"] == "team"


async def test_streams_end_when_the_server_stops(house, http):
    await house.controller.says("main", "a")
    async with following(http, "/v1/events?after=0") as events:
        await anext(events)
        await house.stop()
        assert [event async for event in events] == []
    assert house.controller.followers == 0


async def test_a_client_that_goes_away_leaves_nothing_behind(house, http):
    await house.controller.says("main", "a")
    async with following(http, "/v1/events?after=0") as events:
        await anext(events)
        assert house.controller.followers == 1
    while house.controller.followers:  # the server learns of it in its own time; the test's time limit is the bound
        await asyncio.sleep(0)


async def test_a_silent_stream_has_heartbeats():
    closing = asyncio.Event()
    controller = SmallController()
    text = stream.lines(controller.events(after=0, folder=None), 0, closing, heartbeat=0.001)
    assert await anext(text) == ": connected\nid: 0\n\n"
    assert await anext(text) == ": nothing new\n\n"
    await controller.says("main", "a")
    while (piece := await anext(text)).startswith(":"):
        pass
    assert piece.startswith("id: 1\nevent: answer\ndata: {")
    closing.set()
    assert [piece async for piece in text if not piece.startswith(":")] == []
    assert controller.followers == 0


async def test_a_slow_reader_makes_nobody_hold_events():
    controller = SmallController()
    text = stream.lines(controller.events(after=0, folder=None), 0, asyncio.Event())
    await anext(text)
    for number in range(100):
        await controller.says("main", str(number))
    taken = [await anext(text) for _ in range(100)]
    assert [int(piece.split()[1]) for piece in taken] == list(range(1, 101))
    await text.aclose()
    assert controller.followers == 0


async def test_a_taken_port_is_one_sentence(house):
    port = int(house.url.rpartition(":")[2])
    with pytest.raises(PortTaken, match=f"127.0.0.1:{port}"):
        await serve(house.app, "127.0.0.1", port)


async def test_who_opens_connections_without_end_takes_them_from_nobody_else(house, http):
    port = int(house.url.rpartition(":")[2])

    async def from_elsewhere():
        return await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.2", 0))

    silent = [await from_elsewhere() for _ in range(CONNECTIONS)]
    reader, writer = await from_elsewhere()
    with contextlib.suppress(ConnectionResetError):
        assert await reader.read() == b""
    async with http.get("/v1/groups") as answer:
        assert answer.status == 200
    for one in (writer, *(writer for _, writer in silent)):
        one.close()


async def test_the_description_names_every_route(http):
    async with http.get("/v1/openapi.json") as answer:
        described = await answer.json()
    assert set(described["paths"]) == {
        "/v1/groups",
        "/v1/groups/{folder}",
        "/v1/groups/{folder}/messages",
        "/v1/groups/{folder}/messages/{number}",
        "/v1/sessions",
        "/v1/sessions/{session}",
        "/v1/events",
        "/v1/groups/{folder}/events",
    }


def test_an_answer_is_not_held_back_for_a_fuller_packet():
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
