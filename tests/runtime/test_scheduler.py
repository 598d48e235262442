"""The scheduler on a real store, with a clock of its own and a queue that only remembers."""

import asyncio
import contextlib
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from nanoclaw_runtime.contract.config import GroupSpec
from nanoclaw_runtime.controller.scheduler import LONGEST_PAUSE, Scheduler, new_task_id
from nanoclaw_runtime.domain.errors import GroupUnknown, StoreFailed, TaskInvalid, TaskUnknown
from nanoclaw_runtime.domain.tasks import RunOutcome, TaskContext, TaskKind, TaskState
from nanoclaw_runtime.store.tasks import TaskBook
from tests.support import stores

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


class Office:
    """A scheduler and everything it talks to."""

    def __init__(self, store):
        self.now = NOW
        self.groups = {folder: GroupSpec(folder=folder, name=folder, jid=f"tg:{folder}") for folder in ("main", "team")}
        self.enqueued = asyncio.Queue()
        self.changed = []
        self.book = TaskBook(store.database)
        self.scheduler = Scheduler(
            self.book,
            zone="Europe/Berlin",
            group=self._group,
            enqueue=lambda folder, task: self.enqueued.put_nowait((folder, task)),
            on_change=self._on_change,
            now=lambda: self.now,
        )

    @contextlib.asynccontextmanager
    async def open(self):
        """It looks by itself meanwhile."""
        running = asyncio.create_task(self.scheduler.run())
        yield
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running

    def _group(self, folder):
        if folder not in self.groups:
            raise GroupUnknown(folder)
        return self.groups[folder]

    async def _on_change(self, folder):
        self.changed.append(folder)

    async def add(self, kind=TaskKind.INTERVAL, value="3600000", folder="main", **more):
        return await self.scheduler.create(folder, prompt="say hello", kind=kind, value=value, **more)

    async def looks(self, *, after=timedelta()):
        """Whom a look hands over."""
        self.now += after
        await self.scheduler.look()
        return [self.enqueued.get_nowait() for _ in range(self.enqueued.qsize())]

    async def ran(self, task, **more):
        run = {"started": self.now, "outcome": RunOutcome.SUCCESS, "result": "hello", "error": None, "session": "s1"}
        await self.scheduler.finished(task, seconds=1, **run | more)


@pytest.fixture
async def store(tmp_path):
    store = await stores.opened(tmp_path)
    yield store
    await store.close()


@pytest.fixture
def office(store):
    return Office(store)


async def test_a_task_is_made_for_the_groups_chat(office):
    task = await office.add(TaskKind.CRON, "0 9 * * *", folder="team", context=TaskContext.ISOLATED)
    assert re.fullmatch(r"task-1772366400000-[0-9a-z]{6}", task.id)
    assert (task.folder, task.jid, task.prompt) == ("team", "tg:team", "say hello")
    assert (task.kind, task.value, task.context) == (TaskKind.CRON, "0 9 * * *", TaskContext.ISOLATED)
    assert task.next_run == datetime(2026, 3, 2, 8, 0, tzinfo=UTC)  # nine o'clock in Berlin
    assert await office.scheduler.get(task.id) == task
    assert await office.scheduler.list("team") == [task]
    assert await office.scheduler.list("main") == []
    assert office.changed == ["team"]


def test_ids_differ_within_a_millisecond():
    assert len({new_task_id(NOW) for _ in range(100)}) == 100


async def test_what_cannot_be_is_refused_and_not_kept(office):
    with pytest.raises(TaskInvalid, match="positive whole number"):
        await office.add(value="0")
    with pytest.raises(GroupUnknown, match="'nobody'"):
        await office.add(folder="nobody")
    assert await office.scheduler.list() == []


async def test_a_task_is_handed_over_when_its_time_has_come(office):
    task = await office.add(TaskKind.ONCE, "2026-03-01T13:10")  # ten minutes from now, on the clocks of Berlin
    assert await office.looks(after=9 * MINUTE) == []
    assert await office.looks(after=MINUTE) == [("main", task.id)]


async def test_a_moment_in_the_past_is_at_once(office):
    task = await office.add(TaskKind.ONCE, "2020-01-01T00:00:00")
    assert await office.looks() == [("main", task.id)]


async def test_the_task_that_waits_longest_goes_first(office):
    tasks = [await office.add(value=str(minutes * 60_000)) for minutes in (3, 1, 2)]
    assert await office.looks(after=HOUR) == [("main", tasks[place].id) for place in (1, 2, 0)]


async def test_a_task_is_handed_over_until_its_run_has_ended(office):
    task = await office.add(TaskKind.ONCE, "2020-01-01T00:00:00")
    for _ in range(2):
        assert await office.looks() == [("main", task.id)]
    await office.ran(task.id)
    assert await office.looks(after=HOUR) == []
    assert (await office.scheduler.get(task.id)).state is TaskState.COMPLETED


async def test_the_next_look_is_when_a_task_is_due_and_within_a_minute(office):
    assert await office.scheduler.look() == LONGEST_PAUSE
    await office.add(value=str(10 * 60_000))
    assert await office.scheduler.look() == LONGEST_PAUSE
    await office.add(value="1500")
    assert await office.scheduler.look() == timedelta(seconds=1.5)
    office.now += MINUTE  # what is due stays due until it has run, and is no reason to hurry
    assert await office.scheduler.look() == LONGEST_PAUSE


async def test_an_interval_counts_from_the_end_of_the_run(office):
    task = await office.add()
    office.now += 3 * HOUR
    await office.ran(task.id)
    ran = await office.scheduler.get(task.id)
    assert (ran.next_run, ran.last_result) == (office.now + HOUR, "hello")


async def test_a_cron_task_runs_once_after_a_long_absence(office):
    task = await office.add(TaskKind.CRON, "*/5 * * * *")
    assert await office.looks(after=24 * HOUR) == [("main", task.id)]
    await office.ran(task.id)
    assert (await office.scheduler.get(task.id)).next_run == office.now + 5 * MINUTE


async def test_a_failed_run_is_logged_and_not_repeated(office):
    task = await office.add()
    await office.ran(task.id, outcome=RunOutcome.ERROR, result=None, error="no image")
    (run,) = await office.scheduler.runs(task.id, 10)
    assert (run.outcome, run.error) == (RunOutcome.ERROR, "no image")
    kept = await office.scheduler.get(task.id)
    assert (kept.last_result, kept.next_run) == ("Error: no image", NOW + HOUR)


async def test_the_end_of_a_cancelled_task_is_nothing_special(office):
    task = await office.add()
    await office.scheduler.cancel(task.id)
    await office.ran(task.id)
    with pytest.raises(TaskUnknown):
        await office.scheduler.get(task.id)
    with pytest.raises(TaskUnknown):
        await office.scheduler.cancel(task.id)


async def test_a_paused_task_waits_and_a_resumed_one_that_is_overdue_runs_at_once(office):
    task = await office.add()
    await office.scheduler.update(task.id, state=TaskState.PAUSED)
    assert await office.looks(after=2 * HOUR) == []
    await office.scheduler.update(task.id, state=TaskState.ACTIVE)
    assert await office.looks() == [("main", task.id)]


async def test_a_new_schedule_begins_at_once(office):
    task = await office.add()
    changed = await office.scheduler.update(task.id, prompt="say goodbye", value="60000")
    assert (changed.prompt, changed.next_run) == ("say goodbye", NOW + MINUTE)
    with pytest.raises(TaskInvalid):
        await office.scheduler.update(task.id, kind=TaskKind.CRON)  # with the milliseconds as its expression
    assert await office.scheduler.get(task.id) == changed


async def test_a_task_is_run_by_hand_besides_its_schedule(office):
    task = await office.add()
    await office.scheduler.run_now(task.id)
    assert await office.looks() == [("main", task.id)]
    await office.ran(task.id)
    assert (await office.scheduler.get(task.id)).next_run == NOW + HOUR


async def test_a_task_that_runs_is_not_run_by_hand_again(office):
    task = await office.add(TaskKind.ONCE, NOW.isoformat())
    office.now += MINUTE
    await office.scheduler.run_now(task.id)
    await office.ran(task.id, started=NOW)
    assert await office.looks() == []


async def test_a_moment_that_was_chosen_during_the_run_is_kept_when_the_run_lasts_longer(office):
    task = await office.add(TaskKind.ONCE, NOW.isoformat())
    await office.scheduler.update(task.id, value=(NOW + MINUTE).isoformat())
    office.now += 2 * MINUTE
    await office.ran(task.id, started=NOW)
    assert await office.looks() == [("main", task.id)]


async def test_a_clock_that_is_set_back_during_a_run_does_not_repeat_it(office):
    task = await office.add(TaskKind.ONCE, NOW.isoformat())
    office.now -= HOUR
    await office.ran(task.id, started=NOW)
    assert await office.looks(after=HOUR) == []


async def test_every_change_is_told(office):
    task = await office.add(folder="team")
    await office.scheduler.update(task.id, prompt="x")
    await office.scheduler.run_now(task.id)
    await office.ran(task.id)
    await office.scheduler.cancel(task.id)
    assert office.changed == ["team"] * 5


async def test_a_task_of_a_group_that_is_gone_stays_and_says_so_once_a_minute(office):
    task = await office.add(folder="team")
    team = office.groups.pop("team")
    office.now += HOUR
    for _ in range(3):
        assert await office.looks(after=timedelta(seconds=1)) == []
    (missed,) = await office.scheduler.runs(task.id, 10)
    assert (missed.outcome, "no group 'team'" in missed.error) == (RunOutcome.ERROR, True)
    for _ in range(2):
        assert await office.looks(after=LONGEST_PAUSE * 0.6) == []
    assert len(await office.scheduler.runs(task.id, 10)) == 2
    office.groups["team"] = team
    assert await office.looks() == [("team", task.id)]


async def test_a_task_of_a_folder_that_cannot_be_is_paused(office):
    task = await office.add()
    await office.book.add(replace(task, id="odd", folder="../etc", next_run=NOW))
    assert await office.looks() == []
    paused = await office.scheduler.get("odd")
    assert (paused.state, "'../etc'" in paused.last_result) == (TaskState.PAUSED, True)


async def test_a_task_that_cannot_run_does_not_hold_up_the_others(office):
    stuck = await office.add(folder="team", value="1")
    task = await office.add()
    del office.groups["team"]
    assert await office.looks(after=HOUR) == [("main", task.id)]
    assert (await office.scheduler.get(stuck.id)).state is TaskState.ACTIVE


async def test_it_looks_by_itself_whenever_something_changed(office):
    async with office.open():
        task = await office.add()
        await office.scheduler.run_now(task.id)
        assert await office.enqueued.get() == ("main", task.id)
        office.now += 2 * HOUR
        await office.book.add(replace(task, id="other", folder="team"))
        await office.ran(task.id)
        office.scheduler.changed()
        while await office.enqueued.get() != ("team", "other"):
            pass


async def test_it_looks_by_itself_when_the_next_task_is_due(store):
    office = Office(store)
    office.scheduler = Scheduler(
        office.book,
        zone="UTC",
        group=office._group,
        enqueue=lambda folder, task: office.enqueued.put_nowait((folder, task)),
    )
    async with office.open():
        task = await office.add(value="20")
        assert await office.enqueued.get() == ("main", task.id)


async def test_a_failing_database_does_not_end_it(office, store):
    task = await office.add()
    await store.database.transaction(lambda connection: connection.exec_driver_sql("ALTER TABLE tasks RENAME TO away"))
    with pytest.raises(StoreFailed):
        await office.scheduler.look()
    async with office.open():
        await asyncio.sleep(0)  # its first look is in line for the database before what follows
        await store.database.transaction(
            lambda connection: connection.exec_driver_sql("ALTER TABLE away RENAME TO tasks")
        )
        await office.scheduler.run_now(task.id)
        assert await office.enqueued.get() == ("main", task.id)
