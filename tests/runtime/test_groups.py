"""Groups that come and go at run time, beside those of the stack: on a real store."""

import asyncio
import contextlib
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from nanoclaw_runtime.contract.config import ContainerConfig, Groups, GroupSpec, Priority
from nanoclaw_runtime.controller import groups as groups_module
from nanoclaw_runtime.controller.groups import GroupBook
from nanoclaw_runtime.controller.status import Origin, SessionState, SessionStatus
from nanoclaw_runtime.controller.volumes import OneTree
from nanoclaw_runtime.domain.errors import GroupUnknown, NanoclawError, RegistrationRefused, SessionUnknown
from nanoclaw_runtime.domain.model import SessionKind
from nanoclaw_runtime.domain.registration import objection, overruled
from nanoclaw_runtime.domain.tasks import TaskContext, TaskKind, TaskState
from nanoclaw_runtime.store.records import EventType, MessageState, Registration
from nanoclaw_runtime.store.registrations import RegistrationBook
from nanoclaw_runtime.store.schema import outbox, tasks
from tests.support import stores

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
MAIN = GroupSpec(folder="main", name="Main")
FAMILY = GroupSpec(folder="family", name="Family", jid="tg:1")
TEAM = GroupSpec(folder="team", name="Team", jid="tg:2")


class Volumes:
    """Storage that is there once the test says so."""

    def __init__(self):
        self.made, self.here, self.mounts = [], set(), asyncio.Queue()
        self.asked, self.told = asyncio.Event(), asyncio.Event()
        self.told.set()
        self.refusal = None

    async def provide(self, folder):
        if self.refusal:
            raise self.refusal
        self.made.append(folder)

    async def mount(self, folders):
        self.mounts.put_nowait(list(folders))
        if self.refusal:
            raise self.refusal

    async def mounted(self, folder):
        self.asked.set()
        await self.told.wait()
        return folder in self.here


class Sessions:
    """The sessions of a controller; stopping one ends it."""

    def __init__(self, *folders):
        self.alive = [
            SessionStatus(f"s-{folder}", folder, SessionKind.MESSAGES, SessionState.IDLE, NOW, 0, None)
            for folder in folders
        ]
        self.stopped = []

    def sessions(self):
        return self.alive

    async def stop_session(self, session):
        self.stopped.append(session)
        raise SessionUnknown(session)


class House:
    """A book on a store; `restart` is another process."""

    def __init__(self, store):
        self.store = store
        self.volumes = Volumes()

    async def begin(self, *declared, allowed=True, volumes=None):
        self.book = GroupBook(
            RegistrationBook(self.store.database),
            volumes or OneTree(),
            allowed=allowed,
            is_network=lambda jid: jid.startswith("tg:"),
        )
        await self.book.load()
        await self.book.declare(Groups(groups=declared))
        return self.book

    async def waits(self, folder, text="hello"):
        message, _ = await self.store.add_message(folder, text, sender="a", sender_name="A", at=NOW)
        return message

    async def rows(self, table):
        def work(connection):
            return [dict(row) for row in connection.execute(table.select()).mappings()]

        return await self.store.database.transaction(work)


@pytest.fixture
async def house(tmp_path):
    store = await stores.opened(tmp_path)
    yield House(store)
    await store.close()


def folders(book):
    return [group.folder for group in book.all()]


# Who may be where


def spec(folder, jid=""):
    return GroupSpec(folder=folder, name=folder, jid=jid)


@pytest.mark.parametrize(
    ("new", "told"),
    [
        pytest.param(spec("new", "tg:9"), None, id="a new one"),
        pytest.param(spec("team", "tg:2"), None, id="the same again"),
        pytest.param(spec("family", "tg:9"), "group 'family' is declared in the stack", id="a folder of the stack"),
        pytest.param(spec("family", "tg:1"), "group 'family' is declared in the stack", id="a group of the stack"),
        pytest.param(spec("new", "tg:1"), "the chat 'tg:1' belongs to group 'family'", id="a chat of the stack"),
        pytest.param(spec("team", "tg:9"), "the folder 'team' belongs to the chat 'tg:2'", id="a folder with a chat"),
        pytest.param(spec("new", "tg:2"), "the chat 'tg:2' belongs to group 'team'", id="a chat with a folder"),
        pytest.param(spec("Team", "tg:9"), None, id="another case is another folder"),
    ],
)
def test_a_folder_and_a_chat_belong_together_once(new, told):
    problem = objection(new, [MAIN, FAMILY], [TEAM])
    assert problem is None if told is None else problem.startswith(told)


def distinct(groups):
    try:
        return Groups(groups=groups)
    except ValueError:
        return None


FEW = st.lists(
    st.builds(spec, st.sampled_from(["a", "b", "A", "c"]), st.sampled_from(["tg:1", "tg:2", "tg:3", ""])), max_size=5
)


@given(FEW.filter(distinct), FEW)
def test_whatever_is_added_no_folder_and_no_chat_is_used_twice(declared, wanted):
    registered = {}
    for new in wanted:
        if objection(new, declared, registered.values()) is None:
            registered[new.folder] = new
    assert overruled(registered.values(), declared) == {}
    assert distinct([*declared, *registered.values()])


@given(FEW.filter(distinct), FEW.filter(distinct))
def test_whatever_the_stack_declares_later_it_wins_and_nothing_is_used_twice(declared, added):
    back = overruled(added, declared)
    assert distinct([*declared, *(group for group in added if group.folder not in back)])
    for group in added:
        alone = distinct([*declared, group])
        assert bool(back.get(group.folder)) is (alone is None)


# The book


async def test_a_group_that_is_added_is_there_after_a_restart(house):
    book = await house.begin(MAIN)
    await book.register(TEAM, "main")

    book = await house.begin(MAIN)
    assert folders(book) == ["main", "team"]
    assert book.by_folder("team") == TEAM
    assert book.by_jid("tg:2") == TEAM
    assert (book.origin("main"), book.origin("team")) == (Origin.DECLARED, Origin.REGISTERED)
    (row,) = await RegistrationBook(house.store.database).all()
    assert (row.jid, row.added_by) == ("tg:2", "main")


async def test_what_is_not_there_is_unknown(house):
    book = await house.begin(MAIN)
    assert book.by_jid("tg:2") is None
    for look in (book.by_folder, book.origin):
        with pytest.raises(GroupUnknown):
            look("team")


async def test_the_same_group_again_is_written_anew(house):
    book = await house.begin(MAIN)
    await book.register(TEAM, "main")
    await book.register(TEAM.model_copy(update={"name": "Club", "requires_trigger": False}), "api")

    assert [group.name for group in book.all()] == ["Main", "Club"]
    (row,) = await RegistrationBook(house.store.database).all()
    assert (row.spec["name"], row.spec["requiresTrigger"], row.added_by) == ("Club", False, "api")


async def test_what_is_taken_is_refused_and_changes_nothing(house):
    book = await house.begin(MAIN, volumes=house.volumes)
    with pytest.raises(RegistrationRefused, match="declared in the stack"):
        await book.register(MAIN, "api")
    assert await RegistrationBook(house.store.database).all() == []
    assert house.volumes.made == []


async def test_a_group_changes_in_what_is_given(house):
    book = await house.begin(MAIN)
    await book.register(TEAM, "main")
    await book.change("team", priority=Priority.HIGH, container_config=ContainerConfig(timeout=60), by="api")

    changed = (await house.begin(MAIN)).by_folder("team")
    assert changed == TEAM.model_copy(
        update={"priority": Priority.HIGH, "container_config": ContainerConfig(timeout=60)}
    )


async def test_groups_of_the_stack_and_groups_that_are_not_there_are_not_changed(house):
    book = await house.begin(MAIN)
    for act in (lambda folder: book.change(folder, name="x", by="api"), lambda folder: book.remove(folder, Sessions())):
        with pytest.raises(RegistrationRefused, match="change it there"):
            await act("main")
        with pytest.raises(GroupUnknown):
            await act("team")


async def test_without_the_stacks_leave_nothing_changes_but_what_was_added_goes_on(house):
    await (await house.begin(MAIN)).register(TEAM, "main")
    book = await house.begin(MAIN, allowed=False)

    assert folders(book) == ["main", "team"]
    for act in (
        book.register(FAMILY, "api"),
        book.change("team", name="x", by="api"),
        book.remove("team", Sessions()),
    ):
        with pytest.raises(RegistrationRefused, match=r"`runtime.registration: true`"):
            await act
    await book.run()  # ends: there is nothing to keep


async def test_the_stack_wins_and_says_so_once(house):
    book = await house.begin(MAIN)
    await book.register(TEAM, "main")
    theirs = GroupSpec(folder="club", name="Club", jid="tg:2")
    with capture_logs() as logs:
        await book.declare(Groups(groups=[MAIN, theirs]))
        await book.declare(Groups(groups=[MAIN, theirs, FAMILY]))

    assert folders(book) == ["club", "family", "main"]
    assert book.by_jid("tg:2") == theirs
    assert [entry["group"] for entry in logs if entry["log_level"] == "warning"] == ["team"]
    await book.declare(Groups(groups=[MAIN]))
    assert folders(book) == ["main", "team"]


async def test_a_row_nobody_understands_is_left_out(house):
    rows = RegistrationBook(house.store.database)
    await rows.put(Registration("errors", "tg:7", {"folder": "errors", "name": "Errors"}, NOW, "main"))
    await (await house.begin(MAIN)).register(TEAM, "main")

    with capture_logs() as logs:
        assert folders(await house.begin(MAIN)) == ["main", "team"]
    assert "reserved" in logs[0]["problem"]


async def test_listeners_hear_of_every_change(house):
    book = await house.begin(MAIN)
    heard = []

    async def listen():
        heard.append(folders(book))

    book.on_change = listen
    await book.register(TEAM, "main")
    await book.declare(Groups(groups=[MAIN, FAMILY]))
    await book.remove("team", Sessions())
    assert heard == [["main", "team"], ["family", "main", "team"], ["family", "main"]]


# Letting go


async def test_a_group_that_goes_keeps_its_history_for_its_return(house):
    book = await house.begin(MAIN)
    await book.register(TEAM, "main")
    message = await house.waits("team")
    await house.store.fail_messages("team", [message.id], "no", at=NOW)
    await book.remove("team", Sessions("family"))

    assert folders(book) == ["main"]
    assert folders(await house.begin(MAIN)) == ["main"]
    assert [each.content for each in await house.store.history("team")] == ["hello"]
    await book.register(TEAM.model_copy(update={"jid": "tg:3"}), "main")


async def test_a_busy_group_stays(house):
    book = await house.begin(MAIN)
    await book.register(TEAM, "main")
    sessions = Sessions("team")
    with pytest.raises(RegistrationRefused, match="session s-team of group 'team' is alive"):
        await book.remove("team", sessions)
    await house.waits("team")
    with pytest.raises(RegistrationRefused, match="1 messages wait in group 'team'"):
        await book.remove("team", Sessions())

    assert folders(book) == ["main", "team"]
    assert sessions.stopped == []
    assert (await house.store.history("team"))[0].state is MessageState.WAITING


async def test_with_force_what_waits_is_given_up_where_people_see_it(house):
    book = await house.begin(MAIN)
    await book.register(TEAM, "main")
    message = await house.waits("team")
    sessions = Sessions("main", "team")
    await book.remove("team", sessions, force=True)

    assert sessions.stopped == ["s-team"]
    assert (await house.store.history("team"))[0].state is MessageState.FAILED
    event = (await house.store.events(after=0, folder="team"))[-1]
    assert (event.type, event.payload["messages"]) == (EventType.FAILURE, [message.id])
    (post,) = await house.rows(outbox)
    assert (post["jid"], post["text"]) == ("tg:2", event.payload["text"])


async def test_the_tasks_of_a_group_that_goes_pause(house):
    book = await house.begin(MAIN)
    await book.register(TEAM, "main")
    for folder in ("team", "main"):
        task = {
            "id": f"task-{folder}", "folder": folder, "jid": "tg:2", "prompt": "p", "kind": TaskKind.INTERVAL,
            "value": "1000", "context": TaskContext.GROUP, "state": TaskState.ACTIVE, "next_run": NOW, "created": NOW,
        }  # fmt: skip
        await house.store.database.transaction(lambda connection, task=task: connection.execute(tasks.insert(), task))
    await book.remove("team", Sessions())

    assert {row["folder"]: row["state"] for row in await house.rows(tasks)} == {
        "team": TaskState.PAUSED,
        "main": TaskState.ACTIVE,
    }


# Storage


async def test_a_group_without_its_storage_is_pending_until_a_process_finds_it(house):
    book = await house.begin(MAIN, volumes=house.volumes)
    await book.register(TEAM, "main")
    assert house.volumes.made == ["team"]
    assert book.pending("team")
    assert not book.pending("main")

    house.volumes.here.add("team")
    assert not (await house.begin(MAIN, volumes=house.volumes)).pending("team")


async def test_a_group_is_not_served_while_nobody_knows_whether_its_storage_is_here(house):
    """A session that began meanwhile would write its files where no agent looks."""
    book = await house.begin(MAIN, volumes=house.volumes)
    house.volumes.told.clear()
    adding = asyncio.create_task(book.register(TEAM, "main"))
    await house.volumes.asked.wait()
    assert folders(book) == ["main"]
    house.volumes.told.set()
    await adding
    assert (folders(book), book.pending("team")) == (["main", "team"], True)


async def test_a_group_whose_storage_cannot_be_made_is_not_added(house):
    book = await house.begin(MAIN, volumes=house.volumes)
    house.volumes.refusal = RegistrationRefused("the quota is used up")
    with pytest.raises(RegistrationRefused, match="quota"):
        await book.register(TEAM, "main")
    assert folders(book) == ["main"]
    assert await RegistrationBook(house.store.database).all() == []


@pytest.fixture
def soon(monkeypatch):
    monkeypatch.setattr(groups_module, "SETTLE", 0)
    monkeypatch.setattr(groups_module, "RETRY", 0)


@contextlib.asynccontextmanager
async def running(book):
    life = asyncio.create_task(book.run())
    yield
    life.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await life


async def test_the_storage_of_every_added_group_is_mounted_and_only_that(house, soon):
    await (await house.begin(MAIN)).register(TEAM, "main")
    book = await house.begin(MAIN, volumes=house.volumes)
    async with running(book):
        assert await house.volumes.mounts.get() == ["team"]
        await book.register(FAMILY, "main")
        while await house.volumes.mounts.get() != ["family", "team"]:
            pass
        await book.remove("team", Sessions())
        while await house.volumes.mounts.get() != ["family"]:
            pass


async def test_mounting_is_tried_again_until_the_cluster_lets_us(house, soon):
    book = await house.begin(MAIN, volumes=house.volumes)
    await book.register(TEAM, "main")
    house.volumes.refusal = NanoclawError("no")
    with capture_logs() as logs:
        async with running(book):
            for _ in range(3):
                assert await house.volumes.mounts.get() == ["team"]
    assert "storage of added groups not mounted" in [entry["event"] for entry in logs]
