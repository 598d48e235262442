"""Requests to the controller, files as NanoClaw's own tool writes them, and what it tells the agent in return."""

from __future__ import annotations

import json
import secrets
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_BASE36 = "0123456789abcdefghijklmnopqrstuvwxyz"


class Outbox:
    """The agent's way to ask for things. It never learns what became of them."""

    def __init__(self, ipc: Path, chat_jid: str, group_folder: str) -> None:
        self._ipc = ipc
        self._chat_jid = chat_jid
        self._group_folder = group_folder

    def tell(self, text: str, chat_jid: str | None = None) -> None:
        """A message to a chat, its own unless another is named."""
        self._write(
            "messages",
            {
                "type": "message",
                "chatJid": chat_jid or self._chat_jid,
                "text": text,
                "groupFolder": self._group_folder,
                "timestamp": _now(),
            },
        )

    def schedule(self, kind: str, value: str, prompt: str) -> None:
        """A scheduled task; `kind` is `cron`, `interval` (milliseconds) or `once`."""
        self._write(
            "tasks",
            {
                "type": "schedule_task",
                "prompt": prompt,
                "schedule_type": kind,
                "schedule_value": value,
                "context_mode": "group",
                "targetJid": self._chat_jid,
                "createdBy": self._group_folder,
                "timestamp": _now(),
            },
        )

    def request(self, content: str, folder: str = "tasks") -> None:
        """`content` as it is into `tasks/` or `messages/`: any request, and broken ones too."""
        self._put(folder, content)

    def refresh_groups(self) -> None:
        """Straight into its place, as the real agent is taught to: a reader may find half of it."""
        directory = self._ipc / "tasks"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"refresh_{time.time_ns() // 1_000_000_000}.json").write_text('{"type": "refresh_groups"}\n')

    def snapshot(self, file: str) -> str:
        """What the controller has written for the agent to read. Raises OSError."""
        return (self._ipc / file).read_text(encoding="utf-8", errors="replace")

    def _write(self, folder: str, request: dict[str, Any]) -> None:
        self._put(folder, json.dumps(request, indent=2, ensure_ascii=False))

    def _put(self, folder: str, content: str) -> None:
        """Atomically: a `.tmp` beside it, then a rename, so that nobody reads half a file."""
        directory = self._ipc / folder
        directory.mkdir(parents=True, exist_ok=True)
        suffix = "".join(secrets.choice(_BASE36) for _ in range(6))
        path = directory / f"{time.time_ns() // 1_000_000}-{suffix}.json"
        partial = path.with_name(f"{path.name}.tmp")
        partial.write_text(content, encoding="utf-8", errors="replace")
        partial.rename(path)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
