"""Adding, changing and removing groups over HTTP: a real server on loopback, the real host behind it."""

import asyncio
import contextlib

import aiohttp
import pytest

from nanoclaw_runtime.api import groups
from nanoclaw_runtime.api.app import create_app
from nanoclaw_runtime.api.server import listen, serve_on
from nanoclaw_runtime.telemetry import Metrics
from tests.support.house import House

BEARER = {"Authorization": "Bearer token"}
TEAM = {"folder": "team", "name": "Team", "jid": "tg:7", "requiresTrigger": False, "priority": "high"}


@contextlib.asynccontextmanager
async def served(house):
    routers = [groups.router(house.host.groups, house.controller)]
    listener = listen("127.0.0.1", 0)
    app = create_app(house.controller, lambda: "token", Metrics(), routers)
    serving = asyncio.create_task(serve_on(app, listener))
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{listener.getsockname()[1]}", headers=BEARER) as http:
            yield http
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


@pytest.fixture
async def house(tmp_path):
    async with House(tmp_path, registration=True, close_grace=0.01) as house:
        yield house


@pytest.fixture
async def http(house):
    async with served(house) as http:
        yield http


async def test_a_group_is_added_and_its_agent_answers(house, http):
    async with http.post("/v1/groups", json=TEAM) as answer:
        assert (answer.status, answer.headers["Location"]) == (201, "/v1/groups/team")
        assert await answer.json() == TEAM | {"isMain": False, "origin": "registered", "pending": False}

    async with http.post("/v1/groups/team/messages", json={"text": "hello"}) as answer:
        assert answer.status == 202
    agent = await house.backend.agent(0)
    await agent.say("hi")
    assert agent.ref.folder == "team"
    assert await house.answers(folder="team") == ["hi"]


async def test_a_group_is_shown_with_where_it_comes_from(http):
    await http.post("/v1/groups", json=TEAM)
    async with http.get("/v1/groups") as answer:
        shown = {group["folder"]: (group["origin"], group["priority"]) for group in (await answer.json())["groups"]}
    assert (shown["team"], shown["main"]) == (("registered", "high"), ("declared", "normal"))


async def test_a_group_is_changed_in_what_is_sent(http):
    await http.post("/v1/groups", json=TEAM)
    async with http.patch("/v1/groups/team", json={"priority": "low"}) as answer:
        assert answer.status == 200
        assert (await answer.json()).items() >= {"name": "Team", "priority": "low", "requiresTrigger": False}.items()


async def test_a_group_is_removed_and_then_unknown(http):
    await http.post("/v1/groups", json=TEAM)
    async with http.delete("/v1/groups/team") as answer:
        assert (answer.status, await answer.read()) == (204, b"")
    async with http.get("/v1/groups/team") as answer:
        assert answer.status == 404


async def test_a_busy_group_is_removed_with_force_only(house, http):
    await http.post("/v1/groups", json=TEAM)
    await house.send("hello", "team")
    agent = await house.backend.agent(0)
    async with http.delete("/v1/groups/team") as answer:
        assert answer.status == 409
        assert agent.ref.session in (await answer.json(content_type=None))["detail"]
    async with http.delete("/v1/groups/team?force=true") as answer:
        assert answer.status == 204
    await agent.gone()


@pytest.mark.parametrize(
    ("change", "status", "told"),
    [
        pytest.param({"folder": "main"}, 409, "declared in the stack", id="of the stack"),
        pytest.param({"jid": "http:a"}, 409, "belongs to group 'a'", id="a chat of another"),
        pytest.param({"folder": "../a"}, 422, "folder: '../a': a folder has", id="no folder"),
        pytest.param({"folder": "Global"}, 422, "reserved", id="a reserved folder"),
        pytest.param({"name": " "}, 422, "name: is blank", id="no name"),
        pytest.param({"jid": "x" * 256}, 422, "jid: ", id="a long jid"),
        pytest.param({"priority": "top"}, 422, "priority: ", id="an unknown priority"),
        pytest.param({"trigger": "@Andy"}, 422, "trigger: ", id="an unknown field"),
        pytest.param({"containerConfig": {"timeout": -1}}, 422, "containerConfig.timeout: ", id="a timeout below 0"),
    ],
)
async def test_a_group_that_cannot_be_is_refused(http, change, status, told):
    async with http.post("/v1/groups", json=TEAM | change) as answer:
        assert (answer.status, answer.content_type) == (status, "application/problem+json")
        assert told in (await answer.json(content_type=None))["detail"]
    async with http.get("/v1/groups/team") as answer:
        assert answer.status == 404


async def test_a_change_of_folder_or_chat_is_no_change(http):
    await http.post("/v1/groups", json=TEAM)
    async with http.patch("/v1/groups/team", json={"jid": "tg:8"}) as answer:
        assert answer.status == 422


async def test_a_change_is_declared_as_json(http):
    async with http.patch("/v1/groups/team", data=b"name=x") as answer:
        assert answer.status == 415


async def test_where_the_stack_does_not_allow_it_nothing_is_added(tmp_path):
    async with House(tmp_path) as house, served(house) as http, http.post("/v1/groups", json=TEAM) as answer:
        assert answer.status == 409
        assert "runtime.registration: true" in (await answer.json(content_type=None))["detail"]


async def test_the_document_says_how_requests_are_refused(http):
    async with http.get("/v1/openapi.json") as answer:
        document = await answer.json()
    register = document["paths"]["/v1/groups"]["post"]["responses"]
    assert set(register) == {"201", "400", "401", "409", "413", "415", "422", "503"}
    assert register["409"]["content"] == {
        "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
    }
    assert "HTTPValidationError" not in document["components"]["schemas"]
    assert list(document["paths"]["/v1/events"]["get"]["responses"]["200"]["content"]) == ["text/event-stream"]
