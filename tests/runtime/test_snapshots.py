"""What agents are told of tasks and chats, and that no trap of theirs catches who writes it."""

import json
import os
from datetime import UTC, datetime, timedelta

import pytest

from nanoclaw_runtime.domain.tasks import TaskContext, TaskKind, TaskState
from nanoclaw_runtime.ipc import snapshots
from nanoclaw_runtime.store.records import Chat, Task

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def task(number, folder, **more):
    fields = {
        "id": f"task-{number}",
        "folder": folder,
        "jid": f"http:{folder}",
        "prompt": "water the plants",
        "kind": TaskKind.CRON,
        "value": "0 9 * * *",
        "context": TaskContext.GROUP,
        "state": TaskState.ACTIVE,
        "next_run": NOW,
        "last_run": None,
        "last_result": None,
        "created": NOW,
    }
    return Task(**fields | more)


def chat(jid, *, age=0, name="Chat", is_group=True):
    return Chat(jid=jid, name=name, channel="test", is_group=is_group, last_activity=NOW - timedelta(minutes=age))


@pytest.fixture
def ipc(tmp_path):
    folder = tmp_path / "data/ipc/main"
    folder.mkdir(parents=True)
    return folder


def read(path):
    return json.loads(path.read_text())


def test_main_sees_all_tasks_and_others_their_own():
    tasks = [task(1, "main"), task(2, "family"), task(3, "work")]
    assert [told["id"] for told in snapshots.current_tasks("main", tasks)] == ["task-1", "task-2", "task-3"]
    assert [told["id"] for told in snapshots.current_tasks("family", tasks)] == ["task-2"]
    assert snapshots.current_tasks("new", tasks) == []


def test_a_task_is_told_in_nanoclaws_words(tmp_path, ipc):
    done = task(2, "main", kind=TaskKind.ONCE, value="2026-03-01T13:00", state=TaskState.COMPLETED, next_run=None)
    snapshots.write_tasks(tmp_path, "main", [task(1, "family", state=TaskState.PAUSED), done])
    assert read(ipc / "current_tasks.json") == [
        {
            "id": "task-1",
            "groupFolder": "family",
            "prompt": "water the plants",
            "schedule_type": "cron",
            "schedule_value": "0 9 * * *",
            "status": "paused",
            "next_run": "2026-03-01T12:00:00.000Z",
        },
        {
            "id": "task-2",
            "groupFolder": "main",
            "prompt": "water the plants",
            "schedule_type": "once",
            "schedule_value": "2026-03-01T13:00",
            "status": "completed",
            "next_run": None,
        },
    ]


def test_main_is_told_of_group_chats_only():
    chats = [chat("family@g.us"), chat("ann@s.whatsapp.net", is_group=False), chat("__group_sync__", is_group=False)]
    told = snapshots.available_groups("main", chats, [], NOW)
    assert [group["jid"] for group in told["groups"]] == ["family@g.us"]


def test_chats_are_told_newest_first():
    chats = [chat("old@g.us", age=60), chat("new@g.us"), chat("between@g.us", age=5)]
    told = snapshots.available_groups("main", chats, [], NOW)
    assert [group["jid"] for group in told["groups"]] == ["new@g.us", "between@g.us", "old@g.us"]


def test_a_chat_is_told_in_nanoclaws_words(tmp_path, ipc):
    chats = [chat("family@g.us", name="Family"), chat("other@g.us", age=1, name=None)]
    snapshots.write_groups(tmp_path, "main", chats, {"family@g.us"}, NOW)
    assert read(ipc / "available_groups.json") == {
        "groups": [
            {
                "jid": "family@g.us",
                "name": "Family",
                "lastActivity": "2026-03-01T12:00:00.000Z",
                "isRegistered": True,
            },
            {
                "jid": "other@g.us",
                "name": "other@g.us",
                "lastActivity": "2026-03-01T11:59:00.000Z",
                "isRegistered": False,
            },
        ],
        "lastSync": "2026-03-01T12:00:00.000Z",
    }


def test_without_chats_there_are_no_groups():
    assert snapshots.available_groups("main", [], ["family@g.us"], NOW)["groups"] == []


def test_other_groups_are_told_of_no_chats():
    assert snapshots.available_groups("family", [chat("family@g.us")], [], NOW)["groups"] == []


def test_a_snapshot_replaces_the_last_one_and_leaves_nothing_beside_it(tmp_path, ipc):
    snapshots.write_tasks(tmp_path, "main", [task(1, "main")])
    snapshots.write_tasks(tmp_path, "main", [])
    assert read(ipc / "current_tasks.json") == []
    assert [path.name for path in ipc.iterdir()] == ["current_tasks.json"]


def test_a_link_is_replaced_and_not_followed(tmp_path, ipc):
    outside = tmp_path / "outside"
    outside.write_text("precious")
    (ipc / "current_tasks.json").symlink_to(outside)
    snapshots.write_tasks(tmp_path, "main", [])
    assert read(ipc / "current_tasks.json") == []
    assert outside.read_text() == "precious"


def test_a_second_name_of_the_last_snapshot_keeps_the_old_content(tmp_path, ipc):
    (ipc / "current_tasks.json").write_text("old")
    os.link(ipc / "current_tasks.json", ipc / "kept")
    snapshots.write_tasks(tmp_path, "main", [])
    assert (ipc / "kept").read_text() == "old"


def test_a_pipe_is_replaced_without_waiting_for_its_reader(tmp_path, ipc):
    os.mkfifo(ipc / "current_tasks.json")
    snapshots.write_tasks(tmp_path, "main", [])
    assert read(ipc / "current_tasks.json") == []


def test_a_folder_in_its_place_is_moved_aside_with_all_it_holds(tmp_path, ipc):
    (ipc / "current_tasks.json" / "deep").mkdir(parents=True)
    snapshots.write_tasks(tmp_path, "main", [])
    assert read(ipc / "current_tasks.json") == []
    assert [path.parent.parent for path in ipc.rglob("deep")] == [ipc]


def test_a_group_folder_that_is_a_link_is_not_written_to(tmp_path, ipc):
    (tmp_path / "data/ipc/family").symlink_to(ipc)
    with pytest.raises(NotADirectoryError):
        snapshots.write_tasks(tmp_path, "family", [])
    assert list(ipc.iterdir()) == []


def test_a_snapshot_that_cannot_be_written_leaves_the_last_one(tmp_path, ipc):
    snapshots.write_tasks(tmp_path, "main", [])
    with pytest.raises(TypeError):
        snapshots.write_tasks(tmp_path, "main", [task(1, "main", value=object())])
    assert read(ipc / "current_tasks.json") == []
