"""The session's memory: one line of JSON a message, where the real agent keeps its own.

It lies on the group's sessions volume, so that a resumed session proves that the volume lives.
"""

from __future__ import annotations

import json
import re
import uuid
from pathlib import Path

FOLDER = Path(".claude") / "projects" / "-workspace-group"


class SessionMissing(Exception):
    """The session that should be resumed has no transcript in this home."""


class Transcript:
    """What was said in one session, by whom."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def session_id(self) -> str:
        return self._path.stem

    @classmethod
    def begin(cls, home: Path) -> Transcript:
        """A new session with a fresh id."""
        path = home / FOLDER / f"{uuid.uuid4()}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        return cls(path)

    @classmethod
    def resume(cls, home: Path, session_id: str) -> Transcript:
        """The session `session_id`, whose id stays. Raises SessionMissing."""
        path = home / FOLDER / f"{session_id}.jsonl"
        if not re.fullmatch(r"[A-Za-z0-9_-]+", session_id) or not path.is_file():
            raise SessionMissing(session_id)
        return cls(path)

    def add(self, who: str, text: str) -> None:
        """`who` is `user` or `assistant`."""
        with self._path.open("a", encoding="utf-8", errors="replace") as file:
            file.write(json.dumps({"type": who, "text": text}) + "\n")

    def said_by(self, who: str) -> list[str]:
        """Everything one side said, oldest first."""
        lines = [json.loads(line) for line in self._path.read_text(encoding="utf-8").splitlines()]
        return [line["text"] for line in lines if line["type"] == who]
