"""On a stand-in for `Api`: what the API server does when it is restarted is tested on a real one."""

from __future__ import annotations

import queue
import threading

import pytest

from nanoclaw_dev.cluster import follow
from nanoclaw_dev.errors import SetupError

PATIENCE = 60


class Script:
    """Answers lists and watches with what a test puts in; an exception is raised. Then it waits."""

    def __init__(self):
        self.lists, self.changes = queue.Queue(), queue.Queue()
        self.watched = []

    def list(self, path):
        found = self.lists.get()
        if isinstance(found, Exception):
            raise found
        return {"metadata": {"resourceVersion": "7"}, "items": [{"metadata": {"uid": uid}} for uid in found]}

    def watch(self, path, version, *, seconds):
        self.watched.append(version)
        while (change := self.changes.get()) is not None:
            if isinstance(change, Exception):
                raise change
            kind, uid = change
            yield {"type": kind, "object": {"metadata": {"uid": uid}}}


@pytest.fixture
def api():
    return Script()


@pytest.fixture
def mirror(api, monkeypatch):
    monkeypatch.setattr(follow, "RETRY", 0)
    wake = threading.Event()
    found = follow.Mirror(api, "/things", lambda each: None if "hidden" in each["metadata"]["uid"] else each, wake)
    found.woken = wake
    return found


def awaited(mirror, *uids):
    """Return when the mirror shows these, and it told so."""
    while True:
        assert mirror.woken.wait(PATIENCE), mirror.values()
        mirror.woken.clear()
        if {each["metadata"]["uid"] for each in mirror.values()} == set(uids):
            return


def test_nothing_is_known_before_everything_was_listed(api, mirror):
    assert not mirror.known()
    api.lists.put([])
    awaited(mirror)
    assert mirror.known()


def test_what_is_listed_added_and_removed_is_shown(api, mirror):
    api.lists.put(["one", "two", "hidden"])
    awaited(mirror, "one", "two")
    api.changes.put(("ADDED", "three"))
    awaited(mirror, "one", "two", "three")
    api.changes.put(("DELETED", "one"))
    awaited(mirror, "two", "three")
    assert api.watched == ["7"]


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(None, id="its time was over"),
        pytest.param(("ERROR", "410"), id="the server forgot the version"),
        pytest.param(ConnectionResetError("gone"), id="the connection broke"),
        pytest.param(ValueError("half a line"), id="the server died while writing"),
    ],
)
def test_after_a_watch_ended_the_last_known_stays_until_the_next_list(api, mirror, end):
    api.lists.put(["one", "two"])
    awaited(mirror, "one", "two")
    api.changes.put(end)
    api.lists.put(SetupError("not ready"))
    api.lists.put(ConnectionRefusedError())
    assert {each["metadata"]["uid"] for each in mirror.values()} == {"one", "two"}
    api.lists.put(["two", "three"])
    awaited(mirror, "two", "three")


def test_what_changes_nothing_wakes_nobody(api, mirror):
    api.lists.put(["one"])
    awaited(mirror, "one")
    api.changes.put(("MODIFIED", "one"))
    api.changes.put(("ADDED", "hidden"))
    api.changes.put(None)
    api.lists.put(["one"])
    api.changes.put(("ADDED", "two"))
    assert mirror.woken.wait(PATIENCE)
    assert len(mirror.values()) == 2
