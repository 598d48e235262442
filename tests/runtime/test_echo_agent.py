"""The reference agent as a real process with real pipes, against the contract the controller uses."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nanoclaw_runtime.contract import wire

RUNTIME = Path(__file__).parents[2] / "runtime"
PATIENCE = 20.0
# Seconds until a test gives up waiting; nothing is asserted about how long anything takes.

SECRET = "sk-very-secret-value"


def eventually(look, what):
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.01)
    raise AssertionError(f"still no {what} after {PATIENCE} s")


class Agent:
    """One agent process and the folders it sees."""

    def __init__(self, root: Path, **environment: str) -> None:
        self.group, self.ipc, self.home, self.scratch = (root / name for name in ("group", "ipc", "home", "scratch"))
        for folder in (self.group, self.ipc, self.home, self.scratch):
            folder.mkdir(exist_ok=True)
        self.inbox = self.ipc / wire.INPUT_DIR
        self.parked = self.scratch / "input.json"
        settings = {
            "PYTHONPATH": str(RUNTIME),
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "TMPDIR": str(self.scratch),
            "ECHO_WORKSPACE": str(root),
            "ECHO_EXIT_DELAY": "0",
        }
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            [sys.executable, "-m", "echo_agent"],
            env={name: value for name, value in (settings | environment).items() if value},
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
        )
        assert self.process.stderr is not None
        self.errors: list[bytes] = []
        self._listener = threading.Thread(target=self.errors.extend, args=[self.process.stderr])
        self._listener.start()

    def give(self, prompt: str, **more: object) -> Agent:
        given = wire.ContainerInput(prompt=prompt, group_folder="family", chat_jid="http:family", is_main=False, **more)
        return self.give_raw(given.encode())

    def give_raw(self, content: bytes) -> Agent:
        assert self.process.stdin is not None
        self.process.stdin.write(content)
        self.process.stdin.close()
        return self

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode().removesuffix("\n")

    def output(self) -> wire.ContainerOutput:
        """The next marker; every line of stdout belongs to one."""
        assert self.line() == wire.OUTPUT_START
        answer = wire.ContainerOutput.model_validate_json(self.line())
        assert self.line() == wire.OUTPUT_END
        return answer

    def looks_for_files(self) -> bool:
        """Whether what was there before the start is taken, so that what comes now is a follow-up."""
        return any(line.endswith(b" begins\n") for line in self.errors)

    def follow_up(self, text: str, name: str = "1-aaaa.json") -> None:
        self.drop(name, wire.FollowUp(text=text).encode())

    def drop(self, name: str, content: bytes) -> None:
        self.inbox.mkdir(exist_ok=True)
        partial = self.inbox / f"{name}.tmp"
        partial.write_bytes(content)
        partial.rename(self.inbox / name)

    def close(self) -> None:
        (self.inbox / wire.CLOSE_FILE).touch()

    def ended(self) -> int:
        """The exit code; afterwards `errors` holds all of stderr."""
        code = self.process.wait(PATIENCE)
        self._listener.join()
        return code

    def rest(self) -> bytes:
        assert self.process.stdout is not None
        return self.process.stdout.read()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._listener.join()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Callable[..., Agent]]:
    """Starts agents in one workspace, one after the other, and ends what is left of them."""
    started: list[Agent] = []

    def start(**environment: str) -> Agent:
        started.append(Agent(tmp_path, **environment))
        return started[-1]

    yield start
    for one in started:
        one.kill()


def block(*texts: str) -> str:
    lines = [f'<message sender="Ann" time="2026-01-01T10:00:00.000Z">{text}</message>' for text in texts]
    return "\n".join(["<messages>", *lines, "</messages>"])


def test_plain_text_is_echoed(agent):
    answer = agent().give("hello").output()
    assert (answer.status, answer.result) == ("success", "Echo: hello")
    assert answer.new_session_id


def test_every_message_since_the_last_turn_is_echoed_unescaped_and_without_the_trigger(agent):
    answer = agent().give(block("@Andy 1 &lt; 2 &amp; &quot;x&quot;", "zwölf 🦀")).output()
    assert answer.result == 'Echo: 1 < 2 & "x"\nzwölf 🦀'


def test_only_the_last_message_is_a_script(agent):
    assert agent().give(block("fail", "echo one; echo two")).output().result == "one\ntwo"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("sleep well", id="wrong shape"),
        pytest.param("who are you?", id="a word too many"),
        pytest.param("fail\nbut this is no directive", id="one part is text"),
        pytest.param("sleepy", id="only begins like one"),
    ],
)
def test_what_is_not_wholly_a_script_is_text(agent, text):
    assert agent().give(block(text)).output().result == f"Echo: {text}"


def test_a_scheduled_task_says_so(agent):
    assert agent().give("water the plants", is_scheduled_task=True).output().result == (
        "Echo (scheduled): water the plants"
    )


def test_stdin_is_parked_in_an_empty_file_that_goes_when_the_input_was_read(agent):
    one = agent()
    eventually(one.parked.exists, "parked file")
    assert one.parked.read_bytes() == b""
    one.give("hello").output()
    assert not one.parked.exists()


def test_stdin_is_not_read_while_it_compiles(agent):
    one = agent(ECHO_COMPILE_SECONDS="600").give("hello")
    assert not one.parked.exists()
    assert one.process.poll() is None


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        pytest.param(b"", "Expecting value", id="empty"),
        pytest.param(b"{", "Expecting property name", id="cut off"),
        pytest.param(b"[]", "not an object", id="no object"),
        pytest.param(b'{"prompt": 3}', "prompt is not a string", id="wrong type"),
    ],
)
def test_unreadable_input_is_an_error_marker_and_exit_1(agent, content, problem):
    one = agent().give_raw(content)
    answer = one.output()
    assert (answer.status, answer.result) == ("error", None)
    assert answer.error.startswith("Failed to parse input: ")
    assert problem in answer.error
    assert one.ended() == 1
    assert not one.parked.exists()


def test_without_home_it_does_not_start(agent):
    one = agent(HOME="")
    assert one.ended() == 254
    assert one.rest() == b"HOME is not set\n"


def test_a_follow_up_is_answered_in_the_same_session_and_its_file_is_gone(agent):
    one = agent().give("hello")
    first = one.output()
    one.follow_up(block("how are you"))
    second = one.output()
    assert second.result == "Echo: how are you"
    assert second.new_session_id == first.new_session_id
    assert list(one.inbox.iterdir()) == []


def test_follow_ups_are_answered_in_name_order_one_marker_each(agent):
    one = agent().give("sleep 1.5")
    eventually(one.looks_for_files, "session")
    # The later name is there first; both are taken while the first turn is still running.
    for name, text in (("2-bbbb.json", "second"), ("1-aaaa.json", "first")):
        (one.inbox / f"{name}.tmp").write_bytes(wire.FollowUp(text=text).encode())
    for name in ("1-aaaa.json", "2-bbbb.json"):
        (one.inbox / f"{name}.tmp").rename(one.inbox / name)
    results = [one.output().result for _ in range(3)]
    assert results == ["slept 1.5 s", "Echo: first", "Echo: second"]


def test_junk_is_removed_and_unfinished_files_are_left_alone(agent):
    one = agent().give("hello")
    one.output()
    (one.inbox / "0.json.tmp").write_text("half")
    one.drop("1.json", b"not json")
    one.drop("2.json", b'{"type": "other", "text": "x"}')
    one.drop("3.json", b'{"type": "message", "text": ""}')
    one.drop("4.json", b"[]")
    one.follow_up("real", "5.json")
    assert one.output().result == "Echo: real"
    assert [path.name for path in one.inbox.iterdir()] == ["0.json.tmp"]


def test_files_that_waited_before_the_start_join_the_first_prompt(agent):
    one = agent()
    one.follow_up(block("waited"), "1.json")
    one.give(block("hello"))
    assert one.output().result == "Echo: hello\nwaited"
    assert list(one.inbox.iterdir()) == []


def test_a_stale_close_is_forgotten(agent):
    one = agent()
    one.inbox.mkdir()
    one.close()
    one.give("hello").output()
    one.follow_up("still here?")
    assert one.output().result == "Echo: still here?"


def test_close_while_idle_ends_with_0_and_without_another_marker(agent):
    one = agent().give("hello")
    one.output()
    one.close()
    assert one.ended() == 0
    assert one.rest() == b""
    assert list(one.inbox.iterdir()) == []


def test_close_in_flight_lets_the_turn_finish_and_leaves_later_messages_for_the_next_session(agent):
    one = agent().give("sleep 1.5; echo done")
    eventually(one.looks_for_files, "session")
    one.close()
    eventually(lambda: not (one.inbox / wire.CLOSE_FILE).exists(), "notice of _close")
    one.follow_up("too late")
    assert one.output().result == "slept 1.5 s\ndone"
    assert one.ended() == 0
    assert one.rest() == b""
    assert [path.name for path in one.inbox.iterdir()] == ["1-aaaa.json"]
    assert agent().give("hello").output().result == "Echo: hello\ntoo late"


def test_ignore_close_outlives_it(agent):
    one = agent().give("ignore-close")
    one.output()
    one.close()
    eventually(lambda: not (one.inbox / wire.CLOSE_FILE).exists(), "notice of _close")
    one.follow_up("alive?")
    assert one.output().result == "Echo: alive?"


def test_sigterm_is_ignored(agent):
    one = agent().give("hello")
    one.output()
    one.process.send_signal(signal.SIGTERM)
    one.follow_up("alive?")
    assert one.output().result == "Echo: alive?"


def test_a_session_is_resumed_with_its_history_and_id(agent):
    one = agent().give("my name is Ann")
    first = one.output()
    one.close()
    one.ended()
    again = agent().give("history", session_id=first.new_session_id).output()
    assert again.result == "1. my name is Ann"
    assert again.new_session_id == first.new_session_id


@pytest.mark.parametrize("session", ["00000000-0000-0000-0000-000000000000", "../../escape"])
def test_a_missing_session_gives_a_null_success_then_an_error_with_the_stale_id(agent, session):
    one = agent().give("hello", session_id=session)
    assert one.output() == wire.ContainerOutput(status="success")
    answer = one.output()
    assert (answer.status, answer.new_session_id) == ("error", session)
    assert one.ended() == 1


def test_fail_is_an_error_marker_and_exit_1(agent):
    one = agent().give("fail no more tokens")
    answer = one.output()
    assert (answer.status, answer.result, answer.error) == ("error", None, "no more tokens")
    assert one.ended() == 1


@pytest.mark.parametrize(("script", "code"), [("exit 3", 3), ("exit 0", 0), ("crash-silent", 1)])
def test_an_exit_without_a_marker(agent, script, code):
    one = agent().give(script)
    assert one.ended() == code
    assert one.rest() == b""


def test_big_results_are_one_line_of_exactly_that_size(agent):
    result = agent().give("big 200000").output().result
    assert len(result.encode()) == 200_000


def test_null_result(agent):
    one = agent().give("null")
    one.line()
    assert json.loads(one.line())["result"] is None


def test_noise_stands_between_the_lines_of_the_marker(tmp_path, agent):
    """With both streams in one pipe, as a pod log has them."""
    settings = {"PYTHONPATH": str(RUNTIME), "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, "-m", "echo_agent"],
        env=settings | {"ECHO_WORKSPACE": str(tmp_path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    given = wire.ContainerInput(prompt="noise 3", group_folder="main", chat_jid="x", is_main=True)
    process.stdin.write(given.encode())
    process.stdin.close()
    lines = []
    while not lines or lines[-1] != wire.OUTPUT_END:
        lines.append(process.stdout.readline().decode().rstrip())
    process.kill()
    process.wait()
    process.stdout.close()
    start = lines.index(wire.OUTPUT_START)
    noise = [f"[echo-agent] noise {number}" for number in range(3)]
    assert lines[start - 3 : start] == noise
    assert lines[start + 1 : start + 4] == noise
    assert json.loads(lines[start + 4])["status"] == "success"
    assert lines[start + 5 : start + 8] == noise


def test_tell_and_schedule_write_the_requests_of_nanoclaw_atomically(agent):
    one = agent().give("tell dinner is ready\ntell-to 123@g.us hi\nschedule cron 0 9 * * 1 | say good morning")
    assert one.output().result == "told\ntold 123@g.us\nscheduled cron 0 9 * * 1"
    told = [json.loads(path.read_text()) for path in (one.ipc / wire.MESSAGES_DIR).iterdir()]
    assert sorted((message["chatJid"], message["text"]) for message in told) == [
        ("123@g.us", "hi"),
        ("http:family", "dinner is ready"),
    ]
    assert {(message["type"], message["groupFolder"]) for message in told} == {("message", "family")}
    (path,) = (one.ipc / wire.TASKS_DIR).iterdir()
    assert re.fullmatch(r"\d{13}-[0-9a-z]{6}\.json", path.name)
    task = json.loads(path.read_text())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", task.pop("timestamp"))
    assert task == {
        "type": "schedule_task",
        "prompt": "say good morning",
        "schedule_type": "cron",
        "schedule_value": "0 9 * * 1",
        "context_mode": "group",
        "targetJid": "http:family",
        "createdBy": "family",
    }


def test_request_writes_anything(agent):
    one = agent().give('request {"type": "refresh_groups"')
    one.output()
    (path,) = (one.ipc / wire.TASKS_DIR).iterdir()
    assert path.read_text() == '{"type": "refresh_groups"'


def test_raw_message_writes_anything_too(agent):
    one = agent().give('raw-message {"type": "message"')
    assert one.output().result == "left a message"
    (path,) = (one.ipc / wire.MESSAGES_DIR).iterdir()
    assert path.read_text() == '{"type": "message"'


def test_refresh_groups_is_written_straight_into_its_place(agent):
    one = agent().give("refresh-groups")
    assert one.output().result == "asked for the groups"
    (path,) = (one.ipc / wire.TASKS_DIR).iterdir()
    assert re.fullmatch(r"refresh_\d{10}\.json", path.name)
    assert json.loads(path.read_text()) == {"type": "refresh_groups"}


def test_snapshots_are_shown_as_they_lie_there(agent):
    one = agent()
    (one.ipc / wire.CURRENT_TASKS_FILE).write_text('[{"id": "task-1"}]')
    assert one.give("list-tasks; list-groups").output().result == (
        '[{"id": "task-1"}]\ncannot read available_groups.json: No such file or directory'
    )


def test_files_of_the_group_are_written_and_read(agent):
    one = agent().give("write note.txt buy milk; read note.txt; read missing.txt")
    assert one.output().result == "wrote note.txt\nbuy milk\ncannot read missing.txt: No such file or directory"
    assert (one.group / "note.txt").read_text() == "buy milk"


def test_who_and_env_tell_names_and_never_a_secret(agent):
    one = agent(MARK="visible").give("who; env", secrets={"ANTHROPIC_API_KEY": SECRET})
    who, environment, secrets = one.output().result.splitlines()
    assert who == f"uid={os.getuid()} gid={os.getgid()} home={one.home} folder={one.group}"
    assert "MARK" in environment.split()
    assert "visible" not in environment
    assert secrets == "secrets: ANTHROPIC_API_KEY"
    one.close()
    one.ended()
    assert SECRET.encode() not in one.rest() + b"".join(one.errors)
    leaked = [path for path in one.home.parent.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    assert leaked == []


def test_oom_really_fills_memory(agent):
    one = agent()
    resource.prlimit(one.process.pid, resource.RLIMIT_AS, (512 << 20, 512 << 20))
    one.give("oom")
    assert one.ended() == 1
    assert b"MemoryError" in b"".join(one.errors)
