"""What can go wrong, as one tree with the facts as fields; translated once, at the edge.

NanoclawError
├── GroupUnknown
├── SessionUnknown
├── TaskUnknown
├── TaskInvalid          a recurrence nobody can follow, a chat nobody has
├── RegistrationRefused  a group that cannot be added, changed or removed here
├── TransferRefused      files or records that cannot be taken in
├── FilesAway            a group's files that cannot be reached at this moment
├── GroupBusy            a live session where nothing may change under it
├── SessionFailed        an agent that did not start, died, or went silent
├── StoreFailed
└── SettingsInvalid
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class FailureKind(StrEnum):
    """Why a session failed; also the label of the failure metric."""

    UNSCHEDULABLE = "unschedulable"
    QUOTA = "quota"
    REFUSED = "refused"
    """The API server or an admission plugin refused the Job or its pod."""
    IMAGE = "image"
    VOLUME = "volume"
    START_TIMEOUT = "start-timeout"
    ATTACH = "attach"
    OUT_OF_MEMORY = "out-of-memory"
    EVICTED = "evicted"
    NODE_LOST = "node-lost"
    EXIT = "exit"
    """The agent ended with an exit code other than 0."""
    SILENT = "silent"
    """No output for longer than the silence limit."""
    STOPPED = "stopped"
    """Ended by an operator, or gone without a trace."""
    API = "api"
    """The cluster could not be asked."""


@dataclass(frozen=True)
class Diagnosis:
    """One failure, told twice: for who runs the platform and for who sits in the chat."""

    kind: FailureKind
    operator: str
    """One sentence: what, which object, the evidence, the remedy."""
    chat: str
    """One sentence without names of infrastructure."""
    exit_code: int | None = None


class NanoclawError(Exception):
    """Root of everything this package raises on purpose."""


class GroupUnknown(NanoclawError):
    def __init__(self, folder: str) -> None:
        super().__init__(f"there is no group {folder!r}; declare it in the stack and run `pulumi up`")
        self.folder = folder


class SessionUnknown(NanoclawError):
    def __init__(self, session: str) -> None:
        super().__init__(f"there is no running session {session!r}; `nanoclaw sessions` lists them")
        self.session = session


class TaskUnknown(NanoclawError):
    def __init__(self, task: str) -> None:
        super().__init__(f"there is no task {task!r}; `nanoclaw tasks` lists them")
        self.task = task


class TaskInvalid(NanoclawError):
    """A task that cannot be kept; the text names the field, its value and the remedy."""


class RegistrationRefused(NanoclawError):
    """A group cannot be added, changed or removed at run time; the text says why and what to do instead."""


class TransferRefused(NanoclawError):
    """Files or records that were sent cannot be taken in; nothing of them was kept."""


class FilesAway(NanoclawError):
    """The files of a group are not within reach now, and may be in a moment."""

    def __init__(self, folder: str, why: str) -> None:
        super().__init__(f"the files of group {folder!r} cannot be reached now: {why}; repeat this in a moment")
        self.folder = folder


class GroupBusy(NanoclawError):
    """A group cannot be changed from outside while its agent works."""

    def __init__(self, folder: str, session: str) -> None:
        super().__init__(
            f"group {folder!r} has a live session; end it with `nanoclaw sessions stop {session}` and begin again"
        )
        self.folder = folder
        self.session = session


class SessionFailed(NanoclawError):
    """An agent session ended without doing what it was started for."""

    def __init__(self, session: str, diagnosis: Diagnosis) -> None:
        super().__init__(f"session {session}: {diagnosis.operator}")
        self.session = session
        self.diagnosis = diagnosis


class StoreFailed(NanoclawError):
    """The database cannot do what was asked: disk, lock, version, or a call that contradicts its content."""


class SettingsInvalid(NanoclawError):
    """The pod's environment or a file of it is missing or wrong; the text names it and the remedy."""
