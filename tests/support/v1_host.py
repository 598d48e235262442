"""A NanoClaw v1 host's folder as such a host leaves it, database and all; written without our own code."""

import json
import os
import sqlite3
from contextlib import closing

SCHEMA = """
CREATE TABLE chats (jid TEXT PRIMARY KEY, name TEXT, last_message_time TEXT, channel TEXT, is_group INTEGER DEFAULT 0);
CREATE TABLE messages (
  id TEXT, chat_jid TEXT, sender TEXT, sender_name TEXT, content TEXT, timestamp TEXT, is_from_me INTEGER,
  is_bot_message INTEGER DEFAULT 0, PRIMARY KEY (id, chat_jid), FOREIGN KEY (chat_jid) REFERENCES chats(jid)
);
CREATE TABLE scheduled_tasks (
  id TEXT PRIMARY KEY, group_folder TEXT NOT NULL, chat_jid TEXT NOT NULL, prompt TEXT NOT NULL,
  schedule_type TEXT NOT NULL, schedule_value TEXT NOT NULL, next_run TEXT, last_run TEXT, last_result TEXT,
  status TEXT DEFAULT 'active', created_at TEXT NOT NULL, context_mode TEXT DEFAULT 'isolated'
);
CREATE TABLE task_run_logs (
  id INTEGER PRIMARY KEY AUTOINCREMENT, task_id TEXT NOT NULL, run_at TEXT NOT NULL, duration_ms INTEGER NOT NULL,
  status TEXT NOT NULL, result TEXT, error TEXT, FOREIGN KEY (task_id) REFERENCES scheduled_tasks(id)
);
CREATE TABLE router_state (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE sessions (group_folder TEXT PRIMARY KEY, session_id TEXT NOT NULL);
CREATE TABLE registered_groups (
  jid TEXT PRIMARY KEY, name TEXT NOT NULL, folder TEXT NOT NULL UNIQUE, trigger_pattern TEXT NOT NULL,
  added_at TEXT NOT NULL, container_config TEXT, requires_trigger INTEGER DEFAULT 1
);
"""


class V1Host:
    """Starts empty; each method adds what a host would have."""

    def __init__(self, root):
        self.root = root
        self.database = root / "store" / "messages.db"
        self.database.parent.mkdir(parents=True)
        with closing(self._connect()) as database:
            database.executescript(SCHEMA)

    def group(self, folder, jid, *, name=None, trigger=True, config=None, session=None, cursor=None):
        self.insert("registered_groups", jid, name or folder.title(), folder, "@Andy", at(0), config, int(trigger))
        self.insert("chats", jid, name or folder.title(), at(1), "whatsapp", 1)
        if session:
            self.insert("sessions", folder, session)
        if cursor:
            self.given(jid, cursor)

    def given(self, jid, time):
        cursors = json.loads(self.state("last_agent_timestamp") or "{}") | {jid: time}
        self.execute("REPLACE INTO router_state VALUES ('last_agent_timestamp', ?)", json.dumps(cursors))

    def message(self, jid, number, text, *, sender="4912@s.whatsapp.net", bot=False, time=None):
        self.insert("messages", f"3EB0{number}", jid, sender, "Ada", text, time or at(number), int(bot), int(bot))

    def task(self, identity, folder, jid, *, kind="cron", value="0 9 * * *", status="active", next_run=None, created=0):
        self.insert(
            "scheduled_tasks", identity, folder, jid, "water the plants", kind, value,
            next_run or LATER, at(2), "Completed", status, at(created), "group",
        )  # fmt: skip

    def run(self, task, minute, status="success"):
        self.execute(
            "INSERT INTO task_run_logs (task_id, run_at, duration_ms, status, result, error) VALUES (?, ?, ?, ?, ?, ?)",
            task, at(minute), 1500, status, "done", None,
        )  # fmt: skip

    def file(self, path, content="x", *, minute=0):
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
        os.utime(file, (BEGIN + 60 * minute, BEGIN + 60 * minute))
        return file

    def insert(self, table, *values):
        self.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(values))})", *values)

    def execute(self, statement, *values):
        with closing(self._connect()) as database, database:
            database.execute(statement, values)

    def rows(self, query):
        with closing(self._connect()) as database:
            return database.execute(query).fetchall()

    def state(self, key):
        found = self.rows(f"SELECT value FROM router_state WHERE key = '{key}'")
        return found[0][0] if found else None

    def _connect(self):
        return sqlite3.connect(self.database)


BEGIN = 1_772_323_200
"""2026-03-01, in seconds since 1970."""


LATER = "2099-01-01T00:00:00.000Z"


def at(minute):
    """A time of that day as a host writes it."""
    return f"2026-03-{1 + minute // 1440:02d}T{minute // 60 % 24:02d}:{minute % 60:02d}:00.000Z"
