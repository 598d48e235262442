"""What a person sees while long work runs: what, how far, how long.

On a terminal the current step is one line that is rewritten; elsewhere (CI logs) a step
prints when it starts, every half minute with its note, and when it ends.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from typing import TextIO

REFRESH = 0.2
HEARTBEAT = 30.0
# Seconds between two lines where the output is not a terminal.


def duration(seconds: float) -> str:
    """Seconds as a person writes them: `0.4 s`, `12 s`, `3 min 05 s`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


class Step:
    """One piece of work under way; `note` says how far it is."""

    def __init__(self, title: str, out: TextIO) -> None:
        self._title, self._out = title, out
        self._note = ""
        self.passed = True
        self._started = time.monotonic()
        self._stop = threading.Event()
        self._live = out.isatty()
        self._thread = threading.Thread(target=self._tell, name="progress", daemon=True)

    def note(self, text: str) -> None:
        """Replace what is shown behind the title, such as `412/1180 packages`."""
        self._note = text

    def fail(self) -> None:
        """Mark the step as failed although nothing is raised: a check that did not pass."""
        self.passed = False

    def begin(self) -> None:
        if not self._live:
            self._line("…", "")
        self._thread.start()

    def end(self, mark: str) -> None:
        self._stop.set()
        self._thread.join()
        if self._live:
            self._out.write("\r\x1b[K")
        self._line(mark, f"  {duration(time.monotonic() - self._started)}")

    def _tell(self) -> None:
        while not self._stop.wait(REFRESH if self._live else HEARTBEAT):
            spent = duration(time.monotonic() - self._started)
            behind = f"  {self._note}" if self._note else ""
            if self._live:
                self._out.write(f"\r\x1b[K… {self._title}{behind}  {spent}")
                self._out.flush()
            else:
                self._line("…", f"{behind}  {spent}")

    def _line(self, mark: str, behind: str) -> None:
        self._out.write(f"{mark} {self._title}{behind}\n")
        self._out.flush()


class Progress:
    """Prints steps, one at a time."""

    def __init__(self, out: TextIO = sys.stdout) -> None:
        self._out = out

    def say(self, text: str = "") -> None:
        """A line of its own between steps."""
        self._out.write(f"{text}\n")
        self._out.flush()

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[Step]:
        step = Step(title, self._out)
        step.begin()
        try:
            yield step
        except BaseException:
            step.end("✗")
            raise
        step.end("✓" if step.passed else "✗")
