"""`nanoclaw import`, `export` and `project push`, from the line to a real host and back."""

import json
import os
import shutil
import sqlite3
from contextlib import closing

import pytest
from structlog.testing import capture_logs
from typer.testing import CliRunner

from nanoclaw_runtime.cli import transfer_view, v1_host
from nanoclaw_runtime.cli.carrying import archives, portions
from nanoclaw_runtime.cli.commands import app
from nanoclaw_runtime.controller.status import GroupState
from nanoclaw_runtime.domain.transfer import FileFacts, PastMessage
from nanoclaw_runtime.store.records import MessageState
from tests.support.served import TOKEN, ServedHost
from tests.support.v1_host import V1Host, at

FAMILY = "120363@g.us"
MAIN = "49171@s.whatsapp.net"


class Line:
    """A host behind the command line."""

    def __init__(self, served):
        self.served, self.do = served, served.do

    def __call__(self, *line, **more):
        result = CliRunner().invoke(
            app, ["--url", self.served.url, *map(str, line)], env={"NANOCLAW_TOKEN": TOKEN}, **more
        )
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    def told(self, *line):
        """The JSON of a command that succeeds."""
        result = self("-o", "json", *line)
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout)


@pytest.fixture
def nanoclaw(tmp_path):
    with serving(tmp_path / "here") as line:
        yield line


def serving(folder, **config):
    folder.mkdir()
    return Serving(folder, **config)


class Serving:
    def __init__(self, folder, **config):
        # Both sides are one process here, and the host's log must not be read as what a command prints.
        self._logs, self._served = capture_logs(), ServedHost(folder, **config)

    def __enter__(self):
        self._logs.__enter__()
        return Line(self._served.__enter__())

    def __exit__(self, *error):
        self._served.__exit__(*error)
        self._logs.__exit__(*error)


@pytest.fixture
def there(tmp_path):
    """A host with a family that waits for an answer, a main group, and what hosts leave lying about."""
    host = V1Host(tmp_path / "v1")
    host.group("main", MAIN, session="claude-main", cursor=at(30))
    host.group("family", FAMILY, session="claude-family", cursor=at(12), trigger=True)
    for minute, text in ((10, "hello"), (11, "@Andy plants?"), (14, "and now?")):
        host.message(FAMILY, minute, text)
    host.message(FAMILY, 12, "Andy: watered", bot=True)
    host.message(MAIN, 20, "status")
    host.task("task-1", "family", FAMILY)
    host.task("task-2", "main", MAIN, kind="interval", value="3600000", status="paused")
    host.run("task-1", 9)
    host.execute("INSERT INTO router_state VALUES ('last_timestamp', ?)", at(14))
    host.file("groups/family/CLAUDE.md", "# Family")
    host.file("groups/family/logs/container-1.log")
    host.file("groups/main/notes/a.md", "a")
    host.file("groups/global/CLAUDE.md", "# All")
    host.file("data/sessions/family/.claude/projects/-workspace-group/claude-family.jsonl", "{}\n")
    host.file(".env", "ANTHROPIC_API_KEY=sk-secret")
    host.file("store/auth/creds.json", "{}")
    return host


def by_folder(plan):
    return {group["folder"]: group for group in plan["groups"]}


def left_out(plan):
    return {one["what"] for one in plan["leftOut"]}


# Import


def test_an_import_is_shown_done_and_then_changes_nothing(nanoclaw, there, tmp_path):
    shown = nanoclaw.told("import", there.root, "--dry-run")
    assert shown["done"] is False
    family = by_folder(shown)["family"]
    assert (family["plan"], family["files"]["new"], family["tasks"], family["runs"]) == ("update", 2, ["task-1"], 1)
    assert family["messages"] == {"new": 3, "total": 3, "unanswered": 1, "answers": 1, "settled": 0}
    assert left_out(shown) >= {".env", "store/auth", "1 logs of containers"}
    assert nanoclaw.do(lambda house: house.store.history("family")) == []

    assert nanoclaw.told("import", there.root, "--yes")["done"] is True
    history = nanoclaw.do(lambda house: house.store.history("family"))
    assert [(one.content, one.state) for one in history] == [
        ("hello", MessageState.DONE),
        ("@Andy plants?", MessageState.DONE),
        ("and now?", MessageState.WAITING),
    ]
    assert nanoclaw.do(lambda house: house.store.agent_session("family")) == "claude-family"
    assert (tmp_path / "here/groups/family/CLAUDE.md").read_text() == "# Family"
    assert (tmp_path / "here/groups/global/CLAUDE.md").read_text() == "# All"
    assert not (tmp_path / "here/groups/family/logs/container-1.log").exists()
    transcript = "data/sessions/family/.claude/projects/-workspace-group/claude-family.jsonl"
    assert (tmp_path / "here" / transcript).read_text() == "{}\n"

    again = nanoclaw("import", there.root, "--yes")
    assert (again.exit_code, again.stdout.splitlines()[-1]) == (
        0,
        "Nothing to import: the installation has everything already.",
    )


def test_what_is_new_at_the_host_comes_with_the_next_import(nanoclaw, there):
    nanoclaw.told("import", there.root, "--yes")
    there.message(FAMILY, 15, "one more")
    there.file("groups/family/CLAUDE.md", "# Changed", minute=60)
    plan = by_folder(nanoclaw.told("import", there.root, "--yes"))
    assert (plan["main"]["plan"], plan["family"]["messages"]["new"], plan["family"]["files"]["new"]) == ("same", 1, 1)
    assert len(nanoclaw.do(lambda house: house.store.history("family"))) == 4


def test_what_differs_on_both_sides_is_told_and_stays_unless_it_is_to_be_replaced(nanoclaw, there):
    nanoclaw.told("import", there.root, "--yes")
    there.execute("UPDATE scheduled_tasks SET status = 'paused' WHERE id = 'task-1'")
    there.execute("UPDATE sessions SET session_id = 'claude-new' WHERE group_folder = 'family'")
    shown = nanoclaw("import", there.root, "--yes").stdout
    assert "1 tasks that differ here stay; --replace takes the host's" in shown
    assert "other conversations here, of family, stay; --replace takes the host's" in shown
    assert nanoclaw.do(lambda house: house.store.agent_session("family")) == "claude-family"
    nanoclaw.told("import", there.root, "--yes", "--replace")
    assert nanoclaw.do(lambda house: house.store.agent_session("family")) == "claude-new"


def test_what_the_host_answered_meanwhile_is_not_answered_again(nanoclaw, there):
    nanoclaw.told("import", there.root, "--yes")
    there.given(FAMILY, at(14))
    again = nanoclaw("import", there.root, "--yes")
    assert "1 of the messages waiting here were answered there and wait no longer" in again.stdout
    assert {one.state for one in nanoclaw.do(lambda house: house.store.history("family"))} == {MessageState.DONE}
    assert "Nothing to import" in nanoclaw("import", there.root, "--yes").stdout


def test_what_waits_is_answered_after_the_import(nanoclaw, there):
    there.message(FAMILY, 16, "@Andy please")
    nanoclaw.told("import", there.root, "--yes")
    agent = nanoclaw.do(lambda house: house.backend.agent(0))
    assert agent.stdin["sessionId"] == "claude-family"
    assert "and now?" in agent.stdin["prompt"]
    assert "hello" not in agent.stdin["prompt"]


def test_a_group_whose_agent_works_is_left_in_peace(nanoclaw, there):
    nanoclaw.do(lambda house: house.send("@Andy hello", "family"))
    nanoclaw.do(lambda house: house.backend.agent(0))
    refused = nanoclaw("import", there.root, "--yes")
    assert refused.exit_code == 1
    assert "nanoclaw sessions stop" in refused.stderr
    assert nanoclaw.do(lambda house: house.store.history("main")) == []


def test_groups_the_stack_does_not_declare_are_told_as_lines_for_it(nanoclaw, there):
    there.group("garden", "tg:-100")
    shown = nanoclaw("import", there.root, "--dry-run")
    assert '- folder: "garden"' in shown.stdout
    assert by_folder(nanoclaw.told("import", there.root, "--yes"))["garden"]["plan"] == "not declared"
    assert "before the groups above are declared" in nanoclaw("import", there.root, "--yes").stdout


def test_groups_are_registered_where_the_stack_allows_it(tmp_path, there):
    there.group("garden", "tg:-100", trigger=False)
    there.file("groups/garden/CLAUDE.md", "# Garden")
    with serving(tmp_path / "open", registration=True) as nanoclaw:
        assert by_folder(nanoclaw.told("import", there.root, "--yes"))["garden"]["plan"] == "new"
        groups = {group["folder"]: group for group in nanoclaw.told("groups")}
        assert (groups["garden"]["jid"], groups["garden"]["origin"]) == ("tg:-100", "registered")
        assert (tmp_path / "open/groups/garden/CLAUDE.md").read_text() == "# Garden"
        assert nanoclaw.told("import", there.root, "--yes")["done"] is False


def test_nobody_is_asked_where_nobody_is(nanoclaw, there):
    refused = nanoclaw("import", there.root)
    assert (refused.exit_code, "--yes" in refused.stderr) == (1, True)
    assert nanoclaw.do(lambda house: house.store.history("family")) == []


def test_a_host_that_writes_is_warned_about(nanoclaw, there):
    with closing(sqlite3.connect(there.database)):
        assert "warning: the NanoClaw host still runs" in nanoclaw("import", there.root, "--yes").stderr


def test_changes_that_are_only_in_the_log_are_seen(nanoclaw, there):
    with closing(sqlite3.connect(there.database)) as writer:
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("PRAGMA wal_autocheckpoint=0")
        writer.execute("INSERT INTO messages VALUES ('W', ?, 'a', 'A', 'in the log', ?, 0, 0)", (FAMILY, at(17)))
        writer.commit()
        assert by_folder(nanoclaw.told("import", there.root, "--dry-run"))["family"]["messages"]["total"] == 4


def test_what_is_no_file_of_a_database_is_not_read(nanoclaw, there):
    os.mkfifo(there.root / "store/messages.db-journal")
    (there.root / "store/messages.db-wal").symlink_to("/dev/zero")
    assert nanoclaw.told("import", there.root, "--dry-run")["done"] is False


def drop_table(host):
    host.execute("DROP TABLE router_state")


def drop_column(host):
    host.execute("ALTER TABLE registered_groups DROP COLUMN requires_trigger")


def scribble(host):
    host.database.write_bytes(b"no database at all" * 100)


def remove(host):
    host.database.unlink()


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (drop_table, "no table 'router_state'"),
        (drop_column, "no column 'requires_trigger'"),
        (scribble, "cannot be read"),
        (remove, "is no NanoClaw folder"),
    ],
)
def test_a_folder_that_is_no_hosts_is_refused_in_one_sentence(there, spoil, told):
    spoil(there)
    result = CliRunner().invoke(app, ["--url", "http://127.0.0.1:1", "import", str(there.root)])
    assert result.exit_code == 1
    assert told in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("link", ["data", "data/sessions", "data/sessions/main", "groups/global"])
def test_a_host_whose_links_lead_elsewhere_is_not_followed_there(nanoclaw, there, tmp_path, link):
    there.file(f"{link}/file").unlink()
    (there.root / link).rename(tmp_path / "home")
    for below in ("", "main", "sessions/main"):
        (tmp_path / "home" / below / ".claude").mkdir(parents=True, exist_ok=True)
        (tmp_path / "home" / below / ".claude/.credentials.json").write_text("secret")
    (there.root / link).symlink_to(tmp_path / "home")
    for command in (("import", there.root, "--yes"), ("export", there.root, "--replace")):
        refused = nanoclaw(*command)
        assert refused.exit_code == 1
        assert "where a link leads" in refused.stderr.replace("\n", " ")


# Export


def test_an_export_brings_everything_back(nanoclaw, there, tmp_path):
    nanoclaw.told("import", there.root, "--yes")
    exported = nanoclaw.told("export", tmp_path / "back")
    assert {group["folder"] for group in exported["groups"]} >= {"main", "family"}
    back = v1_host.read(tmp_path / "back")
    before = v1_host.read(there.root)
    ours = {group.folder: group.jid for group in back.records.groups}
    assert ours["family"] == "http:family"
    assert back.records.sessions == before.records.sessions
    assert {task.id: task.schedule_value for task in back.records.tasks} == {
        task.id: task.schedule_value for task in before.records.tasks
    }
    assert back.records.runs == before.records.runs
    texts = {message.id: message.content for message in before.records.messages if not message.is_bot_message}
    assert {message.id: message.content for message in back.records.messages} == texts
    waiting = [row.content for row in back.records.messages if row.timestamp > back.records.cursors[row.chat_jid]]
    assert waiting == ["and now?"]
    assert back.files["family"] == before.files["family"]
    assert back.shared == before.shared
    assert (tmp_path / "back/data/ipc/family/input").is_dir()


def test_a_name_that_an_agent_gave_a_file_does_nothing_to_the_terminal(nanoclaw, there, tmp_path):
    nanoclaw.told("import", there.root, "--yes")
    name = "\x1b]0;of the window\x07\nnanoclaw: all is well"
    for path in (tmp_path / "here").rglob("groups/family"):
        (path / name).touch()
        os.truncate(path / name, 2**43)  # more than there is room for, and takes none
    result = nanoclaw("export", tmp_path / "back")
    assert result.exit_code == 1
    assert "does not fit" in result.stderr
    assert "\x1b" not in result.stderr
    assert not [line for line in result.stderr.splitlines() if line.startswith("nanoclaw: all")]


def test_one_groups_agent_does_not_keep_the_others_here(nanoclaw, there, tmp_path):
    nanoclaw.told("import", there.root, "--yes")
    for path in (tmp_path / "here").rglob("groups/family"):
        (path / "endless").touch()
        os.truncate(path / "endless", 2**43)
    refused = nanoclaw("export", tmp_path / "back")
    assert "group 'family': 'endless' has" in refused.stderr
    exported = nanoclaw.told("export", tmp_path / "back", "--without-files-of", "family")
    groups = {group["folder"]: (group["files"], group["messages"]) for group in exported["groups"]}
    assert groups["family"] == (0, 3)
    assert (tmp_path / "back/groups/main/notes/a.md").read_text() == "a"
    assert not (tmp_path / "back/groups/family/CLAUDE.md").exists()
    shown = nanoclaw("export", tmp_path / "more", "--without-files-of", "family")
    assert "the files of family are not here" in shown.stdout
    nobody = nanoclaw("export", tmp_path / "none", "--without-files-of", "nobody")
    assert "there is no group 'nobody'" in nobody.stderr


def test_what_was_exported_is_here_already(nanoclaw, there, tmp_path):
    nanoclaw.told("import", there.root, "--yes")
    nanoclaw.do(lambda house: house.send("hello", "a", client_id="c1"))
    nanoclaw.do(lambda house: house.backend.agent(0))
    nanoclaw.do(answer_and_end)
    nanoclaw.do(lambda house: house.send("no name", "family"))
    nanoclaw.told("export", tmp_path / "back")
    shown = nanoclaw.told("import", tmp_path / "back", "--dry-run")
    assert {group["plan"] for group in shown["groups"]} == {"same"}
    assert shown["chats"] == 0


def test_another_installation_goes_on_from_an_export(nanoclaw, there, tmp_path):
    nanoclaw.told("import", there.root, "--yes")
    nanoclaw.told("export", tmp_path / "back")
    with serving(tmp_path / "other") as other:
        other.told("import", tmp_path / "back", "--yes")
        other.told("export", tmp_path / "again")
    first, second = v1_host.read(tmp_path / "back"), v1_host.read(tmp_path / "again")
    for field in ("messages", "tasks", "runs", "sessions", "cursors", "chats"):
        assert getattr(second.records, field) == getattr(first.records, field), field
    assert second.files == first.files


async def answer_and_end(house):
    agent = await house.backend.agent(0)
    await agent.say("hi")
    await agent.exit()
    await house.until_state(GroupState.QUIET, "a")


def test_answers_are_written_as_the_agents_own(nanoclaw, tmp_path):
    nanoclaw.do(lambda house: house.send("hello", "a"))
    nanoclaw.do(answer_and_end)
    nanoclaw.told("export", tmp_path / "back")
    said = [(row.content, row.is_bot_message) for row in v1_host.read(tmp_path / "back").records.messages]
    assert said == [("hello", False), ("hi", True)]


def test_a_hosts_folder_is_not_overwritten_by_mistake(nanoclaw, there):
    refused = nanoclaw("export", there.root)
    assert (refused.exit_code, "--replace" in refused.stderr) == (1, True)
    assert there.rows("SELECT count(*) FROM messages") == [(5,)]
    nanoclaw.told("export", there.root, "--replace")
    assert there.rows("SELECT count(*) FROM messages") == [(0,)]
    (kept,) = there.root.glob("store/*-messages.db")
    with closing(sqlite3.connect(kept)) as database:
        assert database.execute("SELECT count(*) FROM messages").fetchone() == (5,)


def test_a_host_that_runs_is_not_written_under(nanoclaw, there):
    with closing(sqlite3.connect(there.database)):
        refused = nanoclaw("export", there.root, "--replace")
    assert (refused.exit_code, "still runs" in refused.stderr) == (1, True)


def test_the_database_of_an_export_is_a_hosts(nanoclaw, there, tmp_path):
    nanoclaw.told("export", tmp_path / "back")

    def columns(file):
        with closing(sqlite3.connect(file)) as database:
            tables = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            return {table: database.execute(f"PRAGMA table_info({table})").fetchall() for table in tables}

    assert columns(tmp_path / "back/store/messages.db") == columns(there.database)


# The project


def test_a_project_is_pushed_without_its_secrets_and_what_is_gone_goes(nanoclaw, tmp_path):
    project, here = tmp_path / "project", tmp_path / "here/project"
    for path in ("src/index.ts", "README.md", ".env", "store/messages.db", "node_modules/a/index.js"):
        (project / path).parent.mkdir(parents=True, exist_ok=True)
        (project / path).write_text(path)
    shown = nanoclaw.told("project", "push", project, "--dry-run")
    assert (shown["done"], shown["sent"], shown["removed"]) == (False, 2, 0)
    nanoclaw.told("project", "push", project)
    assert files_of(here) == {"README.md", "src/index.ts"}

    shutil.rmtree(project / "src")
    (project / "src").write_text("a file now")
    pushed = nanoclaw.told("project", "push", project)
    assert (pushed["sent"], pushed["removed"]) == (1, 1)
    assert files_of(here) == {"README.md", "src"}
    assert nanoclaw("project", "push", project).stdout == "2 files; sent: 0 (0 B), removed: 0\n"


def test_an_empty_folder_is_no_project(nanoclaw, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "no file" in nanoclaw("project", "push", tmp_path / "empty").stderr


def files_of(root):
    return {str(file.relative_to(root)) for file in root.rglob("*") if file.is_file()}


# Pieces


def test_files_go_in_archives_of_a_bearable_size():
    sizes = [1, 30, 40, 70, 1, 1]
    files = [FileFacts(path=str(number), size=size * 2**20, modified=0) for number, size in enumerate(sizes)]
    assert [[file.size >> 20 for file in some] for some in archives(files)] == [[1, 30], [40], [70], [1, 1]]


def test_records_go_in_requests_of_a_bearable_size():
    text = "ä" * 50_000
    messages = [
        PastMessage(key=f"k{n}", sender="u", sender_name="A", text=text, created=at(n), waiting=False) for n in range(9)
    ]
    bodies = list(portions("i", messages, [], [], conversation="c", replace=False))
    assert sum(len(body["messages"]) for body in bodies) == 9
    assert all(len(json.dumps(body)) < 2**20 for body in bodies)
    assert [body["complete"] for body in bodies] == [False] * (len(bodies) - 1) + [True]
    assert [body.get("conversation") for body in bodies] == ["c"] + [None] * (len(bodies) - 1)


@pytest.mark.parametrize(("size", "said"), [(0, "0 B"), (2048, "2 KiB"), (5 * 2**20, "5 MiB"), (3 * 2**30, "3.0 GiB")])
def test_sizes_are_said_in_their_unit(size, said):
    assert transfer_view.size(size) == said
