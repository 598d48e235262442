"""What parking asks of the store: when groups were used, and when their tasks are due."""

from datetime import UTC, datetime, timedelta

import pytest

from nanoclaw_runtime.domain.tasks import TaskContext, TaskKind, TaskState
from nanoclaw_runtime.store.activity import LastMessages
from nanoclaw_runtime.store.records import Task
from nanoclaw_runtime.store.tasks import TaskBook
from tests.support import stores

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.fixture
async def store(tmp_path):
    store = await stores.opened(tmp_path)
    yield store
    await store.close()


async def says(store, folder, minutes):
    at = NOW + timedelta(minutes=minutes)
    message, _ = await store.add_message(folder, "hello", sender="ann", sender_name="Ann", at=at)
    return message


async def test_each_group_s_last_message_is_known(store):
    used = LastMessages(store)
    assert await used() == {}
    await says(store, "a", 1)
    await says(store, "b", 2)
    assert await used() == {"a": NOW + timedelta(minutes=1), "b": NOW + timedelta(minutes=2)}
    await says(store, "a", 3)
    assert await used() == {"a": NOW + timedelta(minutes=3), "b": NOW + timedelta(minutes=2)}


async def test_a_message_that_was_written_earlier_and_came_later_does_not_make_a_group_older(store):
    used = LastMessages(store)
    await says(store, "a", 5)
    await used()
    await says(store, "a", 1)
    assert await used() == {"a": NOW + timedelta(minutes=5)}


async def test_only_messages_that_are_new_are_read(store):
    first = await says(store, "a", 1)
    await says(store, "b", 2)
    assert set(await store.newest(after=first.id)) == {"b"}


async def test_of_each_group_the_next_task_is_known_that_is_active_and_near(store):
    book = TaskBook(store.database)
    for name, folder, minutes, state in [
        ("late", "a", 4, TaskState.ACTIVE),
        ("soon", "a", 2, TaskState.ACTIVE),
        ("overdue", "b", -3, TaskState.ACTIVE),
        ("far", "c", 9, TaskState.ACTIVE),
        ("paused", "d", 1, TaskState.PAUSED),
        ("over", "e", None, TaskState.COMPLETED),
    ]:
        await book.add(task(name, folder, None if minutes is None else NOW + timedelta(minutes=minutes), state))
    found = await book.due_in_groups(NOW + timedelta(minutes=5))
    assert found == {"a": NOW + timedelta(minutes=2), "b": NOW - timedelta(minutes=3)}


def task(name, folder, due, state):
    return Task(
        id=name,
        folder=folder,
        jid=f"http:{folder}",
        prompt="Do it",
        kind=TaskKind.ONCE,
        value="2026-03-01T12:00:00",
        context=TaskContext.GROUP,
        state=state,
        next_run=due,
        last_run=None,
        last_result=None,
        created=NOW,
    )
