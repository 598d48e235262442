"""On real processes of this machine: `sleep`, and a shell that does not want to end."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nanoclaw_dev.cluster import processes
from nanoclaw_dev.cluster.processes import Processes, Program
from nanoclaw_dev.errors import SetupError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="process files and handles are Linux")

SLEEP = Program("sleeper", ("sleep", "1000"))
STUBBORN = Program("stubborn", ("sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 1; done"))


@pytest.fixture
def programs(tmp_path):
    found = Processes(tmp_path / "processes", tmp_path / "logs", attached=True)
    yield found
    for name in {*found.names(), "sleeper"}:  # some tests make the file of the sleeper say something else
        found.stop(name)


def again(programs, tmp_path):
    """The same programs, found by another command."""
    return Processes(tmp_path / "processes", tmp_path / "logs", attached=False)


def under_way(pid):
    """The program itself runs, and no longer what starts it."""
    return Path(f"/proc/{pid}/comm").read_text() == "sleep\n"


def test_a_program_that_runs_is_left_alone(programs, tmp_path):
    assert programs.ensure(SLEEP)
    pid = programs.pid("sleeper")
    assert not programs.ensure(SLEEP)
    assert not again(programs, tmp_path).ensure(SLEEP)
    assert programs.pid("sleeper") == pid


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param(lambda _: Program("sleeper", ("sleep", "2000")), id="command"),
        pytest.param(lambda folder: Program("sleeper", SLEEP.command, {folder / "file": "text"}), id="file"),
    ],
)
def test_a_program_that_should_run_otherwise_is_replaced(programs, tmp_path, changed):
    programs.ensure(SLEEP)
    pid = programs.pid("sleeper")
    program = changed(tmp_path)
    assert programs.ensure(program)
    assert programs.pid("sleeper") != pid
    assert not Path(f"/proc/{pid}").exists()
    assert all(path.read_text() == text for path, text in program.files.items())


def test_a_dead_program_is_seen_and_started_again(programs):
    programs.ensure(SLEEP)
    pid = programs.pid("sleeper")
    processes.kill(pid)
    assert programs.pid("sleeper") is None
    assert programs.ensure(SLEEP)
    assert programs.pid("sleeper") != pid


def test_a_number_given_to_another_process_is_not_killed(programs, tmp_path):
    with subprocess.Popen(["sleep", "1000"]) as foreign:
        try:
            programs.ensure(SLEEP)
            file = tmp_path / "processes" / "sleeper.json"
            real = json.loads(file.read_text())
            file.write_text(json.dumps(real | {"pid": foreign.pid, "started": 1}))
            other = again(programs, tmp_path)
            assert other.pid("sleeper") is None
            other.stop("sleeper")
            assert foreign.poll() is None
        finally:
            foreign.kill()


def test_a_program_of_before_a_reboot_is_not_running(programs, tmp_path):
    programs.ensure(SLEEP)
    file = tmp_path / "processes" / "sleeper.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"boot": "another"}))
    assert again(programs, tmp_path).pid("sleeper") is None


def test_stopping_returns_when_the_program_is_gone(programs, tmp_path):
    programs.ensure(SLEEP)
    pid = programs.pid("sleeper")
    programs.stop("sleeper", grace=60)
    assert not Path(f"/proc/{pid}").exists()
    assert programs.names() == []
    programs.stop("sleeper")


def test_a_program_that_ignores_the_request_is_killed(programs):
    programs.ensure(STUBBORN)
    programs.wait(lambda: "deaf" in programs.log("stubborn").read_text(), "it is deaf", "stubborn", seconds=60)
    pid = programs.pid("stubborn")
    programs.stop("stubborn", grace=0.1)
    assert not Path(f"/proc/{pid}").exists()


def test_waiting_for_a_program_that_ended_tells_its_last_words(programs):
    programs.ensure(Program("broken", ("sh", "-c", "echo no such flag; exit 1")))
    with pytest.raises(SetupError, match=r"broken ended while waiting until it works; .*no such flag"):
        programs.wait(lambda: False, "it works", "broken", seconds=60)


def test_waiting_too_long_is_told(programs):
    programs.ensure(SLEEP)
    with pytest.raises(SetupError, match="It took longer than 0 s until it works"):
        programs.wait(lambda: False, "it works", "sleeper", seconds=0)


def test_the_last_run_keeps_its_log(programs):
    program = Program("once", ("sh", "-c", "echo first"))
    programs.ensure(program)
    with contextlib.suppress(SetupError):
        programs.wait(lambda: False, "never", "once", seconds=60)
    programs.ensure(Program("once", ("sh", "-c", "echo second; exec sleep 1000")))
    assert programs.log("once").with_suffix(".previous.log").read_text() == "first\n"


class Interrupted(Exception):
    """As KeyboardInterrupt, and nobody but the test waits for it."""


def test_a_program_that_was_being_started_when_we_were_interrupted_is_found_again(programs):
    free = threading.Event()
    processes.PARENT.submit(free.wait)

    def interrupt(_signal, frame):
        while frame is not None and frame.f_code is not Processes.ensure.__code__:
            frame = frame.f_back
        if frame is not None and processes.PARENT._work_queue.qsize():  # it is waited for
            signal.setitimer(signal.ITIMER_REAL, 0)
            free.set()
            raise Interrupted

    usual = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
        with pytest.raises(Interrupted):
            programs.ensure(SLEEP)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, usual)
        free.set()
    processes.PARENT.submit(int).result()
    assert programs.pid("sleeper")
    assert not programs.ensure(SLEEP)


def test_a_file_that_two_write_at_the_same_time_is_whole_and_nothing_is_left_beside_it(tmp_path):
    file, texts = tmp_path / "folder" / "file", ("a" * 100_000, "b" * 100_000)

    def write(text):
        for _ in range(200):
            processes.write_private(file, text)
            assert file.read_text() in texts

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(write, texts * 2)) == [None] * 4
    assert list(file.parent.iterdir()) == [file]


def test_attached_programs_outlive_the_thread_they_were_started_in(programs):
    def start():
        programs.ensure(SLEEP)
        programs.wait(lambda: under_way(programs.pid("sleeper")), "it sleeps", "sleeper", seconds=60)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    pid = programs.pid("sleeper")
    handle = os.pidfd_open(pid)
    # A signal sent by the end of the thread would have come by the time another process has run.
    subprocess.run(["true"], check=True)
    ended, _, _ = select.select([handle], [], [], 0)
    os.close(handle)
    assert not ended
    assert programs.pid("sleeper") == pid


def test_attached_programs_die_with_whoever_started_them(tmp_path):
    script = (
        "import sys; from pathlib import Path\n"
        "from nanoclaw_dev.cluster.processes import Processes, Program\n"
        "folder = Path(sys.argv[1])\n"
        "programs = Processes(folder, folder, attached=sys.argv[2] == 'attached')\n"
        "programs.ensure(Program('sleeper', ('sleep', '1000')))\n"
        "comm = Path(f'/proc/{programs.pid(\"sleeper\")}/comm')\n"
        "programs.wait(lambda: comm.read_text() == 'sleep\\n', 'it sleeps', 'sleeper', seconds=60)\n"
        "print(programs.pid('sleeper'), flush=True)\n"
        "sys.stdin.read()\n"
    )

    def started_and_orphaned(kind):
        command = [sys.executable, "-c", script, str(tmp_path / kind), kind]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
            handle = os.pidfd_open(int(owner.stdout.readline()))
            owner.kill()
        return handle

    attached, detached = started_and_orphaned("attached"), started_and_orphaned("detached")
    ended, _, _ = select.select([attached], [], [], 60)
    assert ended
    assert Processes(tmp_path / "detached", tmp_path, attached=False).pid("sleeper")
    Processes(tmp_path / "detached", tmp_path, attached=False).stop("sleeper")
    os.close(attached)
    os.close(detached)


def test_a_number_that_a_thread_has_now_is_no_process() -> None:
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        with processes._handle(thread.native_id) as handle:
            assert handle is None
    finally:
        done.set()
        thread.join()
