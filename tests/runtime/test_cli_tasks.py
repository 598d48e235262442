"""The commands of tasks, from the line to a real scheduler and back.

Of the API server between them only the path of its service proxy is left; with a real one:
`tests/cluster/test_cli.py`.
"""

import asyncio
import io
import json
import threading
from datetime import UTC, datetime, timedelta

import pytest
import typer
from fastapi import FastAPI
from rich.console import Console
from typer.testing import CliRunner

from nanoclaw_runtime.api import tasks as routes
from nanoclaw_runtime.api.app import create_app
from nanoclaw_runtime.api.server import listen, serve_on
from nanoclaw_runtime.api.task_schemas import TaskRunView, TaskView
from nanoclaw_runtime.cli import tasks
from nanoclaw_runtime.cli.commands import app
from nanoclaw_runtime.contract import names
from nanoclaw_runtime.contract.config import GroupSpec
from nanoclaw_runtime.controller.scheduler import Scheduler
from nanoclaw_runtime.domain.errors import GroupUnknown
from nanoclaw_runtime.domain.tasks import RunOutcome, TaskContext, TaskKind, TaskState
from nanoclaw_runtime.store.tasks import TaskBook
from nanoclaw_runtime.telemetry import Metrics
from tests.support import stores
from tests.support.small_controller import SmallController

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
PROXY = f"/api/v1/namespaces/nanoclaw/services/{names.CONTROLLER}:{names.API_PORT_NAME}/proxy"


def group(folder):
    if folder not in ("main", "team"):
        raise GroupUnknown(folder)
    return GroupSpec(folder=folder, name=folder)


class Installation:
    """A served scheduler, in a thread of its own, and a line that reaches it."""

    def __init__(self, folder):
        self._folder = folder
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="served tasks")

    def __enter__(self):
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()

    async def _serve(self):
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        store = await stores.opened(self._folder)
        self.scheduler = Scheduler(TaskBook(store.database), zone="UTC", group=group, enqueue=lambda *_: None)
        served = create_app(SmallController(), lambda: "t", Metrics(), [routes.router(self.scheduler)])
        outer = FastAPI()
        outer.mount(PROXY, served)
        outer.state.closing = served.state.closing
        listener = listen("127.0.0.1", 0)
        self._kubeconfig(f"http://127.0.0.1:{listener.getsockname()[1]}")
        serving = asyncio.create_task(serve_on(outer, listener))
        self._ready.set()
        await self._over.wait()
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        await store.close()

    def _kubeconfig(self, server):
        document = {
            "current-context": "here",
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
            "clusters": [{"name": "here", "cluster": {"server": server}}],
            "users": [{"name": "me", "user": {}}],
        }
        (self._folder / "kubeconfig").write_text(json.dumps(document))

    def do(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def says(self, *line, status=0):
        """What a command prints, on the error stream when it fails."""
        common = ["--kubeconfig", str(self._folder / "kubeconfig"), "-n", "nanoclaw"]
        result = CliRunner(env={"NANOCLAW_TOKEN": "t", "COLUMNS": "250"}).invoke(app, [*common, *line])
        assert result.exit_code == status, result.output
        return result.stderr if status else result.stdout

    def json(self, *line):
        return json.loads(self.says("-o", "json", *line))


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with Installation(tmp_path_factory.mktemp("installation")) as served:
        yield served


@pytest.fixture
def here(served):
    """Without any task."""
    yield served
    for task in served.do(served.scheduler.list()):
        served.do(served.scheduler.cancel(task.id))


def test_a_task_is_added_and_listed(here):
    told = here.says("tasks", "add", "main", "say hello", "--cron", "0 9 * * 1-5")
    (task,) = here.json("tasks")
    assert told.startswith(f"task {task['id']} of group main is added; next run in ")
    assert (task["kind"], task["value"], task["context"]) == ("cron", "0 9 * * 1-5", "group")
    listed = here.says("tasks").splitlines()
    assert listed[0].split()[:3] == ["task", "group", "schedule"]
    for shown in (task["id"], "main", "cron 0 9 * * 1-5", "active", "say hello"):
        assert shown in listed[1]


def test_every_kind_of_schedule_is_one_option(here):
    every = here.json("tasks", "add", "team", "x", "--every", "90s", "--isolated")
    assert (every["kind"], every["value"], every["context"]) == ("interval", "90000", "isolated")
    once = here.json("tasks", "add", "main", "x", "--at", "2099-03-01T15:30")
    assert (once["kind"], once["nextRun"]) == ("once", "2099-03-01T15:30:00Z")
    assert here.json("tasks", "--group", "team") == [every]
    assert here.json("tasks") == [every, once]


def test_a_task_is_paused_resumed_run_and_cancelled(here):
    task = here.json("tasks", "add", "main", "x", "--every", "1d")["id"]
    assert f"task {task} of group main is paused; next run in 23 h" in here.says("tasks", "pause", task)
    assert here.json("tasks", "show", task)["state"] == "paused"
    assert "is active" in here.says("tasks", "resume", task)
    assert "is to run now; next run " in here.says("tasks", "run", task)
    assert here.says("tasks", "cancel", task) == f"task {task} is cancelled\n"
    assert here.json("tasks") == []


def test_a_task_gets_another_prompt_and_another_schedule(here):
    task = here.json("tasks", "add", "main", "x", "--cron", "0 9 * * *")["id"]
    assert "is changed" in here.says("tasks", "change", task, "--prompt", "y", "--every", "2h")
    changed = here.json("tasks", "show", task)
    assert (changed["prompt"], changed["kind"], changed["value"]) == ("y", "interval", "7200000")


def test_a_task_is_shown_with_its_last_runs(here):
    task = here.json("tasks", "add", "main", "say hello", "--every", "2h")["id"]
    ran = here.scheduler.finished(
        task, started=datetime.now(UTC), seconds=12, outcome=RunOutcome.ERROR, error="no image", session="s1"
    )
    here.do(ran)
    shown = here.says("tasks", "show", task)
    for fact in (task, "main (http:main)", "every 2 h", "say hello", "12 s: error no image"):
        assert fact in shown
    document = here.json("tasks", "show", task)
    assert (document["lastResult"], document["runs"][0]["error"]) == ("Error: no image", "no image")


REFUSALS = [
    pytest.param("tasks add nobody x --every 1h", "no group 'nobody'", id="unknown group"),
    pytest.param("tasks add main x --cron @never", "no cron expression", id="no cron expression"),
    pytest.param("tasks add main x --at soon", "write one like 2026", id="no moment"),
    pytest.param("tasks add main x --every 9999999d", "a century", id="too long"),
    pytest.param("tasks change x --prompt y", "no task 'x'", id="change of an unknown task"),
    pytest.param("tasks show a?b#c%20", "no task 'a?b#c%20'", id="odd id"),
    pytest.param("tasks cancel x", "`nanoclaw tasks` lists them", id="unknown task"),
    pytest.param("tasks run x", "no task 'x'", id="run of an unknown task"),
]


@pytest.mark.parametrize(("line", "told"), REFUSALS)
def test_a_refusal_is_one_sentence(here, line, told):
    said = here.says(*line.split(), status=1)
    assert said.startswith("nanoclaw: ")
    assert told in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "told"),
    [
        pytest.param("tasks add main x", "say once", id="no schedule"),
        pytest.param("tasks add main x --every 1h --at 2099-01-01", "say once", id="two schedules"),
        pytest.param("tasks add main", "prompt", id="no prompt"),
        pytest.param("tasks add main x --every 0m", "no time like", id="no time"),
        pytest.param("tasks pause", "id", id="no task"),
    ],
)
def test_a_mistake_on_the_line_exits_with_2(line, told):
    result = CliRunner().invoke(app, line.split())
    assert result.exit_code == 2
    assert told in result.output.lower()


@pytest.mark.parametrize(
    ("text", "expected"), [("90s", 90_000), ("30m", 1_800_000), ("2h", 7_200_000), ("1d", 86_400_000)]
)
def test_a_time_is_a_number_and_a_unit(text, expected):
    assert tasks.milliseconds(text) == expected


@pytest.mark.parametrize("text", ["", "5", "m", "1.5h", "-1m", "1h30m", "1w", " 1h", "0s", "1" * 20 + "d"])
def test_anything_else_is_no_time(text):
    with pytest.raises(typer.BadParameter):
        tasks.milliseconds(text)


def view(**more):
    task = {
        "id": "task-1",
        "folder": "main",
        "jid": "http:main",
        "prompt": "[red]x\x1b[31m",
        "kind": TaskKind.CRON,
        "value": "0 9 * * *",
        "context": TaskContext.GROUP,
        "state": TaskState.ACTIVE,
        "next_run": NOW + timedelta(hours=5),
        "last_run": NOW - timedelta(minutes=5),
        "last_result": None,
        "created": NOW,
    }
    return TaskView(**task | more)


def shown(table):
    console = Console(file=io.StringIO(), width=250, color_system=None)
    console.print(table)
    return console.file.getvalue()


def test_times_are_told_from_now_and_by_the_clock():
    clock = (NOW + timedelta(hours=5)).astimezone()
    assert tasks.when(NOW + timedelta(hours=5), NOW) == f"in 5 h ({clock:%Y-%m-%d %H:%M})"
    assert tasks.when(NOW - timedelta(minutes=5), NOW).startswith("5 min ago (")
    assert tasks.when(None, NOW) == "-"


def test_what_a_chat_or_an_agent_wrote_cannot_steer_the_terminal():
    run = TaskRunView(
        id=1, started=NOW, seconds=3, outcome=RunOutcome.SUCCESS, result="\x1b]0;x\x07[b]ok", error=None, session=None
    )
    listed, sheet = shown(tasks.table([view()], NOW)), shown(tasks.sheet(view(jid="\x1b[2J"), [run], NOW))
    assert "[red]x\ufffd[31m" in listed
    assert "success \ufffd]0;x\ufffd[b]ok" in sheet
    assert "\x1b" not in listed + sheet


@pytest.mark.parametrize(
    ("value", "told"),
    [("86400000", "every 1 d"), ("90000", "every 90 s"), ("1500", "every 1500 ms"), ("x", "interval x")],
)
def test_an_interval_is_told_in_its_largest_exact_unit(value, told):
    assert told in shown(tasks.table([view(kind=TaskKind.INTERVAL, value=value)], NOW))
