"""The agent's side of `ipc/input`: follow-ups and the request to end, looked for every half second."""

from __future__ import annotations

import contextlib
import json
import queue
import threading
import time
from pathlib import Path

from echo_agent import output

POLL_SECONDS = 0.5


class Inbox:
    """Files of `ipc/input`, taken at most once: a text counts only after its file is gone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._close = folder / "_close"

    def prepare(self) -> None:
        """Make the folder, and forget a request to end that was meant for a predecessor."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._close.unlink(missing_ok=True)

    def close_requested(self) -> bool:
        """Whether `_close` is there; taken away in the same breath."""
        if not self._close.exists():
            return False
        with contextlib.suppress(OSError):
            self._close.unlink()
        return True

    def drain(self) -> list[str]:
        """The texts of all follow-ups, in name order. Junk is removed, `.tmp` files are not looked at."""
        texts = []
        for path in sorted(self._folder.glob("*.json")):
            try:
                content = path.read_bytes()
                path.unlink()
            except OSError as problem:
                output.log(f"cannot take {path.name}: {problem}")
                continue
            if text := _text(path.name, content):
                texts.append(text)
        return texts


def _text(name: str, content: bytes) -> str | None:
    try:
        message = json.loads(content)
    except ValueError:
        output.log(f"{name} is not JSON; removed")
        return None
    if not isinstance(message, dict) or message.get("type") != "message":
        return None
    text = message.get("text")
    return text if isinstance(text, str) and text else None


class Follower:
    """Looks into the inbox while turns run, so that a follow-up and `_close` are seen in flight."""

    def __init__(self, inbox: Inbox) -> None:
        self.texts: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        """Follow-ups in order; None ends the session."""
        self.ignore_close = threading.Event()
        self._inbox = inbox
        self._thread = threading.Thread(target=self._poll, name="inbox", daemon=True)

    def start(self) -> None:
        """First look after one poll interval, as the real agent."""
        self._thread.start()

    def _poll(self) -> None:
        while True:
            time.sleep(POLL_SECONDS)
            # `_close` first: what was written behind it stays for the next session of the group.
            if self._inbox.close_requested() and not self.ignore_close.is_set():
                self.texts.put(None)
                return
            for text in self._inbox.drain():
                self.texts.put(text)
