"""The outbox and the chats over HTTP and from the command line, with a real host behind both."""

import json
from datetime import UTC, datetime

import aiohttp
import pytest
from structlog.testing import capture_logs
from typer.testing import CliRunner

from nanoclaw_runtime.cli.commands import app
from nanoclaw_runtime.store.outbox import post
from nanoclaw_runtime.store.records import Chat, PostState
from tests.support.served import TOKEN, ServedHost

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
FAR = datetime(2999, 1, 1, tzinfo=UTC)


async def texts(house):
    """One that was sent, one that failed, one that waits for its next try."""

    def work(connection):
        for jid, folder, text in (("tg:1", "main", "one"), ("tg:2", "family", "two"), ("tg:3", "family", "three")):
            post(connection, jid, folder, text, origin=f"test:{text}", at=FAR)

    await house.store.database.publish(work)
    await house.host.outbox.sent(1, at=NOW)
    await house.host.outbox.failed(2, "the bot was put out", at=NOW)
    await house.host.outbox.again(3, FAR, "no route")
    await house.host.chats.seen(Chat("tg:2", "The [bold]family", "telegram", True, NOW))
    await house.host.chats.seen(Chat("tg:9", None, "telegram", False, FAR))


@pytest.fixture
def served(tmp_path):
    # Both sides are one process here, and the host's log must not be read as what a command prints.
    with capture_logs(), ServedHost(tmp_path, prepare=texts) as served:
        yield served


@pytest.fixture
def nanoclaw(served):
    def invoke(*line):
        environment = {"NANOCLAW_TOKEN": TOKEN, "COLUMNS": "200"}
        result = CliRunner().invoke(app, ["--url", served.url, *line], env=environment)
        return result.exit_code, result.stdout, result.stderr

    return invoke


async def ask(served, path, **more):
    async with (
        aiohttp.ClientSession(served.url, headers={"Authorization": f"Bearer {TOKEN}"}) as http,
        http.request(more.pop("method", "GET"), path, **more) as answer,
    ):
        return answer.status, await answer.json(content_type=None)


async def test_texts_are_listed_with_what_became_of_them(served):
    status, found = await ask(served, "/v1/outbox")
    assert status == 200
    assert [(one["id"], one["jid"], one["state"]) for one in found["posts"]] == [
        (1, "tg:1", "sent"),
        (2, "tg:2", "failed"),
        (3, "tg:3", "waiting"),
    ]
    assert (
        found["posts"][2].items()
        >= {
            "folder": "family",
            "text": "three",
            "sender": None,
            "attempts": 1,
            "parts": 0,
            "error": "no route",
            "sent": None,
            "nextAttempt": "2999-01-01T00:00:00Z",
        }.items()
    )


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        ("group=family", [2, 3]),
        ("state=failed", [2]),
        ("group=family&state=waiting", [3]),
        ("after=1&limit=1", [2]),
        ("group=nobody", []),
    ],
)
async def test_a_portion_of_the_texts_can_be_asked_for(served, query, numbers):
    _, found = await ask(served, f"/v1/outbox?{query}")
    assert [one["id"] for one in found["posts"]] == numbers


async def test_a_state_there_is_not_is_refused(served):
    status, problem = await ask(served, "/v1/outbox?state=lost")
    assert status == 422
    assert problem["detail"].startswith("state: ")


async def test_a_text_that_failed_is_tried_again(served):
    status, found = await ask(served, "/v1/outbox/2/retry", method="POST", json={})
    assert (status, found["state"], found["attempts"]) == (202, "waiting", 0)


@pytest.mark.parametrize(
    ("number", "status", "told"),
    [
        pytest.param(1, 409, "text 1 was delivered", id="sent"),
        pytest.param(99, 404, "there is no text 99", id="unknown"),
    ],
)
async def test_there_is_nothing_to_try_again(served, number, status, told):
    answered, problem = await ask(served, f"/v1/outbox/{number}/retry", method="POST", json={})
    assert answered == status
    assert problem["detail"].startswith(told)


async def test_chats_are_listed_with_the_newest_activity_first(served):
    _, found = await ask(served, "/v1/chats")
    assert [(one["jid"], one["isGroup"]) for one in found["chats"]] == [("tg:9", False), ("tg:2", True)]


def test_the_command_shows_texts_and_tries_one_again(served, nanoclaw):
    code, table, _ = nanoclaw("outbox", "--group", "family", "--state", "failed")
    assert code == 0
    assert [column in table for column in ("tg:2", "failed", "two", "the bot was put out")] == [True] * 4
    assert "three" not in table
    assert nanoclaw("outbox", "retry", "2") == (0, "text 2 for tg:2 is tried again\n", "")
    # No network has the chat here, so the courier gives it up again.
    served.do(lambda house: house.until(lambda: given_up(house, 2)))
    _, shown, _ = nanoclaw("-o", "json", "outbox", "--after", "1", "--limit", "1")
    (found,) = json.loads(shown)
    assert "configure it in the stack" in found["error"]


async def given_up(house, number):
    (found,) = await house.host.outbox.list(after=number - 1, limit=1)
    return found.state is PostState.FAILED


def test_a_refusal_is_one_sentence(nanoclaw):
    assert nanoclaw("outbox", "retry", "1") == (1, "", "nanoclaw: text 1 was delivered; send a new one\n")


def test_the_command_shows_chats(nanoclaw):
    code, table, _ = nanoclaw("chats")
    assert code == 0
    newest, family = table.splitlines()[1:]
    assert newest.split()[:4] == ["tg:9", "-", "telegram", "person"]
    assert "The [bold]family" in family
