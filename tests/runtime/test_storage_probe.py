"""The measuring itself, on this machine's disk: two processes answer each other, and nothing of them stays."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time

import pytest

from nanoclaw_runtime.domain.storage_advice import SEEN, What, Where
from nanoclaw_runtime.storage_probe import visibility, writes
from nanoclaw_runtime.storage_probe.visibility import Case

PROBE = (sys.executable, "-m", "nanoclaw_runtime.storage_probe")
ROUNDS = 5

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def places(tmp_path):
    """A claim and a node's disk."""
    for name in ("claim", "plain"):
        (tmp_path / name).mkdir()
    return tmp_path


def command(places, role, *more):
    return [*PROBE, role, "--folder", str(places / "claim" / ".run"), "--rounds", str(ROUNDS), *more]


def measure(places, *more):
    return subprocess.Popen(
        command(places, "measure", "--plain", str(places / "plain"), *more), stdout=subprocess.PIPE, text=True
    )


def left(places, name):
    return [each.name for each in (places / name).iterdir()]


def heard(process):
    return [json.loads(line) for line in process.communicate(timeout=50)[0].splitlines()]


def test_everything_is_measured_and_nothing_is_left(places):
    answers = [subprocess.Popen(command(places, "answer", "--pair", pair)) for pair in ("near", "far")]
    said = heard(measure(places, "--pair", "near", "--pair", "far"))
    assert [each.wait(timeout=50) for each in answers] == [0, 0]
    found = {(each["measured"]["what"], each["measured"]["where"]) for each in said if "measured" in each}
    own = {(what, where) for what in writes.CASES for where in (Where.PLAIN, Where.CLAIM)}
    assert found == own | {(what, where) for what in SEEN for where in Where if where is not Where.CLAIM}
    assert said[-1] == {"done": True}
    assert [left(places, name) for name in ("claim", "plain")] == [[], []]


def test_asked_to_stop_it_leaves_nothing_on_the_claim(places):
    process = measure(places, "--pair", "near")
    assert process.stdout is not None
    assert "step" in json.loads(process.stdout.readline())
    assert left(places, "claim") == [".run"]
    process.terminate()
    process.communicate(timeout=50)
    assert process.returncode == 143
    assert left(places, "claim") == []


def test_asked_to_stop_before_it_has_begun_it_ends_as_well():
    """Nobody ends the first process of a container by a signal that it does not hear yet."""
    program = (
        "import runpy, signal, sys\n"
        "class Slow:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name.startswith('nanoclaw_runtime.domain'):\n"
        "            print('importing', flush=True)\n"
        "            signal.pause()\n"
        "sys.meta_path.insert(0, Slow())\n"
        "runpy.run_module('nanoclaw_runtime.storage_probe', run_name='__main__')\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "importing\n"
        process.terminate()
        assert process.wait(timeout=50) == 143


def test_a_claim_that_cannot_be_written_is_told_and_not_measured(places):
    (places / "claim").rmdir()
    process = measure(places)
    (said,) = heard(process)
    assert "cannot be written" in said["refused"]
    assert process.returncode == 2


@pytest.mark.parametrize("what", SEEN, ids=lambda what: what.name)
def test_a_change_is_not_seen_before_it_is_made(places, what):
    """The answering side starts to look; as long as nobody asks, there is no answer."""
    case = Case(what, rounds=2, seconds=10)
    folder = places / "claim" / "case"
    visibility.lay_ready(folder, case)
    thread = threading.Thread(target=visibility.answer, args=(folder, case), daemon=True)
    thread.start()
    answers = visibility.reader(folder / "answer", case)
    while not (folder / "there").exists():
        time.sleep(visibility.POLL)
    assert answers.look(0) is None
    for number in range(2):
        visibility.send(folder / "question", case.kind, str(number))
        while (seen := answers.look(number)) is None:
            time.sleep(visibility.POLL)
        assert seen == str(number)
        assert answers.look(number + 1) is None
    visibility.send(folder / "question", case.kind, visibility.END)
    thread.join(timeout=50)
    assert not thread.is_alive()


@pytest.mark.parametrize("what", writes.CASES, ids=lambda what: what.name)
def test_a_part_ends_when_its_time_is_up(places, what):
    assert len(writes.measure(what, places / "claim", rounds=10_000, seconds=0)) == 1


def test_rates_and_times_are_told_apart():
    assert {what for what in What if what.is_rate} == {What.WRITTEN, What.READ}
