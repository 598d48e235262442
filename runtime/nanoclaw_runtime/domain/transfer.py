"""What moves between an installation and another NanoClaw host: the records that both sides know.

One form for the store, the API and the command line. What becomes of them is `migration`; how the
other host writes them down is `v1_records`.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Final

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

from nanoclaw_runtime.contract.config import GroupSpec
from nanoclaw_runtime.domain.tasks import RunOutcome, TaskContext, TaskKind, TaskState

LARGEST_NUMBER: Final = 2**63 - 1


class Area(StrEnum):
    """A folder of files that moves as a whole."""

    GROUP = "group"
    """A group's own folder."""
    SESSIONS = "sessions"
    """What its agent remembers: conversations, settings, skills."""
    GLOBAL = "global"
    """The memory all groups share."""
    PROJECT = "project"
    """What main's agent sees of the project."""


GROUP_AREAS: Final = (Area.GROUP, Area.SESSIONS)


def everything(_path: str) -> bool:
    return True


def not_logs(path: str) -> bool:
    """Whether a path of a group's folder is more than the log of a container."""
    return path.split("/", 1)[0] != "logs"


def moves(area: Area) -> Callable[[str], bool]:
    """Whether a path below one of a group's areas moves at all."""
    return everything if area is Area.SESSIONS else not_logs


def _sayable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("has half of a surrogate pair, which is no character") from None
    return text


def _no_number(moment: object) -> object:
    if isinstance(moment, int | float):
        raise ValueError("is a number; write it as ISO 8601")  # noqa: TRY004 - it becomes pydantic's own error
    return moment


def _utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("is no moment the calendar has in UTC") from None


Text = Annotated[str, AfterValidator(_sayable)]
Key = Annotated[Text, Field(min_length=1, max_length=128)]
Jid = Annotated[Text, Field(min_length=1, max_length=255)]
Moment = Annotated[AwareDatetime, Field(strict=False), BeforeValidator(_no_number), AfterValidator(_utc)]


class _Record(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="forbid", strict=True)


class PastMessage(_Record):
    """A message somebody sent to a group."""

    key: Key
    """The sender's own id here; the same message has the same key wherever it comes from."""
    sender: Text
    sender_name: Text
    text: Text
    created: Moment
    waiting: bool
    """Whether an agent still has to see it."""


class StoredMessage(_Record):
    """A message as an installation keeps it."""

    number: int
    key: str | None
    sender: str
    sender_name: str
    text: str
    created: datetime
    waiting: bool


class PastAnswer(_Record):
    """What an agent said to its group."""

    number: int
    text: str
    created: datetime


class PastTask(_Record):
    id: Annotated[Text, Field(min_length=1, max_length=64)]
    folder: str
    jid: Jid
    prompt: Text
    kind: Annotated[TaskKind, Field(strict=False)]
    value: Text
    context: Annotated[TaskContext, Field(strict=False)]
    state: Annotated[TaskState, Field(strict=False)]
    next_run: Moment | None
    last_run: Moment | None
    last_result: Text | None
    created: Moment


class PastRun(_Record):
    task: Annotated[Text, Field(min_length=1, max_length=64)]
    started: Moment
    seconds: Annotated[float, Field(ge=0, le=1e9)]
    outcome: Annotated[RunOutcome, Field(strict=False)]
    result: Text | None
    error: Text | None


class PastChat(_Record):
    jid: Jid
    name: Text | None
    channel: Annotated[Text, Field(max_length=32)] | None
    is_group: bool
    last_activity: Moment


class GroupFacts(_Record):
    """A group of the installation and what its agent is doing."""

    spec: GroupSpec
    conversation: str | None
    """The agent's own id of the conversation that goes on."""
    session: str | None
    """The session that is alive; nothing of the group is changed meanwhile."""


class Inventory(_Record):
    registration: bool
    """Whether groups may be added that the stack does not declare."""
    assistant_name: str
    timezone: str
    groups: Annotated[tuple[GroupFacts, ...], Field(strict=False)]

    def group(self, folder: str) -> GroupFacts | None:
        return next((group for group in self.groups if group.spec.folder == folder), None)


class MessagePage(_Record):
    """In the order they were accepted; an empty page is behind the last."""

    messages: Annotated[tuple[StoredMessage, ...], Field(strict=False)]


class AnswerPage(_Record):
    answers: Annotated[tuple[PastAnswer, ...], Field(strict=False)]


class TaskBundle(_Record):
    """Every task with its log."""

    tasks: Annotated[tuple[PastTask, ...], Field(strict=False)]
    runs: Annotated[tuple[PastRun, ...], Field(strict=False)]


NO_TASKS: Final = TaskBundle(tasks=(), runs=())


class ChatBundle(_Record):
    chats: Annotated[tuple[PastChat, ...], Field(strict=False)]


class Portion(_Record):
    """Some of a group's records. Many portions make an import."""

    import_id: Key
    """The same for all portions of one import."""
    messages: Annotated[tuple[PastMessage, ...], Field(strict=False)] = ()
    tasks: Annotated[tuple[PastTask, ...], Field(strict=False)] = ()
    runs: Annotated[tuple[PastRun, ...], Field(strict=False)] = ()
    conversation: Annotated[Text, Field(min_length=1, max_length=255)] | None = None
    replace: bool = False
    """Whether tasks and the conversation take the place of those that are there."""
    complete: bool = False
    """The last portion: from here on the group's agent may see what waits."""


class Taken(_Record):
    """What was new; all else was there before and stays as it is."""

    messages: int
    settled: int
    """Messages that waited here and do so no longer, because the agent they come from has had them."""
    tasks: int
    runs: int
    conversation: bool


class ChatsTaken(_Record):
    chats: int


class FileFacts(_Record):
    path: str
    """Below its area, parts joined by `/`."""
    size: int
    modified: int
    """Whole seconds since 1970."""


class FileList(_Record):
    files: Annotated[tuple[FileFacts, ...], Field(strict=False)]
    left_out: int
    """Links, devices and whatever else is neither a folder nor a plain file, and names that are no text."""


NO_FILES: Final = FileList(files=(), left_out=0)


class FilesTaken(_Record):
    files: int
    bytes: int
    left_out: int


class Removal(_Record):
    paths: Annotated[tuple[Text, ...], Field(strict=False)]


class Removed(_Record):
    files: int
