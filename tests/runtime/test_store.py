"""The store on real SQLite files: what it promises, one sentence a test."""

import asyncio
import contextlib
import os
import signal
import sys
import traceback
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from nanoclaw_runtime.contract.wire import ContainerOutput, OutputStatus
from nanoclaw_runtime.domain.errors import Diagnosis, FailureKind, StoreFailed
from nanoclaw_runtime.domain.model import SessionKind, SessionRef
from nanoclaw_runtime.store.records import EventType, MessageState, RecordedState
from nanoclaw_runtime.store.schema import metadata
from nanoclaw_runtime.store.store import Store

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
CRASH = Diagnosis(FailureKind.EXIT, "the agent exited with 1", "I ran into a problem.", exit_code=1)


def url(path: Path) -> str:
    return f"sqlite+aiosqlite:///{path}"


@contextlib.asynccontextmanager
async def opened(path: Path, **more):
    store = await Store.open(url(path), **more)
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
async def store(tmp_path):
    async with opened(tmp_path / "controller.db") as store:
        yield store


async def accept(store: Store, text: str, folder: str = "main", **more) -> int:
    message, _ = await store.add_message(folder, text, sender="u1", sender_name="Ada", at=NOW, **more)
    return message.id


def answer(text: str | None = "hi", session_id: str | None = "claude-1") -> ContainerOutput:
    return ContainerOutput(status=OutputStatus.SUCCESS, result=text, new_session_id=session_id)


async def states(store: Store, folder: str = "main") -> dict[int, str]:
    return {message.id: message.state.value for message in await store.history(folder)}


async def events(store: Store, kind: EventType) -> list[dict]:
    return [event.payload for event in await store.events(after=0, folder=None) if event.type is kind]


async def test_a_message_is_kept_as_it_came(store):
    text = "hé\x00llo\x07 \U0001f980\n"
    created = datetime(2026, 3, 1, 13, 0, tzinfo=timezone(timedelta(hours=1)))
    message, new = await store.add_message("main", text, sender="u1", sender_name="Ada", at=created)
    assert new
    assert (await store.waiting("main")) == [message]
    assert (message.content, message.created, message.state) == (text, NOW, MessageState.WAITING)
    (event,) = await store.events(after=0, folder="main")
    assert event.id == message.event
    assert event.payload == {"message": message.id, "sender": "u1", "senderName": "Ada", "text": text}


async def test_posting_the_same_client_id_again_returns_the_first_message(store):
    first = await accept(store, "one", client_id="a")
    message, new = await store.add_message("main", "two", sender="u1", sender_name="Ada", client_id="a", at=NOW)
    assert (message.id, message.content, new) == (first, "one", False)
    assert await accept(store, "other group", "team", client_id="a") != first
    assert len(await store.history("main")) == 1
    assert len(await store.events(after=0, folder=None)) == 2


async def test_folders_wait_in_the_order_of_their_oldest_message(store):
    for folder in ("b", "a", "b", "c"):
        await accept(store, "x", folder)
    assert list((await store.folders_waiting()).items()) == [("b", 2), ("a", 1), ("c", 1)]


async def test_a_turn_at_a_time_is_done(store):
    first, second, third = [await accept(store, text) for text in "abc"]
    await store.begin_session(SessionRef("main", "s1"), [first, second], at=NOW)
    await store.session_started("s1", at=NOW)
    assert await store.give("s1", [third]) == 1
    event = await store.commit_output("s1", 0, answer("both"), "both", at=NOW)
    assert event is not None
    assert event.payload == {"session": "s1", "ordinal": 0, "text": "both", "messages": [first, second]}
    assert await states(store) == {first: "done", second: "done", third: "given"}
    assert await store.commit_output("s1", 1, answer(None), None, at=NOW) is None
    assert await states(store) == {first: "done", second: "done", third: "done"}
    assert await events(store, EventType.DONE) == [{"session": "s1", "messages": [third]}]
    assert await store.end_session("s1", failure=None, at=NOW) == []


async def test_an_output_is_recorded_once(store):
    number = await accept(store, "a")
    await store.begin_session(SessionRef("main", "s1"), [number], at=NOW)
    assert await store.commit_output("s1", 0, answer(), "hi", at=NOW) is not None
    assert await store.commit_output("s1", 0, answer(), "hi", at=NOW) is None
    assert (await store.session("s1")).outputs == 1
    assert len(await events(store, EventType.ANSWER)) == 1


async def test_an_output_after_the_end_is_not_published(store):
    number = await accept(store, "a")
    await store.begin_session(SessionRef("main", "s1"), [number], at=NOW)
    assert await store.end_session("s1", failure=CRASH, at=NOW) == [number]
    assert await store.commit_output("s1", 0, answer(), "hi", at=NOW) is None
    assert await states(store) == {number: "waiting"}


@pytest.mark.parametrize(
    ("output", "state", "remembered"),
    [
        pytest.param(answer("hi", "c2"), "done", "c2", id="an answer"),
        pytest.param(answer("hi", None), "done", "c1", id="an answer without an id keeps the old one"),
        pytest.param(answer(None, "c2"), "done", "c2", id="a turn that ended without a text"),
        pytest.param(answer(None, None), "given", "c1", id="the runner could not resume: nobody read the message"),
        pytest.param(
            ContainerOutput(status=OutputStatus.ERROR, new_session_id="stale", error="x"), "given", "c1", id="an error"
        ),
    ],
)
async def test_only_a_success_with_substance_ends_a_turn_and_is_resumed(store, output, state, remembered):
    first = await accept(store, "a")
    await store.begin_session(SessionRef("main", "s1"), [first], at=NOW)
    await store.commit_output("s1", 0, answer("hi", "c1"), "hi", at=NOW)
    second = await accept(store, "b")
    await store.give("s1", [second])
    await store.commit_output("s1", 1, output, None, at=NOW)
    assert (await states(store))[second] == state
    assert await store.agent_session("main") == remembered


async def test_a_task_does_not_change_what_the_group_resumes(store):
    await store.begin_session(SessionRef("main", "t1", SessionKind.TASK), [], at=NOW)
    await store.commit_output("t1", 0, answer("report", "c9"), "report", at=NOW)
    assert await store.agent_session("main") is None


async def test_unfinished_messages_wait_again_in_their_old_place(store):
    first, second, third = [await accept(store, text) for text in "abc"]
    await store.begin_session(SessionRef("main", "s1"), [first], at=NOW)
    await store.give("s1", [second])
    assert await store.end_session("s1", failure=CRASH, at=NOW) == [first, second]
    assert [message.id for message in await store.waiting("main")] == [first, second, third]
    assert await store.end_session("s1", failure=None, at=NOW) == []
    record = await store.session("s1")
    assert record is not None
    assert (record.state, record.failure_kind, record.detail) == (RecordedState.FAILED, CRASH.kind, CRASH.operator)
    assert await events(store, EventType.SESSION) == [
        {"session": "s1", "kind": "messages", "state": "failed", "failure": "exit", "text": CRASH.chat}
    ]


async def test_what_never_reached_the_agent_is_taken_back(store):
    first, second = [await accept(store, text) for text in "ab"]
    await store.begin_session(SessionRef("main", "s1"), [first], at=NOW)
    await store.give("s1", [second])
    await store.take_back("s1", [second])
    assert await states(store) == {first: "given", second: "waiting"}


async def test_given_up_messages_are_told_and_stay_given_up(store):
    number = await accept(store, "a")
    event = await store.fail_messages("main", [number], "I could not answer.", at=NOW)
    assert (event.type, event.payload) == (EventType.FAILURE, {"messages": [number], "text": "I could not answer."})
    assert await states(store) == {number: "failed"}
    assert await store.folders_waiting() == {}


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda store: store.begin_session(SessionRef("main", "s2"), [1, 2], at=NOW), id="begin twice"),
        pytest.param(lambda store: store.begin_session(SessionRef("main", "s1"), [2], at=NOW), id="same session"),
        pytest.param(lambda store: store.begin_session(SessionRef("team", "s2"), [2], at=NOW), id="other group"),
        pytest.param(lambda store: store.give("s1", [2, 99]), id="unknown message"),
        pytest.param(lambda store: store.give("s9", [2]), id="unknown session"),
        pytest.param(lambda store: store.take_back("s1", [1, 2]), id="not given"),
        pytest.param(lambda store: store.fail_messages("main", [1, 2], "x", at=NOW), id="not waiting"),
    ],
)
async def test_a_call_that_contradicts_the_store_changes_nothing(store, call):
    first, second = [await accept(store, text) for text in "ab"]
    await store.begin_session(SessionRef("main", "s1"), [first], at=NOW)
    before = await store.last_event_id()
    with pytest.raises(StoreFailed):
        await call(store)
    assert await states(store) == {first: "given", second: "waiting"}
    assert [record.id for record in await store.sessions()] == ["s1"]
    assert await store.last_event_id() == before


async def test_sessions_are_listed_newest_first_and_open_ones_found(store):
    for number, folder in enumerate(("a", "b", "a")):
        await store.begin_session(SessionRef(folder, f"s{number}"), [], at=NOW + timedelta(seconds=number))
    await store.session_started("s1", at=NOW)
    await store.end_session("s0", failure=None, at=NOW)
    assert [record.id for record in await store.sessions(folder="a")] == ["s2", "s0"]
    assert [record.id for record in await store.sessions(limit=1)] == ["s2"]
    assert [(record.id, record.state) for record in await store.open_sessions()] == [
        ("s1", RecordedState.RUNNING),
        ("s2", RecordedState.STARTING),
    ]


async def test_the_agents_session_is_remembered_by_group_until_it_is_forgotten(store):
    await store.begin_session(SessionRef("main", "s1"), [], at=NOW)
    await store.commit_output("s1", 0, answer("x", "c1"), None, at=NOW)
    assert (await store.agent_session("main"), await store.agent_session("team")) == ("c1", None)
    await store.forget_agent_session("main")
    assert await store.agent_session("main") is None


async def test_a_group_may_collect_more_messages_than_one_statement_can_name(store):
    most = 300_000  # SQLite takes 32,766 parameters, Debian's 250,000
    many = f"""WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {most})
        INSERT INTO messages (folder, sender, sender_name, content, created, state, event)
        SELECT folder, sender, sender_name, content, created, state, event FROM messages, n"""
    first = await accept(store, "a")
    await store.database.transaction(lambda connection: connection.exec_driver_sql(many))
    everything = range(first, first + most + 1)
    await store.begin_session(SessionRef("main", "s1"), everything, at=NOW)
    assert await store.end_session("s1", failure=CRASH, at=NOW) == list(everything)


async def test_a_groups_last_activity_is_its_newest_event(store):
    await accept(store, "a")
    await accept(store, "b", "team")
    await store.begin_session(SessionRef("main", "s1"), [], at=NOW)
    await store.session_started("s1", at=NOW + timedelta(minutes=1))
    assert await store.last_activity() == {"main": NOW + timedelta(minutes=1), "team": NOW}


async def test_a_follower_sees_old_and_new_events_once_and_only_its_group(store):
    first = await accept(store, "a")
    await accept(store, "b", "team")
    seen: list[int] = []
    caught_up = asyncio.Event()

    async def follow() -> None:
        async for event in store.follow(after=0, folder="main"):
            seen.append(event.payload["message"])
            caught_up.set()

    task = asyncio.create_task(follow())
    await caught_up.wait()
    caught_up.clear()
    later = await accept(store, "c")
    await caught_up.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert seen == [first, later]


async def test_a_cancelled_caller_does_not_tear_its_transaction(store):
    task = asyncio.create_task(accept(store, "a"))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    later = await accept(store, "b")
    assert [message.content for message in await store.waiting("main")] in (["a", "b"], ["b"])
    assert len(await events(store, EventType.MESSAGE)) == len(await store.waiting("main"))
    assert later in await states(store)


async def test_what_a_cancelled_caller_has_committed_is_told_to_who_follows(store):
    """As when a client goes away while its message is on the way to the disk."""
    async with contextlib.aclosing(store.follow(after=0, folder="main")) as following:
        await accept(store, "a")
        await anext(following)
        told = asyncio.ensure_future(anext(following))
        for _ in range(2):  # behind its look for more: it waits now
            await store.last_event_id()
        task = asyncio.create_task(accept(store, "b"))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        async with asyncio.timeout(20):
            assert (await told).payload["text"] == "b"


async def test_concurrent_writers_all_succeed(store):
    numbers = await asyncio.gather(*(accept(store, str(number)) for number in range(50)))
    assert sorted(numbers) == sorted(await states(store))


async def test_the_migrations_make_exactly_the_tables_of_the_schema(store):
    def differences(connection: sa.Connection) -> list:
        return compare_metadata(MigrationContext.configure(connection, opts={"compare_type": False}), metadata)

    async with store.database._engine.connect() as connection:
        assert await connection.run_sync(differences) == []


async def test_sqlite_runs_as_promised(store, tmp_path):
    async with store.database._engine.connect() as connection:
        found = {
            name: (await connection.exec_driver_sql(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "locking_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert found == {
        "journal_mode": "wal",
        "locking_mode": "exclusive",
        "synchronous": 2,
        "foreign_keys": 1,
        "busy_timeout": 10_000,
    }
    assert not (tmp_path / "controller.db-shm").exists()


async def test_an_error_of_the_database_is_counted_and_does_not_quote_the_message(tmp_path):
    errors: list[None] = []
    async with opened(tmp_path / "controller.db", on_error=lambda: errors.append(None)) as store:
        async with store.database._engine.begin() as connection:
            await connection.exec_driver_sql("DROP TABLE messages")
        with pytest.raises(StoreFailed) as refusal:
            await accept(store, "swordfish".upper())
    assert len(errors) == 1
    assert "SWORDFISH" not in "".join(traceback.format_exception(refusal.value))


async def test_a_second_controller_is_told_to_wait_for_the_first(store, tmp_path):
    with pytest.raises(StoreFailed, match="another controller has it open"):
        await Store.open(f"{url(tmp_path / 'controller.db')}?timeout=0.1")


async def test_a_store_that_is_closed_stays_closed_and_leaves_its_lock_to_the_next(tmp_path):
    """A transaction whose caller was cancelled may come behind the end of the process's other work."""
    store = await Store.open(url(tmp_path / "controller.db"))
    await store.close()
    with pytest.raises(StoreFailed, match="is closed"):
        await accept(store, "late")
    async with opened(tmp_path / "controller.db?timeout=0.1") as following:
        assert await following.waiting("main") == []


async def test_a_database_of_a_newer_version_is_left_alone(tmp_path):
    path = tmp_path / "controller.db"
    async with opened(path) as store, store.database._engine.begin() as connection:
        await connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StoreFailed, match="another version of NanoClaw"):
        await Store.open(url(path))


@pytest.mark.parametrize("bad", ["nonsense", "oracle+nothing://x", "sqlite+aiosqlite:////no/such/folder/x.db"])
async def test_a_database_that_cannot_be_opened_is_one_sentence(bad):
    with pytest.raises(StoreFailed) as refusal:
        await Store.open(bad)
    assert "\n" not in str(refusal.value)


WRITER = """
import asyncio, os, sys
from datetime import UTC, datetime
from nanoclaw_runtime.store import intake
from nanoclaw_runtime.store.store import Store

async def main():
    store = await Store.open(sys.argv[1])
    for number in range(int(sys.argv[2])):
        message, _ = await store.add_message(
            "main", str(number), sender="u", sender_name="U", at=datetime.now(UTC))
        print("stored", message.id, flush=True)

    def half(connection):
        intake.add_message(connection, "main", "half", sender="u", sender_name="U",
            client_id=None, at=datetime.now(UTC))
        print("inside", flush=True)
        sys.stdin.read()

    await store.database.transaction(half)

asyncio.run(main())
"""


async def test_kill_9_in_a_transaction_loses_nothing_acknowledged(tmp_path):
    path = tmp_path / "controller.db"
    writer = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITER, url(path), "25",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    acknowledged = []
    while (line := (await writer.stdout.readline()).decode()) != "inside\n":
        acknowledged.append(int(line.split()[1]))
    os.kill(writer.pid, signal.SIGKILL)
    await writer.wait()
    async with opened(path) as store:
        kept = await store.waiting("main")
        assert [message.id for message in kept] == acknowledged
        assert len(acknowledged) == 25
        assert len(await store.events(after=0, folder=None)) == 25
        assert await accept(store, "after") > acknowledged[-1]


async def test_a_session_that_ended_well_has_finished_every_turn(store):
    first, second, third = [await accept(store, text) for text in "abc"]
    await store.begin_session(SessionRef("main", "s1"), [first], at=NOW)
    await store.give("s1", [second, third])
    assert [message.id for message in await store.unfinished("s1")] == [first, second, third]
    await store.finish_turns("s1", at=NOW)
    assert await store.unfinished("s1") == []
    assert set((await states(store)).values()) == {"done"}
    assert [payload["messages"] for payload in await events(store, EventType.DONE)] == [[first], [second, third]]
    assert await store.end_session("s1", failure=None, at=NOW) == []
