"""The API of tasks: real HTTP, a real scheduler, a real store."""

import asyncio
from datetime import UTC, datetime

import aiohttp
import pytest
import pytest_asyncio

from nanoclaw_runtime.api import tasks
from nanoclaw_runtime.api.app import create_app
from nanoclaw_runtime.api.server import listen, serve_on
from nanoclaw_runtime.contract.config import GroupSpec
from nanoclaw_runtime.controller.scheduler import Scheduler
from nanoclaw_runtime.domain.errors import GroupUnknown
from nanoclaw_runtime.domain.tasks import RunOutcome
from nanoclaw_runtime.store.tasks import TaskBook
from nanoclaw_runtime.telemetry import Metrics
from tests.support import stores
from tests.support.small_controller import SmallController

pytestmark = pytest.mark.asyncio(loop_scope="module")

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
DAILY = {"prompt": "say hello", "kind": "cron", "value": "0 9 * * *"}
JSON = {"Content-Type": "application/json"}


def group(folder):
    if folder not in ("main", "team"):
        raise GroupUnknown(folder)
    return GroupSpec(folder=folder, name=folder)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scheduler(tmp_path_factory):
    store = await stores.opened(tmp_path_factory.mktemp("store"))
    yield Scheduler(
        TaskBook(store.database), zone="Europe/Berlin", group=group, enqueue=lambda *_: None, now=lambda: NOW
    )
    await store.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(scheduler):
    """One server for all tests; stopping one takes its time."""
    app = create_app(SmallController(), lambda: "token", Metrics(), routers=[tasks.router(scheduler)])
    listener = listen("127.0.0.1", 0)
    serving = asyncio.create_task(serve_on(app, listener))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    async with aiohttp.ClientSession(url, headers={"Authorization": "Bearer token"}) as http:
        yield http
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


@pytest_asyncio.fixture(loop_scope="module")
async def http(served, scheduler):
    """Without any task."""
    yield served
    for task in await scheduler.list():
        await scheduler.cancel(task.id)


async def ask(http, method, path, status=200, **more):
    async with http.request(method, f"/v1{path}", **more) as answer:
        assert answer.status == status, await answer.text()
        return None if status == 204 else await answer.json(content_type=None)


async def add(http, folder="main", **more):
    return await ask(http, "POST", f"/groups/{folder}/tasks", 201, json=DAILY | more)


async def test_a_task_is_added_and_found_again(http):
    async with http.post("/v1/groups/team/tasks", json=DAILY) as answer:
        task = await answer.json()
        assert (answer.status, answer.headers["Location"]) == (201, f"/v1/tasks/{task['id']}")
    assert task == DAILY | {
        "id": task["id"],
        "folder": "team",
        "jid": "http:team",
        "context": "group",
        "state": "active",
        "nextRun": "2026-03-02T08:00:00Z",
        "lastRun": None,
        "lastResult": None,
        "created": "2026-03-01T12:00:00Z",
    }
    assert await ask(http, "GET", f"/tasks/{task['id']}") == task
    assert await ask(http, "GET", "/tasks?group=team") == {"tasks": [task]}
    assert await ask(http, "GET", "/tasks?group=main") == {"tasks": []}


async def test_a_task_is_paused_resumed_and_changed(http):
    task = await add(http, context="isolated")
    path = f"/tasks/{task['id']}"
    assert (await ask(http, "PATCH", path, json={"state": "paused"}))["state"] == "paused"
    assert await ask(http, "PATCH", path, json={"state": "active"}) == task
    changed = await ask(http, "PATCH", path, json={"prompt": "bye", "kind": "interval", "value": "60000"})
    assert changed == task | {
        "prompt": "bye",
        "kind": "interval",
        "value": "60000",
        "nextRun": "2026-03-01T12:01:00Z",
    }
    assert await ask(http, "PATCH", path, json={}) == changed


async def test_a_task_is_run_now_and_its_runs_are_told(http, scheduler):
    task = await add(http)
    ran = await ask(http, "POST", f"/tasks/{task['id']}/run", 202, headers=JSON)
    assert ran == task | {"nextRun": "2026-03-01T12:00:00Z"}
    for session, error in (("s1", None), ("s2", "no image")):
        outcome = RunOutcome.ERROR if error else RunOutcome.SUCCESS
        await scheduler.finished(task["id"], started=NOW, seconds=1.5, outcome=outcome, error=error, session=session)
    newest, oldest = (await ask(http, "GET", f"/tasks/{task['id']}/runs"))["runs"]
    assert oldest == {
        "id": newest["id"] - 1,
        "started": "2026-03-01T12:00:00Z",
        "seconds": 1.5,
        "outcome": "success",
        "result": None,
        "error": None,
        "session": "s1",
    }
    assert (newest["outcome"], newest["error"]) == ("error", "no image")
    assert (await ask(http, "GET", f"/tasks/{task['id']}/runs?limit=1"))["runs"] == [newest]
    assert (await ask(http, "GET", f"/tasks/{task['id']}"))["lastResult"] == "Error: no image"


async def test_a_cancelled_task_is_gone(http):
    task = await add(http)
    await ask(http, "DELETE", f"/tasks/{task['id']}", 204)
    await ask(http, "DELETE", f"/tasks/{task['id']}", 404)
    assert await ask(http, "GET", "/tasks") == {"tasks": []}


async def test_every_text_comes_back_as_it_was_sent(http):
    prompt = "\x00\x07 \U0001f980\n\u202e</messages>'; DROP TABLE tasks"
    assert (await add(http, prompt=prompt))["prompt"] == prompt


def post(folder="main", **more):
    return ("POST", f"/groups/{folder}/tasks", {"json": DAILY | more})


def raw(data):
    return ("POST", "/groups/main/tasks", {"data": data, "headers": JSON})


def patch(**body):
    return ("PATCH", "/tasks/{id}", {"json": body})


REFUSALS = [
    pytest.param(post("nobody"), 404, "no group 'nobody'", id="unknown group"),
    pytest.param(post(value="0 0 30 2 *"), 422, "value: ", id="a day that never comes"),
    pytest.param(post(value="9" * 255), 422, "value: ", id="a huge number as cron"),
    pytest.param(post(kind="interval", value="1.5"), 422, "milliseconds", id="half a millisecond"),
    pytest.param(post(kind="interval", value="9" * 255), 422, "a century", id="a huge interval"),
    pytest.param(post(kind="once", value="9999-12-31T23:59:59-23:00"), 422, "9999", id="behind the end of time"),
    pytest.param(post(kind="once", value="\x00"), 422, "no moment", id="NUL as a moment"),
    pytest.param(post(kind="weekly"), 422, "kind: ", id="unknown kind"),
    pytest.param(post(kind=1), 422, "kind: ", id="kind is a number"),
    pytest.param(post(context="own"), 422, "context: ", id="unknown context"),
    pytest.param(post(value=3600000), 422, "value: ", id="value is a number"),
    pytest.param(post(value="1" * 256), 422, "value: ", id="long value"),
    pytest.param(post(prompt=" "), 422, "prompt: is blank", id="blank prompt"),
    pytest.param(post(jid="tg:1"), 422, "jid: ", id="unknown field"),
    pytest.param(raw(b'{"prompt": "\\ud800", "kind": "cron", "value": "* * * * *"}'), 422, "prompt: ", id="surrogate"),
    pytest.param(raw(b'{"prompt": "x", "kind": "cron", "value": "\\udfff"}'), 422, "value: ", id="surrogate as value"),
    pytest.param(raw(b'{"prompt": "x", "kind": "\\ud800", "value": "x"}'), 422, "kind: ", id="surrogate as kind"),
    pytest.param(raw(b"[]"), 422, "body: ", id="a list"),
    pytest.param(patch(state="completed"), 422, "state: ", id="a state nobody can set"),
    pytest.param(patch(value="x"), 422, "value: 'x'", id="change to no schedule"),
    pytest.param(patch(kind="once"), 422, "value: '0 9 * * *' as once", id="change to another kind alone"),
    pytest.param(("PATCH", "/tasks/{id}", {"data": b"x", "headers": JSON}), 400, "body: ", id="change is no JSON"),
    pytest.param(("PATCH", "/tasks/x", {"json": {}}), 404, "nanoclaw tasks", id="change of an unknown task"),
    pytest.param(("POST", "/tasks/x/run", {"json": {}}), 404, "'x'", id="run of an unknown task"),
    pytest.param(("GET", "/tasks/x%00%F0%9F%A6%80%FF", {}), 404, "no task", id="odd id"),
    pytest.param(("GET", "/tasks/x/runs", {}), 404, "'x'", id="runs of an unknown task"),
    pytest.param(("GET", "/tasks/{id}/runs?limit=0", {}), 422, "limit: ", id="no runs"),
    pytest.param(("GET", f"/tasks/{{id}}/runs?limit={2**70}", {}), 422, "limit: ", id="too many runs"),
]


@pytest.mark.parametrize(("call", "status", "told"), REFUSALS)
async def test_a_refusal_says_what_and_changes_nothing(http, call, status, told):
    method, path, more = call
    task = await add(http)
    document = await ask(http, method, path.format(id=task["id"]), status, **more)
    assert document["status"] == status
    assert told in document["detail"]
    assert await ask(http, "GET", "/tasks") == {"tasks": [task]}


@pytest.mark.parametrize("body", [{"state": "active"}, {"state": "paused"}], ids=str)
async def test_a_task_that_is_over_stays_over_without_a_new_value(http, scheduler, body):
    task = await add(http, kind="once", value="2026-03-01T13:00")
    path = f"/tasks/{task['id']}"
    await scheduler.finished(task["id"], started=NOW, seconds=1, outcome=RunOutcome.SUCCESS)
    assert "is over" in (await ask(http, "PATCH", path, 422, json=body))["detail"]
    assert "is completed" in (await ask(http, "POST", f"{path}/run", 422, json={}))["detail"]
    again = await ask(http, "PATCH", path, json=body | {"value": "2026-03-01T14:00"})
    assert (again["state"], again["nextRun"]) == (body["state"], "2026-03-01T13:00:00Z")


@pytest.mark.parametrize("query", ["", "x" * 5000, "%00", "%FF", "%ED%A0%80", "main&group=team"])
async def test_tasks_of_no_group_are_none(http, query):
    await add(http)
    assert await ask(http, "GET", f"/tasks?group={query}") == {"tasks": []}
