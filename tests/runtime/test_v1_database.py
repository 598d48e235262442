"""The database of a NanoClaw v1 host that goes on writing while it is read."""

import shutil
import sqlite3
import threading
from contextlib import closing

import pytest

from nanoclaw_runtime.cli import v1_host
from nanoclaw_runtime.cli.errors import CommandFailed
from tests.support.v1_host import V1Host, at

JID = "team@g.us"


@pytest.fixture
def there(tmp_path):
    host = V1Host(tmp_path / "host")
    host.group("team", JID)
    host.message(JID, 1, "before")
    return host


@pytest.fixture
def copied(monkeypatch):
    """What happens at the host behind each copy of its database's file, first to last."""
    happens, copyfile = [], shutil.copyfile

    def copy(source, target):
        copyfile(source, target)
        if source.name == "messages.db" and happens:
            happens.pop(0)()

    monkeypatch.setattr(shutil, "copyfile", copy)
    return happens


def written(connection, *texts):
    for text in texts:
        connection.execute(
            "INSERT INTO messages VALUES (?, ?, 'ada', 'Ada', ?, ?, 0, 0)", [f"id-{text}", JID, text, at(2)]
        )
    connection.commit()


def texts(there):
    return [message.content for message in v1_host.read_database(there.database).messages]


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_what_a_host_writes_while_its_database_is_copied_is_read_whole(there, copied, mode):
    with closing(sqlite3.connect(there.database)) as host:
        host.execute(f"PRAGMA journal_mode = {mode}")

        def goes_on():
            written(host, "first")
            host.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            written(host, "second")

        copied.append(goes_on)
        assert texts(there) == ["before", "first", "second"]


def test_a_host_that_writes_all_the_time_is_to_be_stopped(there, copied, monkeypatch):
    monkeypatch.setattr(v1_host, "PAUSE", 0)
    with closing(sqlite3.connect(there.database)) as host:
        copied += [lambda number=number: written(host, f"{number}") for number in range(v1_host.COPIES)]
        with pytest.raises(CommandFailed, match="stop the host"):
            texts(there)
    assert copied == []


def test_a_database_that_is_written_to_meanwhile_is_never_read_in_parts(there):
    """Each text is in the messages and in the chats, or in neither."""
    over = threading.Event()

    def write():
        with closing(sqlite3.connect(there.database)) as host:
            for number in range(300):
                host.execute("INSERT INTO chats VALUES (?, ?, NULL, NULL, 0)", [f"chat {number:03}", "x" * 900])
                written(host, f"chat {number:03}")
                over.wait(0.003)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        while writer.is_alive():
            try:
                found = v1_host.read_database(there.database)
            except CommandFailed as refused:
                assert "stop the host" in str(refused)  # noqa: PT017 - it may be refused, and no other way
                continue
            written_texts = {message.content for message in found.messages} - {"before"}
            assert written_texts == {chat.jid for chat in found.chats} - {JID}
    finally:
        over.set()
        writer.join()
