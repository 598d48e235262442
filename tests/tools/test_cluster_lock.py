"""One command at a time on a cluster, also when one of them removes it."""

from __future__ import annotations

import contextlib
import fcntl
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nanoclaw_dev.cluster.control_plane import ControlPlane, locked
from nanoclaw_dev.cluster.instance import Instance
from nanoclaw_dev.cluster.shape import Shape

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="locks are looked up in /proc")


@pytest.fixture
def instance(tmp_path):
    return Instance("one", tmp_path)


class Command:
    """Another command, which takes the lock and keeps it until `leave`."""

    def __init__(self, instance):
        self._instance, self._inside, self._over = instance, threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self._run)

    def _run(self):
        with locked(self._instance):
            self._inside.set()
            self._over.wait()

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self.thread.join()

    def is_inside(self):
        assert self._inside.wait(60)


def held_up(thread, instance):
    """Return when it waits for the lock that is there."""
    number = instance.lock.stat().st_ino
    while not any(f":{number} " in line and "->" in line for line in Path("/proc/locks").read_text().splitlines()):
        assert thread.is_alive()


def taken(instance):
    with instance.lock.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_whoever_waited_while_the_cluster_was_removed_keeps_out_who_comes_later(instance):
    with contextlib.ExitStack() as later:
        with locked(instance):
            next_one = later.enter_context(Command(instance))
            held_up(next_one.thread, instance)
            instance.lock.unlink()
        next_one.is_inside()
        assert taken(instance)
    assert not taken(instance)


def test_a_cluster_is_removed_with_nobody_else_at_work_in_it(instance):
    instance.folder.mkdir()
    with Command(instance) as other:
        other.is_inside()
        removing = threading.Thread(target=ControlPlane(instance).remove)
        removing.start()
        held_up(removing, instance)
        assert instance.folder.exists()
    removing.join()
    assert not instance.folder.exists()
    assert not instance.lock.exists()


def test_the_shape_of_a_cluster_that_is_being_removed_is_the_old_or_the_usual_one(instance):
    def remove_and_make():
        for _ in range(1000):
            instance.shape.unlink(missing_ok=True)
            Shape(nodes=3).record(instance)

    with ThreadPoolExecutor(2) as pool:
        others = [pool.submit(remove_and_make) for _ in range(2)]
        while not all(each.done() for each in others):
            assert Shape.of(instance).nodes in {1, 3}
