"""A NanoClaw v1 host as its folder shows it: the database, the groups' files, and whether it runs.

The database is read from a copy, because a host may be writing to it. Nothing in the folder of a
host is changed by reading. What the rows mean is `domain.v1_records`.
"""

from __future__ import annotations

import io
import json
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import astuple
from pathlib import Path
from typing import Any, Final, NamedTuple

from nanoclaw_runtime.cli.errors import CommandFailed
from nanoclaw_runtime.contract import layout, names
from nanoclaw_runtime.domain.migration_plan import Host, LeftOut
from nanoclaw_runtime.domain.transfer import Area, FileList, moves
from nanoclaw_runtime.domain.v1_records import V1Chat, V1Group, V1Message, V1Records, V1Run, V1Task
from nanoclaw_runtime.ipc import archive

DATABASE: Final = "store/messages.db"
IPC_FOLDERS: Final = ("messages", "tasks", "input")

COPIES: Final = 50
PAUSE: Final = 0.1
# Seconds between two tries to copy the database of a host that writes.
_HEADER: Final = 100
# Bytes at the beginning of each of SQLite's files in which it counts its changes.

_LAST_SEEN: Final = "last_timestamp"
_LAST_GIVEN: Final = "last_agent_timestamp"


class Table(NamedTuple):
    """A table of the host's database, its columns in the order of our rows."""

    name: str
    columns: tuple[str, ...]
    statement: str


CHATS: Final = Table(
    "chats",
    ("jid", "name", "last_message_time", "channel", "is_group"),
    """CREATE TABLE chats (
        jid TEXT PRIMARY KEY, name TEXT, last_message_time TEXT, channel TEXT, is_group INTEGER DEFAULT 0
    )""",
)
MESSAGES: Final = Table(
    "messages",
    ("id", "chat_jid", "sender", "sender_name", "content", "timestamp", "is_from_me", "is_bot_message"),
    """CREATE TABLE messages (
        id TEXT, chat_jid TEXT, sender TEXT, sender_name TEXT, content TEXT, timestamp TEXT,
        is_from_me INTEGER, is_bot_message INTEGER DEFAULT 0,
        PRIMARY KEY (id, chat_jid), FOREIGN KEY (chat_jid) REFERENCES chats(jid)
    )""",
)
TASKS: Final = Table(
    "scheduled_tasks",
    (
        "id", "group_folder", "chat_jid", "prompt", "schedule_type", "schedule_value",
        "next_run", "last_run", "last_result", "status", "created_at", "context_mode",
    ),
    """CREATE TABLE scheduled_tasks (
        id TEXT PRIMARY KEY, group_folder TEXT NOT NULL, chat_jid TEXT NOT NULL, prompt TEXT NOT NULL,
        schedule_type TEXT NOT NULL, schedule_value TEXT NOT NULL, next_run TEXT, last_run TEXT, last_result TEXT,
        status TEXT DEFAULT 'active', created_at TEXT NOT NULL, context_mode TEXT DEFAULT 'isolated'
    )""",
)  # fmt: skip
RUNS: Final = Table(
    "task_run_logs",
    ("task_id", "run_at", "duration_ms", "status", "result", "error"),
    """CREATE TABLE task_run_logs (
        id INTEGER PRIMARY KEY AUTOINCREMENT, task_id TEXT NOT NULL, run_at TEXT NOT NULL,
        duration_ms INTEGER NOT NULL, status TEXT NOT NULL, result TEXT, error TEXT,
        FOREIGN KEY (task_id) REFERENCES scheduled_tasks(id)
    )""",
)
STATE: Final = Table(
    "router_state", ("key", "value"), "CREATE TABLE router_state (key TEXT PRIMARY KEY, value TEXT NOT NULL)"
)
SESSIONS: Final = Table(
    "sessions",
    ("group_folder", "session_id"),
    "CREATE TABLE sessions (group_folder TEXT PRIMARY KEY, session_id TEXT NOT NULL)",
)
GROUPS: Final = Table(
    "registered_groups",
    ("jid", "name", "folder", "trigger_pattern", "added_at", "container_config", "requires_trigger"),
    """CREATE TABLE registered_groups (
        jid TEXT PRIMARY KEY, name TEXT NOT NULL, folder TEXT NOT NULL UNIQUE, trigger_pattern TEXT NOT NULL,
        added_at TEXT NOT NULL, container_config TEXT, requires_trigger INTEGER DEFAULT 1
    )""",
)
TABLES: Final = (CHATS, MESSAGES, TASKS, RUNS, STATE, SESSIONS, GROUPS)
_INDEXES: Final = (
    "CREATE INDEX idx_timestamp ON messages(timestamp)",
    "CREATE INDEX idx_next_run ON scheduled_tasks(next_run)",
    "CREATE INDEX idx_status ON scheduled_tasks(status)",
    "CREATE INDEX idx_task_run_logs ON task_run_logs(task_id, run_at)",
)


def place(root: Path, area: Area, folder: str = "") -> Path:
    """Where a host keeps an area. Raises CommandFailed when a link on the way there leads elsewhere.

    Whoever made the folder could have another one of this machine sent, or written to.
    """
    match area:
        case Area.GROUP:
            found = root / layout.group_dir(folder)
        case Area.SESSIONS:
            found = root / layout.sessions_dir(folder)
        case Area.GLOBAL:
            found = root / layout.GLOBAL_DIR
        case Area.PROJECT:
            found = root
    if found.resolve() != root.resolve() / found.relative_to(root):
        raise CommandFailed(f"{found} is not there but where a link leads; put a folder in the link's place")
    return found


def read(root: Path) -> Host:
    """Everything a host has. Raises CommandFailed for a folder that is no host's, or a database we do not know."""
    if not (root / DATABASE).is_file():
        raise CommandFailed(f"{root} is no NanoClaw folder, it has no {DATABASE}; name the folder the host runs in")
    folders = sorted(_folders(root / "groups") | _folders(root / "data" / "sessions"))
    return Host(
        records=read_database(root / DATABASE),
        files={
            folder: {area: _listing(root, area, folder) for area in (Area.GROUP, Area.SESSIONS)} for folder in folders
        },
        shared=_listing(root, Area.GLOBAL),
        left_out=tuple(_left_behind(root, folders)),
    )


def read_database(file: Path) -> V1Records:
    """Raises CommandFailed for what is no database of a v1 host."""
    try:
        with _copied(file) as copy, closing(sqlite3.connect(copy)) as connection:
            connection.text_factory = lambda content: content.decode(errors="replace")
            _check(file, connection)
            return _records(connection)
    except (sqlite3.Error, ValueError) as error:
        raise CommandFailed(
            f"{file} cannot be read ({error}); stop the host, so that it is whole, and try again"
        ) from error


def write_database(file: Path, records: V1Records) -> None:
    """A database as a v1 host makes it. There must be none yet."""
    rows: Mapping[Table, Iterable[tuple[Any, ...]]] = {
        CHATS: map(astuple, records.chats),
        GROUPS: map(astuple, records.groups),
        MESSAGES: map(astuple, records.messages),
        TASKS: map(astuple, records.tasks),
        RUNS: map(astuple, records.runs),
        SESSIONS: records.sessions.items(),
        STATE: [(_LAST_SEEN, records.last_timestamp), (_LAST_GIVEN, json.dumps(dict(records.cursors)))],
    }
    with closing(sqlite3.connect(file)) as connection, connection:
        for statement in (*(table.statement for table in TABLES), *_INDEXES):
            connection.execute(statement)
        for table, content in rows.items():
            marks = ", ".join("?" * len(table.columns))
            columns = ", ".join(table.columns)
            connection.executemany(f"INSERT INTO {table.name} ({columns}) VALUES ({marks})", content)  # noqa: S608


def signs_of_life(root: Path) -> str | None:
    """Why the host seems to run, or None. It only sees processes of this user, so None is no proof."""
    file = root / DATABASE
    for behind in ("-wal", "-journal"):
        with suppress(OSError):
            if file.with_name(file.name + behind).stat().st_size:
                return f"{file.name}{behind} has changes that are not in the database yet"
    with suppress(OSError):
        target = file.resolve(strict=True)
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if any(descriptor.readlink() == target for descriptor in (process / "fd").iterdir()):
                    return f"process {process.name} has its database open"
    return None


@contextmanager
def _copied(file: Path) -> Iterator[Path]:
    """The database as it was at one moment. Raises CommandFailed when its host never leaves it alone for long enough.

    What was copied while it was written to is no database, though SQLite may find nothing wrong with it.
    """
    for _ in range(COPIES):
        with tempfile.TemporaryDirectory(prefix="nanoclaw-") as folder:
            before = _state(file)
            _copy(file, Path(folder))
            if _state(file) == before:
                yield Path(folder) / file.name
                return
        time.sleep(PAUSE)
    raise CommandFailed(f"{file} is written to all the time; stop the host, so that it is whole, and try again")


def _copy(file: Path, folder: Path) -> None:
    for name in _parts(file):
        with suppress(FileNotFoundError):
            if file.with_name(name).is_file():  # and no pipe or device, which may never end
                shutil.copyfile(file.with_name(name), folder / name)


def _state(file: Path) -> list[tuple[int, int, bytes] | None]:
    """Something else after each change: what SQLite counts in its headers, beside the times, which are coarse."""
    found: list[tuple[int, int, bytes] | None] = []
    for part in map(file.with_name, _parts(file)):
        try:
            facts = part.stat()
            with part.open("rb") if part.is_file() else io.BytesIO() as content:
                found.append((facts.st_mtime_ns, facts.st_size, content.read(_HEADER)))
        except FileNotFoundError:
            found.append(None)
    return found


def _parts(file: Path) -> tuple[str, ...]:
    return file.name, f"{file.name}-wal", f"{file.name}-journal"


def _check(file: Path, connection: sqlite3.Connection) -> None:
    for table in TABLES:
        found = {row[1] for row in connection.execute(f"PRAGMA table_info({table.name})")}
        if missing := [column for column in table.columns if column not in found]:
            what = f"column {missing[0]!r} in table" if found else "table"
            raise CommandFailed(
                f"{file} has no {what} {table.name!r}; it is not of NanoClaw 1.1 or a later v1: "
                "start such a host on it once, which brings it up to date"
            )
    if (verdict := connection.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
        raise CommandFailed(f"{file} is damaged ({verdict}); stop the host, so that it is whole, and try again")


def _records(connection: sqlite3.Connection) -> V1Records:
    def rows(table: Table, order: str) -> sqlite3.Cursor:
        columns = ", ".join(table.columns)
        return connection.execute(f"SELECT {columns} FROM {table.name} ORDER BY {order}")  # noqa: S608

    state: dict[str, str] = dict(rows(STATE, "key"))
    cursors = json.loads(state.get(_LAST_GIVEN) or "{}")
    return V1Records(
        groups=tuple(V1Group(*[*row[:-1], row[-1] != 0]) for row in rows(GROUPS, "folder")),
        messages=tuple(
            V1Message(*_texts(row[:-2]), *map(bool, row[-2:])) for row in rows(MESSAGES, "timestamp, rowid")
        ),
        tasks=tuple(V1Task(*row) for row in rows(TASKS, "created_at, id")),
        runs=tuple(V1Run(*row) for row in rows(RUNS, "id")),
        chats=tuple(V1Chat(*[*row[:-1], bool(row[-1])]) for row in rows(CHATS, "jid")),
        sessions=dict(rows(SESSIONS, "group_folder")),
        cursors={str(jid): str(time) for jid, time in cursors.items()} if isinstance(cursors, dict) else {},
        last_timestamp=state.get(_LAST_SEEN, ""),
    )


def _texts(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Nothing is no text at all."""
    return tuple(value or "" for value in values)


def _folders(parent: Path) -> set[str]:
    with suppress(FileNotFoundError):
        return {
            entry.name
            for entry in parent.iterdir()
            if entry.is_dir() and not entry.is_symlink() and not entry.name.startswith(".")
        } - names.RESERVED_FOLDERS
    return set()


def _listing(root: Path, area: Area, folder: str = "") -> FileList:
    try:
        return archive.listing(place(root, area, folder), moves(area))
    except OSError as error:
        raise CommandFailed(f"{error.filename or root} cannot be read: {error.strerror}") from error


def _left_behind(root: Path, folders: Iterable[str]) -> Iterator[LeftOut]:
    if (root / ".env").exists():
        yield LeftOut(".env", "secrets belong into the stack's credentials")
    if (root / "store" / "auth").exists():
        yield LeftOut("store/auth", "a chat network's keys stay with the host that is linked")
    if logs := sum(1 for folder in folders for _ in place(root, Area.GROUP, folder).glob("logs/*")):
        yield LeftOut(f"{logs} logs of containers", "they are of sessions that are over")
    requests = sum(1 for kind in IPC_FOLDERS for _ in (root / "data" / "ipc").glob(f"*/{kind}/*.json"))
    if requests:
        yield LeftOut(f"{requests} files in data/ipc", "they are between this host and its agents")
