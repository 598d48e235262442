"""The book of tasks on a real SQLite file."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from nanoclaw_runtime.domain.errors import StoreFailed, TaskInvalid, TaskUnknown
from nanoclaw_runtime.domain.tasks import RunOutcome, TaskContext, TaskKind, TaskState
from nanoclaw_runtime.store import tasks
from nanoclaw_runtime.store.records import Task
from nanoclaw_runtime.store.tasks import KEPT, Run, TaskBook
from tests.support import stores

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)

TASK = Task(
    id="task-1-abcdef",
    folder="main",
    jid="http:main",
    prompt="say good morning\x00",
    kind=TaskKind.INTERVAL,
    value="3600000",
    context=TaskContext.GROUP,
    state=TaskState.ACTIVE,
    next_run=NOW,
    last_run=None,
    last_result=None,
    created=NOW - HOUR,
)
WELL = Run(NOW, 2.5, RunOutcome.SUCCESS, result="Good morning!", session="s1")
BADLY = Run(NOW, 1, RunOutcome.ERROR, error="it broke")


def in_an_hour(*_):
    return NOW + HOUR


def never(_task):
    return None


def impossible(*_):
    raise TaskInvalid("value: nobody can follow it; write another")


@pytest.fixture
async def store(tmp_path):
    store = await stores.opened(tmp_path)
    yield store
    await store.close()


@pytest.fixture
async def book(store):
    book = TaskBook(store.database)
    await book.add(TASK)
    return book


async def test_a_task_is_kept_as_it_was_added(book):
    assert await book.get(TASK.id) == TASK


async def test_an_id_is_used_once(book):
    with pytest.raises(StoreFailed):
        await book.add(TASK)


async def test_tasks_are_listed_oldest_first_of_one_group_or_all(book):
    older = replace(TASK, id="task-9", folder="team", created=NOW - 2 * HOUR)
    await book.add(older)
    assert await book.list() == [older, TASK]
    assert await book.list("main") == [TASK]
    assert await book.list("nobody") == []


async def test_due_are_the_active_whose_time_has_come_longest_waiting_first(book):
    for name, state, next_run in [
        ("earlier", TaskState.ACTIVE, NOW - HOUR),
        ("later", TaskState.ACTIVE, NOW + timedelta(microseconds=1)),
        ("paused", TaskState.PAUSED, NOW - HOUR),
        ("completed", TaskState.COMPLETED, None),
        ("never", TaskState.ACTIVE, None),
    ]:
        await book.add(replace(TASK, id=name, state=state, next_run=next_run))
    assert [task.id for task in await book.due(NOW)] == ["earlier", TASK.id]
    assert await book.next_due(after=NOW) == NOW + timedelta(microseconds=1)
    assert await book.next_due(after=NOW + HOUR) is None


async def test_a_paused_task_is_not_due_and_a_resumed_one_is_overdue(book):
    assert (await book.pause(TASK.id)).state is TaskState.PAUSED
    assert await book.due(NOW + HOUR) == []
    assert await book.resume(TASK.id) == TASK
    assert await book.due(NOW + HOUR) == [TASK]


async def test_a_cancelled_task_is_gone_with_its_log(book):
    await book.log_run(TASK.id, WELL)
    assert (await book.cancel(TASK.id)).id == TASK.id
    assert await book.list() == []
    await book.add(TASK)
    assert await book.runs(TASK.id) == []


async def test_a_run_is_logged_and_the_next_one_set(book):
    task = await book.finish_run(TASK.id, WELL, in_an_hour)
    assert task == replace(TASK, next_run=NOW + HOUR, last_run=NOW, last_result="Good morning!")
    (run,) = await book.runs(TASK.id)
    assert (run.task, run.started, run.seconds, run.outcome) == (TASK.id, NOW, 2.5, RunOutcome.SUCCESS)
    assert (run.result, run.error, run.session) == ("Good morning!", None, "s1")


@pytest.mark.parametrize(
    ("run", "summary"),
    [
        pytest.param(BADLY, "Error: it broke", id="failed"),
        pytest.param(replace(WELL, result="x" * 201), "x" * 200, id="long"),
        pytest.param(replace(WELL, result=None), "Completed", id="silent"),
        pytest.param(replace(BADLY, result="half of it"), "Error: it broke", id="failed after an answer"),
    ],
)
async def test_a_task_tells_how_its_last_run_went(book, run, summary):
    assert (await book.finish_run(TASK.id, run, in_an_hour)).last_result == summary


async def test_a_task_that_runs_once_is_completed_and_stays_so(book):
    task = await book.finish_run(TASK.id, WELL, never)
    assert (task.state, task.next_run) == (TaskState.COMPLETED, None)
    for move in (book.pause, book.resume):
        with pytest.raises(TaskInvalid, match="has run and is over"):
            await move(TASK.id)
    with pytest.raises(TaskInvalid, match="is completed"):
        await book.run_now(TASK.id, NOW)


async def test_the_end_of_a_run_changes_nothing_for_a_task_cancelled_meanwhile(book):
    await book.cancel(TASK.id)
    assert await book.finish_run(TASK.id, WELL, in_an_hour) is None
    assert await book.list() == []


async def test_a_task_paused_while_it_ran_stays_paused(book):
    await book.pause(TASK.id)
    task = await book.finish_run(TASK.id, WELL, in_an_hour)
    assert (task.state, task.next_run) == (TaskState.PAUSED, NOW + HOUR)


async def test_a_task_with_a_new_schedule_since_its_run_began_keeps_it(book):
    changed = await book.update(TASK.id, kind=TaskKind.ONCE, value="x", first_run=in_an_hour)
    task = await book.finish_run(TASK.id, WELL, never)
    assert (task.state, task.next_run, task.kind) == (TaskState.ACTIVE, changed.next_run, TaskKind.ONCE)


async def test_a_task_nobody_can_follow_any_more_is_paused_behind_its_run(book):
    task = await book.finish_run(TASK.id, WELL, impossible)
    assert (task.state, task.next_run, task.last_result) == (TaskState.PAUSED, NOW, "Good morning!")


async def test_the_log_is_newest_first_and_bounded(book):
    for number in range(KEPT + 3):
        await book.log_run(TASK.id, replace(WELL, result=str(number)))
    await book.add(replace(TASK, id="other"))
    await book.log_run("other", BADLY)
    assert [run.result for run in await book.runs(TASK.id, 2)] == ["102", "101"]
    assert len(await book.runs(TASK.id, 1000)) == KEPT
    assert len(await book.runs("other")) == 1


async def test_a_run_that_did_not_begin_leaves_the_task_due(book):
    assert await book.log_run(TASK.id, BADLY)
    assert await book.due(NOW) == [replace(TASK, last_run=NOW, last_result="Error: it broke")]


async def test_an_update_changes_what_is_given(book):
    assert await book.update(TASK.id, prompt="say good night", first_run=impossible) == replace(
        TASK, prompt="say good night"
    )
    changed = await book.update(TASK.id, value="7200000", state=TaskState.PAUSED, first_run=in_an_hour)
    assert (changed.kind, changed.value, changed.next_run) == (TaskKind.INTERVAL, "7200000", NOW + HOUR)
    assert (changed.state, changed.prompt) == (TaskState.PAUSED, "say good night")


async def test_an_update_that_cannot_be_changes_nothing(book):
    with pytest.raises(TaskInvalid):
        await book.update(TASK.id, prompt="other", value="x", first_run=impossible)
    await book.finish_run(TASK.id, WELL, never)
    with pytest.raises(TaskInvalid):
        await book.update(TASK.id, prompt="other", state=TaskState.ACTIVE, first_run=in_an_hour)
    assert (await book.get(TASK.id)).prompt == TASK.prompt


async def test_a_task_that_was_over_begins_anew_with_a_new_schedule(book):
    await book.finish_run(TASK.id, WELL, never)
    changed = await book.update(TASK.id, value="x", first_run=in_an_hour)
    assert (changed.state, changed.next_run) == (TaskState.ACTIVE, NOW + HOUR)


async def test_a_task_run_by_hand_is_due_now(book):
    await book.finish_run(TASK.id, WELL, in_an_hour)
    await book.run_now(TASK.id, NOW + timedelta(minutes=1))
    assert [task.id for task in await book.due(NOW + timedelta(minutes=1))] == [TASK.id]


async def test_who_names_no_task_is_told_so(book):
    for call in (
        book.get("x"),
        book.pause("x"),
        book.resume("x"),
        book.cancel("x"),
        book.runs("x"),
        book.run_now("x", NOW),
        book.update("x", prompt="y", first_run=in_an_hour),
    ):
        with pytest.raises(TaskUnknown, match="no task 'x'"):
            await call


async def test_tasks_are_changed_within_the_transaction_of_somebody_else(store):
    def work(connection):
        tasks.add_task(connection, TASK)
        tasks.add_task(connection, replace(TASK, id="gone"))
        assert tasks.pause(connection, TASK.id)
        assert tasks.update(connection, TASK.id, prompt="hi", first_run=in_an_hour)
        assert tasks.cancel(connection, "gone")
        assert not tasks.cancel(connection, "gone")
        assert not tasks.pause(connection, "gone")
        assert not tasks.resume(connection, "gone")
        assert not tasks.update(connection, "gone", prompt="hi", first_run=in_an_hour)
        return tasks.read_task(connection, TASK.id)

    paused = replace(TASK, state=TaskState.PAUSED, prompt="hi")
    assert await store.database.transaction(work) == paused
    assert await TaskBook(store.database).list() == [paused]
    assert await store.database.transaction(lambda connection: tasks.resume(connection, TASK.id))
    assert (await TaskBook(store.database).get(TASK.id)).state is TaskState.ACTIVE
