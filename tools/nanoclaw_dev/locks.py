"""One at a time across processes, by a lock on a file that the kernel drops with its holder."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from nanoclaw_dev.progress import Progress


@contextlib.contextmanager
def exclusive(file: Path, progress: Progress, waiting: str) -> Iterator[None]:
    """Hold `file`, made with its folder if missing; `waiting` is shown as a step while somebody else has it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with progress.step(waiting):
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield
