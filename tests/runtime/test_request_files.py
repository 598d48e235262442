"""Requests as real files, most of them from an agent that means harm."""

import json
import os
import socket
import time

import pytest

from nanoclaw_runtime.domain.requests import RequestKind
from nanoclaw_runtime.ipc.requests import (
    ERRORS_DIR,
    ERRORS_KEPT,
    EVIDENCE,
    FILES_AT_ONCE,
    LARGEST_FILE,
    NAMES_AT_ONCE,
    PATIENCE,
    RequestFolder,
)
from tests.support.vanishing import remove_behind_each_look


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def requests(tmp_path, clock):
    (tmp_path / "data/ipc/family/tasks").mkdir(parents=True)
    (tmp_path / "store").mkdir()
    return RequestFolder(tmp_path, "family", RequestKind.TASK, clock=clock)


@pytest.fixture
def folder(tmp_path, requests):
    return tmp_path / "data/ipc/family/tasks"


@pytest.fixture
def errors(tmp_path):
    return tmp_path / ERRORS_DIR


def only(requests):
    (name,) = requests.names()
    return requests.read(name)


def patient(requests, clock):
    """What is found when the time for writing is over."""
    assert only(requests) is None
    clock.now += PATIENCE
    return only(requests)


def test_requests_are_found_in_the_order_of_their_names(requests, folder):
    for number in (3, 1, 2):
        (folder / f"{number}-abc.json").write_text(json.dumps({"type": "refresh_groups", "n": number}))
    assert [requests.read(name).document["n"] for name in requests.names()] == [1, 2, 3]


def test_unfinished_and_other_names_are_left_alone(requests, folder):
    for name in ("1.json.tmp", "note.txt", ".json.swp"):
        (folder / name).write_text("{}")
    assert requests.names() == []
    assert len(list(folder.iterdir())) == 3


def test_a_group_that_never_ran_has_no_requests(tmp_path):
    assert RequestFolder(tmp_path, "new", RequestKind.MESSAGE).names() == []


def test_a_directory_replaced_by_a_link_is_not_looked_into(requests, folder, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "1.json").write_text("{}")
    folder.rmdir()
    folder.symlink_to(elsewhere)
    with pytest.raises(NotADirectoryError):
        requests.names()


def test_what_is_done_is_gone(requests, folder):
    (folder / "1.json").write_text("{}")
    assert requests.done(only(requests))
    assert list(folder.iterdir()) == []


def test_a_file_that_vanishes_is_nothing(requests, folder):
    (folder / "1.json").write_text("{}")
    file = only(requests)
    (folder / "1.json").unlink()
    assert requests.read("1.json") is None
    assert requests.done(file)


def test_a_later_file_of_the_same_name_is_not_removed_with_the_first(requests, folder):
    (folder / "refresh_1.json").write_text('{"n": 1}')
    first = only(requests)
    (folder / "new").write_text('{"n": 2}')
    (folder / "new").rename(folder / "refresh_1.json")
    assert requests.done(first)
    second = only(requests)
    assert second.document == {"n": 2}
    assert second.key != first.key


def test_the_key_is_of_this_very_file(requests, folder, tmp_path):
    (folder / "1.json").write_text("{}")
    key = only(requests).key
    assert only(requests).key == key
    os.utime(folder / "1.json", ns=(0, 12345))
    assert only(requests).key != key


def test_keys_of_the_same_file_differ_between_groups_and_directories(tmp_path):
    keys = set()
    for folder in ("family", "work"):
        for kind in RequestKind:
            path = tmp_path / "data/ipc" / folder / kind / "1.json"
            path.parent.mkdir(parents=True)
            path.write_text("{}")
            os.utime(path, ns=(0, 0))
            keys.add(only(RequestFolder(tmp_path, folder, kind)).key)
    assert len(keys) == 4


def test_a_file_that_is_half_written_is_waited_for(requests, folder):
    path = folder / "refresh_1.json"
    path.write_text('{"type": "refr')
    assert only(requests) is None
    path.write_text('{"type": "refresh_groups"}')
    assert only(requests).document == {"type": "refresh_groups"}


def test_waiting_ends_by_our_clock_whatever_the_file_says_of_its_age(requests, folder, clock):
    path = folder / "1.json"
    path.write_text("{")
    future = time.time() + 10**9
    os.utime(path, (future, future))
    assert patient(requests, clock).problem


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b'{"a": ', id="half"),
        pytest.param(b"NaN", id="not a number"),
        pytest.param(b"\xff\xfe{\x00}\x00", id="UTF-16"),
        pytest.param(b"[" * 500_000, id="deep"),
        pytest.param(b'{"a":' * 100_000, id="deep objects"),
        pytest.param(b"9" * 10_000, id="a very long number"),
    ],
)
def test_what_never_becomes_json_is_kept_where_a_human_finds_it(requests, folder, errors, clock, content):
    (folder / "1-abc.json").write_bytes(content)
    assert requests.quarantine(patient(requests, clock))
    assert list(folder.iterdir()) == []
    assert (errors / "family-1-abc.json").read_bytes() == content[:EVIDENCE]


def test_an_empty_file_leaves_no_evidence(requests, folder, errors, clock):
    (folder / "1.json").touch()
    assert requests.quarantine(patient(requests, clock))
    assert list(folder.iterdir()) == []
    assert not errors.exists()


@pytest.mark.parametrize(
    ("content", "document"),
    [
        pytest.param(b'{"a": 1, "a": 2}', {"a": 2}, id="a key twice"),
        pytest.param(b'"\\ud83d"', "\ud83d", id="half a surrogate pair"),
        pytest.param(b'"a\\u0000b"', "a\x00b", id="NUL"),
        pytest.param(b'"\xff"', "\ufffd", id="no UTF-8"),
        pytest.param(b"1e999", float("inf"), id="an endless number"),
    ],
)
def test_odd_json_is_read_as_nodejs_reads_it(requests, folder, content, document):
    (folder / "1.json").write_bytes(content)
    assert only(requests).document == document


def make_link(path, outside):
    path.symlink_to(outside)


def make_broken_link(path, outside):
    path.symlink_to(path.parent / "nowhere")


def make_hard_link(path, outside):
    os.link(outside, path)


def make_fifo(path, outside):
    os.mkfifo(path)


def make_socket(path, outside):
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(path))


def make_folder(path, outside):
    path.mkdir()


HOSTILE = [make_link, make_broken_link, make_hard_link, make_fifo, make_socket, make_folder]


@pytest.mark.parametrize("make", HOSTILE)
def test_what_is_no_plain_file_is_removed_unread(requests, folder, tmp_path, make, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outside = tmp_path / "outside"
    outside.write_text('{"type": "message"}')
    make(folder / "1.json", outside)
    file = only(requests)
    assert (file.document, file.content) == (None, b"")
    assert file.problem
    assert requests.quarantine(file)
    assert list(folder.iterdir()) == []
    assert outside.read_text() == '{"type": "message"}'
    assert not (tmp_path / ERRORS_DIR).exists()


def test_a_folder_with_content_is_skipped_from_then_on(requests, folder):
    (folder / "0.json" / "inner").mkdir(parents=True)
    (folder / "1.json").write_text("{}")
    assert not requests.quarantine(requests.read("0.json"))
    assert requests.names() == ["1.json"]


def test_a_huge_file_is_not_read(requests, folder, errors):
    path = folder / "1.json"
    path.touch()
    os.truncate(path, 100 * 1024 * 1024)
    file = only(requests)
    assert "larger" in file.problem
    assert requests.quarantine(file)
    assert list(folder.iterdir()) == []
    assert (errors / "family-1.json").stat().st_size == EVIDENCE


def test_the_largest_request_is_read(requests, folder):
    (folder / "1.json").write_text('"' + "x" * (LARGEST_FILE - 2) + '"')
    assert only(requests).problem is None
    (folder / "1.json").write_text('"' + "x" * (LARGEST_FILE - 1) + '"')
    assert "larger" in only(requests).problem


def test_many_files_are_taken_a_part_at_a_time(requests, folder):
    for number in range(FILES_AT_ONCE + 50):
        (folder / f"{number:04}.json").write_text("{}")
    first = requests.names()
    assert first == [f"{number:04}.json" for number in range(FILES_AT_ONCE)]
    assert all(requests.done(requests.read(name)) for name in first)
    assert len(requests.names()) == 50


def test_of_very_many_names_some_are_looked_at(requests, folder):
    for number in range(NAMES_AT_ONCE + 500):
        (folder / f"{number}.json").touch()
    assert len(requests.names()) == FILES_AT_ONCE


@pytest.mark.parametrize("name", ["..\n.json", "a b;rm -rf.json", "\udcff.json", "x" * 250 + ".json", "é.json"])
def test_strange_names_make_plain_ones_in_errors(requests, folder, errors, clock, name):
    (folder / name).write_bytes(b"{")
    file = patient(requests, clock)
    assert requests.quarantine(file)
    (kept,) = errors.iterdir()
    assert kept.name == f"family-{file.plain_name}"
    assert kept.name.isascii()
    assert kept.name.isprintable()


def test_only_the_newest_errors_are_kept(requests, folder, errors):
    for number in range(ERRORS_KEPT + 5):
        (folder / f"{number}.json").write_text("{}")
        requests.quarantine(only(requests))
        os.utime(errors / f"family-{number}.json", (number, number))
    assert len(list(errors.iterdir())) == ERRORS_KEPT
    assert not (errors / "family-0.json").exists()
    assert (errors / f"family-{ERRORS_KEPT + 4}.json").exists()


def test_errors_that_somebody_removes_meanwhile_do_not_keep_a_file_from_being_kept(
    requests, folder, errors, monkeypatch
):
    errors.mkdir()
    (errors / "0-gone.json").write_text("looked at")
    (folder / "1.json").write_text("{}")
    file = only(requests)
    remove_behind_each_look(monkeypatch)
    assert requests.quarantine(file)
    monkeypatch.undo()
    assert [path.name for path in errors.iterdir()] == ["family-1.json"]
    assert requests.names() == []


def test_a_file_that_cannot_be_kept_stays_and_is_skipped_from_then_on(requests, folder, errors):
    errors.write_text("in the way")
    (folder / "1.json").write_text("{}")
    assert not requests.quarantine(only(requests))
    assert (folder / "1.json").exists()
    assert requests.names() == []
