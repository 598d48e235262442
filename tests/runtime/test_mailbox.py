"""Follow-ups as files: whole or not at all, refused once closing, never through a link.

What an agent and its controller see of it is the same when they share a folder and when a bridge carries the files.
"""

import json
import os
from pathlib import Path

import pytest

from nanoclaw_runtime.contract import bridge
from nanoclaw_runtime.domain.errors import StoreFailed
from nanoclaw_runtime.ipc.descriptors import MOVED_AT_ONCE
from nanoclaw_runtime.ipc.mailbox import LARGEST_FILE, MOST_READ, Mailbox
from tests.support.bridged import PATIENCE, Bridged, until
from tests.support.vanishing import remove_behind_each_look


def open_files():
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.fixture
async def mailbox(tmp_path):
    box = Mailbox(tmp_path, "main", "s1")
    await box.prepare()
    return box


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "data/ipc/main/inputs/s1"


class Side:
    """The mailbox of one session, and the folder that its agent looks into."""

    def __init__(self, mailbox, folder):
        self.mailbox, self.folder = mailbox, folder

    def seen(self):
        """What the agent sees now, in the order in which it takes it."""
        return sorted(path.name for path in self.folder.iterdir() if path.suffix == ".json" or path.name == "_close")

    async def sees(self, count):
        """The texts, once there are so many files."""
        await until(lambda: len(self.seen()) == count)
        return [json.loads((self.folder / name).read_text())["text"] for name in self.seen() if name != "_close"]

    def takes(self, text):
        """As an agent does."""
        for name in self.seen():
            if text in (self.folder / name).read_text():
                (self.folder / name).unlink()


@pytest.fixture(params=["volume", "bridge"])
async def side(request, tmp_path, monkeypatch):
    monkeypatch.setattr(bridge, "LAST_REPORT", PATIENCE)  # on a busy machine a pod takes longer to say what was taken
    if request.param == "volume":
        box = Mailbox(tmp_path, "main", "s1")
        await box.prepare()
        yield Side(box, tmp_path / "data/ipc/main/inputs/s1")
        return
    async with Bridged.open(tmp_path) as bridged, bridged.pod() as pod:
        box = bridged.mailbox()
        await box.prepare()
        yield Side(box, pod.inputs)


async def test_follow_ups_reach_the_agent_in_order(side):
    for number in range(20):
        assert await side.mailbox.send(f"text {number}", [number], recorded)
    assert await side.sees(20) == [f"text {number}" for number in range(20)]


async def test_the_largest_text_arrives_whole(side):
    text = "x" * (LARGEST_FILE - 100)
    assert await side.mailbox.send(text, [1], recorded)
    assert await side.sees(1) == [text]


async def test_the_agent_is_asked_to_end_however_often(side):
    for _ in range(3):
        await side.mailbox.close()
        await side.sees(1)
        assert side.seen() == ["_close"]
        (side.folder / "_close").unlink()
    assert not await side.mailbox.send("late", [1], recorded)


async def test_what_the_agent_took_is_told_apart_from_what_it_left(side):
    await side.mailbox.send("taken", [1], recorded)
    await side.mailbox.send("left", [2, 3], recorded)
    await side.sees(2)
    side.takes("taken")
    assert await side.mailbox.pending() == {2, 3}
    assert await side.sees(1) == ["left"]


async def test_what_an_earlier_process_recorded_reaches_the_agent_once(side):
    async def dies():
        raise StoreFailed("killed")

    for number in (1, 2):
        with pytest.raises(StoreFailed):
            await side.mailbox.send(f"text {number}", [number], dies)
    assert side.seen() == []
    await side.mailbox.deliver_recorded({2})
    assert await side.sees(1) == ["text 2"]
    side.takes("text 2")
    assert await side.mailbox.pending() == set()


async def test_what_an_agent_makes_of_its_folder_is_its_own_affair(side):
    (side.folder / "mine.json").mkdir()
    (side.folder / "link").symlink_to("/etc")
    (side.folder / "1-aaaa.json.tmp").mkdir()
    await side.mailbox.send("text", [1], recorded)
    await until(lambda: any(name != "mine.json" for name in side.seen()))
    assert await side.mailbox.pending() == {1}


async def test_prepare_makes_the_folders_an_agent_expects(mailbox, folder):
    assert sorted(path.name for path in folder.parents[1].iterdir()) == ["input", "inputs", "messages", "tasks"]


async def recorded():
    """The store has it."""


async def test_prepare_removes_what_an_earlier_session_left(mailbox, folder, tmp_path):
    await mailbox.send("old", [1], recorded)
    await mailbox.close()
    await Mailbox(tmp_path, "main", "s2").prepare()
    assert [path.name for path in folder.parent.iterdir()] == ["s2"]


async def test_nothing_of_an_older_session_reaches_a_newer_one(mailbox, tmp_path):
    newer = Mailbox(tmp_path, "main", "s2")
    await newer.prepare()
    with pytest.raises(FileNotFoundError):
        await mailbox.send("stale", [1], recorded)
    with pytest.raises(FileNotFoundError):
        await mailbox.close()
    assert list((tmp_path / "data/ipc/main/inputs/s2").iterdir()) == []
    assert list((tmp_path / "data/ipc/main/input").iterdir()) == []


async def test_a_link_an_agent_put_in_place_of_the_folders_is_replaced(tmp_path):
    elsewhere, ipc = tmp_path / "elsewhere", tmp_path / "data/ipc/main"
    for folder in (elsewhere / "s1", ipc):
        folder.mkdir(parents=True)
    (elsewhere / "s1/keep").touch()
    (ipc / "inputs").symlink_to(elsewhere)
    await Mailbox(tmp_path, "main", "s1").prepare()
    assert (elsewhere / "s1/keep").exists()
    assert not (ipc / "inputs").is_symlink()


async def test_folders_nested_deeper_than_any_stack_are_removed(mailbox, folder, tmp_path):
    inner = os.open(folder, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=inner)
        inner, outer = os.open("d", os.O_RDONLY, dir_fd=inner), inner
        os.close(outer)
    os.close(inner)
    await Mailbox(tmp_path, "main", "s2").prepare()
    assert [path.name for path in folder.parent.iterdir()] == ["s2"]


async def test_more_folders_than_are_moved_at_once_are_removed(mailbox, folder, tmp_path):
    for number in range(MOVED_AT_ONCE + 1):
        (folder / f"{number}/inner").mkdir(parents=True)
    (folder / "0/inner/file").touch()
    await Mailbox(tmp_path, "main", "s2").prepare()
    assert [path.name for path in folder.parent.iterdir()] == ["s2"]


async def test_a_discarded_mailbox_leaves_no_folder(mailbox, folder):
    await mailbox.send("left", [1], recorded)
    await mailbox.discard()
    assert not folder.exists()


async def test_a_follow_up_is_one_json_file_in_name_order(mailbox, folder):
    for number in range(20):
        assert await mailbox.send(f"text {number}", [number], recorded)
    texts = [json.loads(path.read_text())["text"] for path in sorted(folder.iterdir())]
    assert texts == [f"text {number}" for number in range(20)]
    assert all(path.suffix == ".json" for path in folder.iterdir())


async def test_a_closing_mailbox_refuses(mailbox, folder):
    await mailbox.close()
    assert not await mailbox.send("late", [1], recorded)
    assert [path.name for path in folder.iterdir()] == ["_close"]


async def test_what_the_agent_did_not_take_is_told_and_stays(mailbox, folder):
    await mailbox.send("taken", [1], recorded)
    next(iter(folder.iterdir())).unlink()
    await mailbox.send("left", [2, 3], recorded)
    assert await mailbox.pending() == {2, 3}
    assert len(list(folder.iterdir())) == 1


async def test_a_text_is_recorded_when_it_is_on_the_disk_and_before_the_agent_can_take_it(mailbox, folder):
    async def look():
        seen.extend(path.suffix for path in folder.iterdir())

    seen = []
    assert await mailbox.send("text", [1], look)
    assert seen == [".tmp"]
    assert [path.suffix for path in folder.iterdir()] == [".json"]


async def test_a_text_that_could_not_be_recorded_is_not_delivered(mailbox, folder):
    async def refuse():
        raise StoreFailed("disk full")

    with pytest.raises(StoreFailed):
        await mailbox.send("text", [1], refuse)
    assert list(folder.glob("*.json")) == []
    assert await mailbox.pending() == {1}


async def test_what_was_recorded_before_a_crash_is_delivered_and_the_rest_removed(mailbox, folder):
    for name, ids in (("1-aaaa", [1]), ("2-bbbb", [2, 3]), ("3-cccc", [3, 4]), ("4-dddd", [])):
        (folder / f"{name}.json.tmp").write_text(json.dumps({"type": "message", "text": "x", "messages": ids}))
    await mailbox.deliver_recorded({1, 2, 3})
    assert sorted(path.name for path in folder.iterdir()) == ["1-aaaa.json", "2-bbbb.json"]


async def test_a_text_that_its_agent_removes_meanwhile_keeps_no_other_from_being_delivered(
    mailbox, folder, monkeypatch
):
    for name, ids in (("1-gone", [1]), ("2-bbbb", [2])):
        (folder / f"{name}.json.tmp").write_text(json.dumps({"type": "message", "text": "x", "messages": ids}))
    remove_behind_each_look(monkeypatch)
    await mailbox.deliver_recorded({1, 2})
    monkeypatch.undo()
    assert [path.name for path in folder.iterdir()] == ["2-bbbb.json"]


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"messages": 5}', '{"messages": ["x", true, 1.5]}', "[" * 50_000],
    ids=["empty", "list", "object", "number", "wrong types", "deep"],
)
async def test_foreign_files_name_no_messages(mailbox, folder, content):
    (folder / "1-aaaa.json").write_text(content)
    assert await mailbox.pending() == set()


async def test_what_is_no_plain_file_of_ours_is_neither_opened_for_long_nor_removed(mailbox, folder):
    (folder / "1-aaaa.json").mkdir()
    os.mkfifo(folder / "2-aaaa.json")
    with (folder / "3-aaaa.json").open("wb") as huge:
        huge.truncate(2**40)
    (folder / "notes.json").write_text('{"messages": [7]}')
    await mailbox.send("left", [2], recorded)
    before = open_files()
    assert await mailbox.pending() == {2}
    assert open_files() == before
    assert {"1-aaaa.json", "notes.json"} <= {path.name for path in folder.iterdir()}


async def test_only_so_much_is_read_back(mailbox, folder):
    fitting = MOST_READ // LARGEST_FILE
    for number in range(fitting + 2):
        (folder / f"{number}-aaaa.json").write_text(f'{{"messages": [{number}]}}'.ljust(LARGEST_FILE))
    assert await mailbox.pending() == set(range(fitting))


async def test_a_link_out_of_the_folder_is_not_followed(mailbox, folder, tmp_path):
    secret = tmp_path / "secret.json"
    secret.write_text('{"messages": [7]}')
    (folder / "1-aaaa.json").symlink_to(secret)
    assert await mailbox.pending() == set()
    assert secret.exists()


async def test_an_input_folder_replaced_by_a_link_is_refused(mailbox, folder, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    folder.rmdir()
    folder.symlink_to(elsewhere)
    with pytest.raises(NotADirectoryError):
        await mailbox.send("text", [1], recorded)
    assert list(elsewhere.iterdir()) == []


async def test_a_text_too_large_to_be_taken_back_is_refused(mailbox, folder):
    assert not await mailbox.send("x" * LARGEST_FILE, [1], recorded)
    assert list(folder.iterdir()) == []


async def test_a_text_is_recorded_only_when_a_power_cut_would_leave_it(mailbox, folder, monkeypatch):
    kept = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: kept.append(Path(f"/proc/self/fd/{descriptor}").readlink()))

    async def recorded():
        assert [path.suffix for path in folder.iterdir()] == [".tmp"]
        assert kept[1:] == [folder]
        assert kept[0].parent == folder

    assert await mailbox.send("text", [1], recorded)
    assert len(kept) == 2
