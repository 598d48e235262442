"""Long-running programs that outlive the command that started them, and how they are found again.

Each program has a file with its process id, the time that process started and the boot it belongs
to, so a number the system gave to somebody else later is never taken for ours. Starting a program
that runs as wanted does nothing; one that runs with other arguments or files is replaced.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as await_all
from dataclasses import asdict, dataclass, field
from pathlib import Path

from nanoclaw_dev.errors import SetupError

ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
}
# Nothing else of ours: a proxy variable would send the components' calls to each other through it.

POLL = 0.05
# Seconds between two looks at something that has no event to wait for.


PARENT = ThreadPoolExecutor(max_workers=1, thread_name_prefix="parent")
# The one thread that starts programs. It lives as long as we do: an attached program dies with the
# thread that started it, which may be any caller's.


@dataclass(frozen=True)
class Program:
    """One program, with everything that decides how it runs."""

    name: str
    command: tuple[str, ...]
    files: Mapping[Path, str] = field(default_factory=dict)
    """Configuration it reads; written before it starts."""

    def digest(self) -> str:
        """Changes with the command or any file."""
        parts = [list(self.command), sorted((str(path), text) for path, text in self.files.items())]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@dataclass(frozen=True)
class _Record:
    pid: int
    started: int
    boot: str
    digest: str


class Processes:
    """The programs of one cluster. `attached` ones are killed when the starting process dies."""

    def __init__(self, folder: Path, logs: Path, *, attached: bool) -> None:
        self._folder, self._logs, self.attached = folder, logs, attached
        self._children = dict[str, subprocess.Popen[bytes]]()

    def pid(self, name: str) -> int | None:
        """The process id of a program that runs, else None."""
        record = self._record(name)
        return record.pid if record else None

    def started(self, name: str) -> float | None:
        """When a program that runs was started, in seconds since 1970, else None."""
        if self._record(name):
            with contextlib.suppress(FileNotFoundError):  # somebody stopped it just now
                return self._path(name).stat().st_mtime
        return None

    def log(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def names(self) -> list[str]:
        """Every program that was started and not stopped, running or not."""
        return sorted(path.stem for path in self._folder.glob("*.json"))

    def as_wanted(self, program: Program) -> bool:
        """It runs, with this command and these files."""
        record = self._record(program.name)
        return record is not None and record.digest == program.digest()

    def ensure(self, program: Program) -> bool:
        """Start the program unless it runs as wanted. True when it had to be started."""
        if self.as_wanted(program):
            return False
        self.stop(program.name)
        for path, text in program.files.items():
            write_private(path, text)
        self._start(program)
        return True

    def stop(self, name: str, *, grace: float = 0.0) -> None:
        """Ask the program to end, kill it after `grace` seconds, and return when it is gone."""
        record = self._recorded(name)
        if record is not None:
            with _handle(record.pid) as handle:
                # The handle pins the process; only now it is certain that the number is still ours.
                # A killed one counts as ended before it has let go of its sockets: waited for here too.
                if handle is not None and _seen(record.pid).started == record.started:
                    _end(handle, grace)
        child = self._children.pop(name, None)
        if child is not None:
            child.kill()
            child.wait()
        self._path(name).unlink(missing_ok=True)

    def explain(self, name: str) -> str:
        """One sentence about why a program is not running or not ready: its last log line."""
        try:
            lines = self.log(name).read_text(errors="replace").strip().splitlines()
        except FileNotFoundError:
            lines = []
        return f"its last words: {lines[-1][:300]!r} (all of them in {self.log(name)})" if lines else "it said nothing"

    def wait(self, check: Callable[[], bool], what: str, name: str, *, seconds: float) -> None:
        """Return when `check` holds. Raises SetupError when `name` ends first or time is up."""
        end = time.monotonic() + seconds
        while not check():
            if self.pid(name) is None:
                raise SetupError(f"{name} ended while waiting until {what}; {self.explain(name)}.")
            if time.monotonic() > end:
                raise SetupError(f"It took longer than {seconds:.0f} s until {what}; {name}: {self.explain(name)}.")
            time.sleep(POLL)

    def _start(self, program: Program) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._logs.mkdir(parents=True, exist_ok=True)
        log = self.log(program.name)
        if log.exists():
            log.rename(log.with_suffix(".previous.log"))
        # Whoever is interrupted here has still started it, and it is found again.
        started = PARENT.submit(self._launch, program, log)
        try:
            started.result()
        finally:
            await_all([started])

    def _launch(self, program: Program, log: Path) -> None:
        # setpriv becomes the program: the process id stays.
        prefix = ("setpriv", "--pdeathsig", "KILL", "--") if self.attached else ()
        with log.open("wb") as output:
            child = subprocess.Popen(
                [*prefix, *program.command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                env=ENVIRONMENT,
                start_new_session=True,  # a Ctrl-C in the terminal is for us, we stop them in order
            )
        self._children[program.name] = child
        record = _Record(child.pid, _seen(child.pid).started, _boot(), program.digest())
        write_private(self._path(program.name), json.dumps(asdict(record)))

    def _record(self, name: str) -> _Record | None:
        """What is known of a program that runs."""
        if child := self._children.get(name):
            child.poll()  # so that none of ours that ended lingers; another command may have started it anew
        record = self._recorded(name)
        if record is None:
            return None
        seen = _seen(record.pid)
        return record if seen.alive and seen.started == record.started else None

    def _recorded(self, name: str) -> _Record | None:
        """What is known of a program started since this machine was, running or not."""
        try:
            record = _Record(**json.loads(self._path(name).read_text()))
        except FileNotFoundError:
            return None
        return record if record.boot == _boot() else None

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"


def write_private(path: Path, text: str) -> None:
    """Write a file only its owner can read, at once or not at all; folders above it are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # two may write at the same time
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
        Path(partial).replace(path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def kill(pid: int) -> None:
    """Kill a process and return when it is gone; no error when it already is."""
    with _handle(pid) as handle:
        if handle is not None:
            _end(handle, 0.0)


def children(pid: int) -> list[int]:
    """The processes that the main thread of another has started, the oldest first."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


@contextlib.contextmanager
def _handle(pid: int) -> Iterator[int | None]:
    try:
        handle = os.pidfd_open(pid)
    except OSError as error:
        # A number that was given out again, to a thread: kernels say so in two ways.
        if error.errno not in {errno.ESRCH, errno.ENOENT, errno.EINVAL}:
            raise
        yield None
        return
    try:
        yield handle
    finally:
        os.close(handle)


def _end(handle: int, grace: float) -> None:
    def gone(seconds: float | None) -> bool:
        return bool(select.select([handle], [], [], seconds)[0])

    with contextlib.suppress(ProcessLookupError):
        if grace:
            signal.pidfd_send_signal(handle, signal.SIGTERM)
            if gone(grace):
                return
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        gone(None)


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@dataclass(frozen=True)
class _Seen:
    """A process as the kernel tells it."""

    alive: bool
    started: int
    """Clock ticks since boot; -1 when there is no such process."""


def _seen(pid: int) -> _Seen:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return _Seen(alive=False, started=-1)
    return _Seen(alive=fields[0] not in {"Z", "X"}, started=int(fields[19]))
