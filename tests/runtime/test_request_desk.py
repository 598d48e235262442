"""What agents ask for, from the file in their folder to what it brings about: once, and for whom it may."""

import asyncio
import contextlib
import json
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from nanoclaw_runtime.contract.config import GroupSpec
from nanoclaw_runtime.controller.requests import Effects, RequestDesk
from nanoclaw_runtime.controller.snapshots import Snapshots
from nanoclaw_runtime.domain.errors import RegistrationRefused
from nanoclaw_runtime.domain.tasks import TaskContext, TaskKind, TaskState
from nanoclaw_runtime.ipc.requests import ERRORS_DIR, FILES_AT_ONCE
from nanoclaw_runtime.store import requests as statements
from nanoclaw_runtime.store.chats import ChatBook
from nanoclaw_runtime.store.outbox import Outbox
from nanoclaw_runtime.store.records import Chat, EventType
from nanoclaw_runtime.store.requests import MOST_TASKS, REMEMBERED, RequestBook
from nanoclaw_runtime.store.tasks import TaskBook
from nanoclaw_runtime.telemetry import Metrics
from tests.support import stores

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
REGISTRATION = {"type": "register_group", "jid": "tg:9", "name": "New", "folder": "new", "trigger": "@Andy"}


class Office:
    """A desk on a real store and real folders; what it brings about elsewhere is written down."""

    def __init__(self, tree, store):
        self.tree = tree
        self.store = store
        self.metrics = Metrics()
        self.now = NOW
        self.groups = [
            GroupSpec(folder="main", name="Main", jid="tg:1"),
            GroupSpec(folder="family", name="Family", jid="tg:2"),
            GroupSpec(folder="work", name="Work"),
        ]
        for group in self.groups:
            for kind in ("messages", "tasks"):
                (tree / "data/ipc" / group.folder / kind).mkdir(parents=True)
        self.registered = []
        self.changed = []
        self.tasks = TaskBook(store.database)
        self.chats = ChatBook(store.database)
        self.snapshots = Snapshots(tree, self.tasks, self.chats, lambda: self.groups, now=lambda: self.now)
        self.desk = self.new_desk()

    def new_desk(self, **other):
        effects = Effects(
            is_network=lambda jid: jid.startswith("tg:"),
            register=self.register,
            refresh_groups=self.snapshots.refresh_groups,
            tasks_changed=self.tasks_changed,
        )
        effects = replace(effects, **other)
        return RequestDesk(
            self.tree,
            self.store.database,
            lambda: self.groups,
            effects,
            zone="Europe/Berlin",
            metrics=self.metrics,
            now=lambda: self.now,
        )

    async def register(self, group, by):
        if group.folder == "full":
            raise RegistrationRefused("there is no room for 'full'; remove a group first")
        self.registered.append((group.folder, group.jid, by))

    async def tasks_changed(self, folder):
        self.changed.append(folder)
        await self.snapshots.tasks_changed(folder)

    def leave(self, folder, kind, document, name="1-abc.json"):
        path = self.tree / "data/ipc" / folder / kind / name
        aside = path.with_name(f"{name}.tmp")  # as NanoClaw's tool does it: the desk may look at any time
        aside.write_text(document if isinstance(document, str) else json.dumps(document))
        return aside.replace(path)

    def tell(self, folder, jid, text="hello", name="1-abc.json", **more):
        return self.leave(folder, "messages", {"type": "message", "chatJid": jid, "text": text} | more, name)

    def ask(self, folder, name="1-abc.json", **request):
        return self.leave(folder, "tasks", request, name)

    def schedule(self, folder, **more):
        request = {
            "type": "schedule_task",
            "targetJid": "tg:2",
            "prompt": "water the plants",
            "schedule_type": "cron",
            "schedule_value": "0 9 * * *",
        }
        return self.ask(folder, **request | more)

    async def scheduled(self, folder, **more):
        """The task that came of it, or None."""
        self.schedule(folder, **more)
        await self.desk.look()
        found = await self.tasks.list()
        return found[-1] if found else None

    async def events(self):
        found = await self.store.events(after=0, folder=None)
        return [(event.folder, event.payload) for event in found if event.type is EventType.TELL]

    async def posts(self):
        return [(post.jid, post.folder, post.text, post.sender) for post in await self.due()]

    async def due(self):
        return await Outbox(self.store.database).due(self.now, 1000)

    def left(self):
        return sorted(path.name for kind in ("messages", "tasks") for path in self.tree.glob(f"data/ipc/*/{kind}/*"))

    def errors(self):
        return sorted(path.name for path in (self.tree / ERRORS_DIR).glob("*"))

    def outcomes(self):
        (metric,) = self.metrics.agent_requests.collect()
        return {sample.labels["outcome"]: sample.value for sample in metric.samples if sample.name.endswith("_total")}

    @contextlib.asynccontextmanager
    async def refusing(self, statement):
        """A database that refuses some statements, as it does when its disk is full."""
        await self.execute(f"CREATE TRIGGER full BEFORE {statement} BEGIN SELECT RAISE(ABORT, 'full'); END")
        yield
        await self.execute("DROP TRIGGER full")

    async def execute(self, sql):
        await self.store.database.transaction(lambda connection: connection.exec_driver_sql(sql))


@pytest.fixture
async def office(tmp_path):
    store = await stores.opened(tmp_path / "store")
    yield Office(tmp_path, store)
    await store.close()


async def test_a_message_appears_in_the_groups_stream_and_goes_to_its_network(office):
    office.tell("main", "tg:2", "dinner is ready", sender="Cook")
    await office.desk.look()
    assert await office.events() == [("family", {"from": "main", "sender": "Cook", "text": "dinner is ready"})]
    assert await office.posts() == [("tg:2", "main", "dinner is ready", "Cook")]
    assert office.left() == []
    assert office.outcomes() == {"done": 1}


async def test_a_group_without_a_network_is_told_in_its_stream_alone(office):
    office.tell("work", "http:work")
    await office.desk.look()
    assert await office.events() == [("work", {"from": "work", "sender": None, "text": "hello"})]
    assert await office.posts() == []


async def test_main_reaches_a_chat_of_a_network_that_no_group_has(office):
    office.tell("main", "tg:99")
    await office.desk.look()
    assert await office.events() == []
    assert await office.posts() == [("tg:99", "main", "hello", None)]


async def test_a_message_to_a_chat_nobody_has_is_kept_for_a_human(office):
    office.tell("main", "nowhere@g.us")
    await office.desk.look()
    assert await office.posts() == []
    assert office.errors() == ["main-1-abc.json"]
    assert office.outcomes() == {"quarantined": 1}


async def test_what_is_not_allowed_is_removed_and_has_no_effect(office):
    office.tell("family", "http:work")
    office.schedule("work")
    office.leave("family", "tasks", REGISTRATION, "2.json")
    await office.desk.look()
    assert (await office.events(), await office.posts(), await office.tasks.list()) == ([], [], [])
    assert (office.left(), office.errors(), office.registered) == ([], [], [])
    assert office.outcomes() == {"refused": 3}


async def test_a_file_that_was_carried_out_and_is_still_there_is_not_carried_out_again(office):
    """As a process leaves it that dies between the commit and the removal."""
    path = office.tell("family", "tg:2")
    found = path.stat()
    await office.desk.look()
    office.tell("family", "tg:2")
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    await office.new_desk().look()
    assert len(await office.posts()) == len(await office.events()) == 1
    assert office.left() == []
    assert office.outcomes() == {"done": 1, "repeated": 1}


async def test_a_change_of_tasks_from_before_a_crash_is_told_all_the_same(office):
    """The process died behind the commit: live agents, and the scheduler, know of it from nobody else."""
    path = office.schedule("family")
    found = path.stat()
    await office.desk.look()
    office.changed.clear()
    office.schedule("family")
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    await office.new_desk().look()
    assert office.changed == ["family"]
    assert office.outcomes() == {"done": 1, "repeated": 1}


async def test_the_same_words_said_twice_are_sent_twice(office):
    office.tell("family", "tg:2", name="1.json")
    office.tell("family", "tg:2", name="2.json")
    await office.desk.look()
    assert len(await office.events()) == 2


async def test_messages_of_an_agent_keep_their_order(office):
    for number in (2, 10, 1):
        office.tell("family", "tg:2", str(number), name=f"{number:03}.json")
    await office.desk.look()
    assert [payload["text"] for _, payload in await office.events()] == ["1", "2", "10"]


async def test_messages_come_before_tasks(office):
    office.ask("main", type="refresh_groups")
    office.tell("main", "tg:1")
    order = []

    async def refresh():
        order.append("refresh")

    desk = office.new_desk(is_network=lambda _: order.append("message"), refresh_groups=refresh)
    await desk.look()
    assert order == ["message", "refresh"]


async def test_a_cron_task_runs_at_its_next_hour_of_the_zone(office):
    task = await office.scheduled("family")
    assert (task.folder, task.jid, task.prompt) == ("family", "tg:2", "water the plants")
    assert (task.kind, task.state, task.created) == (TaskKind.CRON, TaskState.ACTIVE, NOW)
    assert task.next_run == datetime(2026, 3, 2, 8, 0, tzinfo=UTC)
    assert task.id.startswith(f"task-{int(NOW.timestamp() * 1000)}-")
    assert office.changed == ["family"]


async def test_an_interval_runs_for_the_first_time_after_it(office):
    task = await office.scheduled("family", schedule_type="interval", schedule_value="3600000")
    assert task.next_run == NOW + timedelta(hours=1)


async def test_a_moment_is_meant_in_the_zone_unless_it_says_so(office):
    local = await office.scheduled("family", schedule_type="once", schedule_value="2026-06-01T10:00:00")
    assert local.next_run == datetime(2026, 6, 1, 8, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        pytest.param("cron", "not a cron", id="bad cron"),
        pytest.param("cron", "0 0 30 2 *", id="cron that never comes"),
        pytest.param("interval", "abc", id="interval of letters"),
        pytest.param("interval", "0", id="interval of nothing"),
        pytest.param("once", "not-a-date", id="bad moment"),
    ],
)
async def test_a_schedule_nobody_can_follow_is_refused(office, kind, value):
    assert await office.scheduled("main", schedule_type=kind, schedule_value=value) is None
    assert (office.left(), office.changed) == ([], [])
    assert office.outcomes() == {"refused": 1}


async def test_many_changes_are_told_once(office):
    for number in range(20):
        office.schedule("family", taskId=f"task-{number}", name=f"{number:02}.json")
    await office.desk.look()
    assert len(await office.tasks.list("family")) == 20
    assert office.changed == ["family"]


async def test_a_group_has_only_so_many_tasks_and_holds_up_no_other(office):
    task = await office.scheduled("family")
    for number in range(MOST_TASKS - 1):
        await office.tasks.add(replace(task, id=f"task-{number}"))
    office.schedule("family", taskId="too-many")
    office.schedule("work", targetJid="http:work", taskId="mine")
    await office.desk.look()
    assert {"too-many", "mine"} & {task.id for task in await office.tasks.list()} == {"mine"}
    assert office.left() == []
    await office.tasks.cancel("task-7")
    await office.scheduled("family", taskId="again")
    assert len(await office.tasks.list("family")) == MOST_TASKS


async def test_main_schedules_for_another_group_and_chooses_the_id(office):
    task = await office.scheduled("main", taskId="task-7-abcdef", context_mode="group")
    assert (task.id, task.folder, task.context) == ("task-7-abcdef", "family", TaskContext.GROUP)


async def test_a_task_can_be_scheduled_and_changed_in_one_look(office):
    office.schedule("family", taskId="task-7", name="1.json")
    office.ask("family", type="pause_task", taskId="task-7", name="2.json")
    await office.desk.look()
    assert (await office.tasks.get("task-7")).state is TaskState.PAUSED


@pytest.mark.parametrize("source", ["main", "family"])
async def test_a_task_is_paused_resumed_updated_and_cancelled(office, source):
    task = await office.scheduled("family")
    office.ask(source, type="pause_task", taskId=task.id)
    await office.desk.look()
    assert (await office.tasks.get(task.id)).state is TaskState.PAUSED
    office.ask(source, type="resume_task", taskId=task.id)
    await office.desk.look()
    assert (await office.tasks.get(task.id)).state is TaskState.ACTIVE
    office.ask(source, type="update_task", taskId=task.id, prompt="feed the cat", schedule_value="0 18 * * *")
    await office.desk.look()
    updated = await office.tasks.get(task.id)
    assert (updated.prompt, updated.next_run) == ("feed the cat", datetime(2026, 3, 1, 17, 0, tzinfo=UTC))
    office.ask(source, type="cancel_task", taskId=task.id)
    await office.desk.look()
    assert await office.tasks.list() == []
    assert office.changed == ["family"] * 5
    assert office.outcomes() == {"done": 5}


@pytest.mark.parametrize("change", ["pause_task", "resume_task", "cancel_task", "update_task"])
async def test_another_groups_task_stays_as_it_is(office, change):
    task = await office.scheduled("family")
    office.ask("work", type=change, taskId=task.id, prompt="mine now")
    await office.desk.look()
    assert await office.tasks.list() == [task]
    assert office.outcomes() == {"done": 1, "refused": 1}


async def test_an_update_nobody_can_follow_changes_nothing(office):
    task = await office.scheduled("family")
    office.ask("family", type="update_task", taskId=task.id, prompt="new", schedule_value="never")
    await office.desk.look()
    assert await office.tasks.list() == [task]


async def test_the_agents_are_told_of_changed_tasks(office):
    await office.scheduled("family")
    told = {path.parent.name: json.loads(path.read_text()) for path in office.tree.rglob("current_tasks.json")}
    assert {folder: [task["groupFolder"] for task in tasks] for folder, tasks in told.items()} == {
        "main": ["family"],
        "family": ["family"],
    }


async def test_a_group_whose_folder_is_broken_does_not_keep_main_from_being_told(office, tmp_path):
    await office.scheduled("family")
    broken = tmp_path / "data/ipc/family"
    broken.rename(tmp_path / "gone")
    broken.symlink_to(tmp_path / "gone")
    (tmp_path / "data/ipc/main/current_tasks.json").unlink()
    await office.snapshots.tasks_changed("family")
    assert (tmp_path / "data/ipc/main/current_tasks.json").exists()


async def test_before_a_session_both_snapshots_are_written(office, tmp_path):
    await office.scheduled("family")
    await office.chats.seen(Chat(jid="tg:2", name="Family", channel="telegram", is_group=True, last_activity=NOW))
    await office.snapshots.write("work")
    told = {path.name: json.loads(path.read_text()) for path in (tmp_path / "data/ipc/work").glob("*.json")}
    assert told == {
        "current_tasks.json": [],
        "available_groups.json": {"groups": [], "lastSync": "2026-03-01T12:00:00.000Z"},
    }


async def test_a_change_that_cannot_be_told_is_done_all_the_same(office):
    async def broken(_folder):
        raise OSError("disk")

    office.schedule("family")
    await office.new_desk(tasks_changed=broken).look()
    assert len(await office.tasks.list()) == 1
    assert (office.left(), office.errors()) == ([], [])


async def test_main_refreshes_its_view_of_the_chats(office):
    await office.chats.seen(Chat(jid="tg:2", name="Family", channel="telegram", is_group=True, last_activity=NOW))
    office.ask("main", type="refresh_groups")
    await office.desk.look()
    (told,) = office.tree.rglob("available_groups.json")
    assert told.parent.name == "main"
    assert [(group["jid"], group["isRegistered"]) for group in json.loads(told.read_text())["groups"]] == [
        ("tg:2", True)
    ]


async def test_main_registers_a_group(office):
    office.leave("main", "tasks", REGISTRATION)
    await office.desk.look()
    assert office.registered == [("new", "tg:9", "main")]
    assert office.left() == []


async def test_a_registration_that_is_refused_elsewhere_is_removed(office):
    office.leave("main", "tasks", REGISTRATION | {"folder": "full"})
    await office.desk.look()
    assert (office.registered, office.left(), office.errors()) == ([], [], [])
    assert office.outcomes() == {"refused": 1}


async def test_a_request_that_breaks_us_is_kept_for_a_human_and_the_next_one_is_served(office):
    async def broken(_group, _by):
        raise ValueError("our own mistake")

    office.leave("main", "tasks", REGISTRATION, "1.json")
    office.ask("main", type="refresh_groups", name="2.json")
    await office.new_desk(register=broken).look()
    assert office.errors() == ["main-1.json"]
    assert office.outcomes() == {"quarantined": 1, "done": 1}


async def test_without_a_database_everything_stays_and_is_done_once_it_is_back(office):
    async with office.refusing("INSERT ON requests"):
        office.tell("family", "tg:2")
        office.schedule("family")
        await office.desk.look()
        assert office.left() == ["1-abc.json", "1-abc.json"]
    await office.desk.look()
    assert len(await office.posts()) == len(await office.events()) == len(await office.tasks.list()) == 1
    assert office.outcomes() == {"done": 2}


async def test_a_broken_directory_does_not_hold_up_the_others(office, tmp_path):
    for folder, kind in (("main", "messages"), ("family", "tasks")):
        broken = tmp_path / "data/ipc" / folder / kind
        broken.rmdir()
        broken.symlink_to(tmp_path)
    office.groups.insert(0, GroupSpec(folder="new", name="New"))
    office.ask("main", type="refresh_groups")
    office.tell("family", "tg:2")
    office.tell("work", "http:work")
    await office.desk.look()
    assert office.outcomes() == {"done": 3}


async def test_an_agent_that_floods_leaves_the_others_their_turn(office):
    for number in range(FILES_AT_ONCE + 1):
        office.leave("family", "messages", "[]", f"{number:04}.json")
    office.tell("work", "http:work", name="last.json")
    await office.desk.look()
    assert office.left() == [f"{FILES_AT_ONCE:04}.json"]
    assert len(await office.events()) == 1


async def test_the_desk_looks_again_and_again(office):
    async def heard(count):
        while len(await office.events()) < count:
            await asyncio.sleep(0.005)

    life = asyncio.create_task(office.desk.run())
    office.tell("work", "http:work", name="1.json")
    await heard(1)
    office.tell("work", "http:work", name="2.json")
    await heard(2)
    life.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await life


async def test_old_keys_are_forgotten(office):
    book = RequestBook(office.store.database)
    assert await book.carry_out("key", lambda connection: None, at=NOW)
    await book.forget(NOW + REMEMBERED)
    assert not await book.carry_out("key", lambda connection: None, at=NOW)
    office.now = NOW + REMEMBERED + timedelta(seconds=1)
    await office.desk.look()
    assert await book.carry_out("key", lambda connection: None, at=NOW)


async def test_work_that_fails_may_be_tried_again(office):
    def broken(connection):
        statements.send(connection, "family", message, key="key", network=True, at=NOW)
        raise RuntimeError

    message = statements.SendMessage("tg:2", "family", "hello", None)
    book = RequestBook(office.store.database)
    with pytest.raises(RuntimeError):
        await book.carry_out("key", broken, at=NOW)
    assert (await office.events(), await office.posts()) == ([], [])
    assert await book.carry_out("key", lambda connection: None, at=NOW)
