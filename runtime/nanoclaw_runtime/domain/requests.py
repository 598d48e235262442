"""What an agent may ask of its host: a JSON document and where it lay, in; one decision, out.

Who asks is told by the folder the file was found in and by nothing in the file. Main may steer
every group; another group's agent only its own chat and its own tasks. What is incomplete or not
allowed is `Refused`; nothing here raises, whatever an agent writes. Whether a recurrence can be
followed is `recurrence`; carrying out is the controller's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from nanoclaw_runtime.contract import names, wire
from nanoclaw_runtime.contract.config import GroupSpec
from nanoclaw_runtime.domain.tasks import TaskContext, TaskKind

LONGEST_JID: Final = 255
LONGEST_SENDER: Final = 200
"""Characters of a name other than the assistant's; the rest is cut off."""
LONGEST_PROMPT: Final = 32 * 1024
"""Characters of a task's; main's agent is told all tasks of all groups, before each of its sessions."""

_TASK_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")
# No database takes all of these: NUL, and halves of a surrogate pair that JavaScript has cut apart.
_LONGEST_REASON: Final = 300
_LONG_PROMPT: Final = f"its prompt is longer than {LONGEST_PROMPT} characters"
_Word = TypeVar("_Word", bound=StrEnum)


class RequestKind(StrEnum):
    """The directory of a request, and what it may hold."""

    MESSAGE = wire.MESSAGES_DIR
    TASK = wire.TASKS_DIR


@dataclass(frozen=True)
class SendMessage:
    """Say `text` in a chat."""

    jid: str
    folder: str | None
    """The group the chat belongs to; None for a chat of main's choice that belongs to none."""
    text: str
    sender: str | None
    """A name other than the assistant's."""


@dataclass(frozen=True)
class ScheduleTask:
    folder: str
    """The group that runs it."""
    jid: str
    prompt: str
    kind: TaskKind
    value: str
    context: TaskContext
    task: str | None
    """The id an agent has chosen, which is free; None when the host is to make one."""


class Change(StrEnum):
    PAUSE = "pause_task"
    RESUME = "resume_task"
    CANCEL = "cancel_task"


@dataclass(frozen=True)
class ChangeTask:
    change: Change
    task: str
    folder: str
    """The group the task belongs to."""


@dataclass(frozen=True)
class UpdateTask:
    """Say it differently, or run it at other times; what is None stays."""

    task: str
    folder: str
    prompt: str | None
    kind: TaskKind | None
    value: str | None


@dataclass(frozen=True)
class RefreshGroups:
    """Tell main's agent anew which chats there are."""


@dataclass(frozen=True)
class RegisterGroup:
    group: GroupSpec


@dataclass(frozen=True)
class Refused:
    """Nothing is done; the reason is for the log and quotes no text of a chat."""

    reason: str


Decision = SendMessage | ScheduleTask | ChangeTask | UpdateTask | RefreshGroups | RegisterGroup | Refused


@dataclass(frozen=True)
class Known:
    """What a decision depends on besides the request."""

    groups: Sequence[GroupSpec]
    tasks: Mapping[str, str]
    """Folder by id of a task; at least of the one that `named_task` tells."""

    def folder_of(self, jid: str) -> str | None:
        return next((group.folder for group in self.groups if group.jid == jid), None)


def named_task(document: object) -> str | None:
    """The id of the task a request speaks of, whether there is one or not."""
    return _text(document, "taskId") if isinstance(document, dict) else None


def decide(source: str, kind: RequestKind, document: object, known: Known) -> Decision:
    """What to do about a document that the agent of group `source` left in a directory of this kind."""
    if not isinstance(document, dict):
        return Refused("it is no JSON object")
    if kind is RequestKind.MESSAGE:
        return _message(source, document, known)
    word = document.get("type")
    judge = _TASK_REQUESTS.get(word) if isinstance(word, str) else None
    return judge(source, document, known) if judge else Refused("its type is none that a task file may have")


def _message(source: str, document: Mapping[str, Any], known: Known) -> Decision:
    jid, text = _text(document, "chatJid"), _text(document, "text")
    if document.get("type") != "message" or jid is None or text is None:
        return Refused("a message needs the type 'message', a chatJid and a text")
    if len(jid) > LONGEST_JID:
        return Refused(f"its chatJid is longer than {LONGEST_JID} characters")
    folder = known.folder_of(jid)
    if not _may(source, folder):
        return Refused("its chatJid is another group's chat, or nobody's")
    sender = _text(document, "sender")
    return SendMessage(jid, folder, text, sender and sender[:LONGEST_SENDER])


def _schedule(source: str, document: Mapping[str, Any], known: Known) -> Decision:
    jid, prompt, value = (_text(document, field) for field in ("targetJid", "prompt", "schedule_value"))
    kind = _word(TaskKind, document.get("schedule_type"))
    if jid is None or prompt is None or value is None or kind is None:
        return Refused("a task needs prompt, targetJid, schedule_value, and a schedule_type: cron, interval or once")
    if len(prompt) > LONGEST_PROMPT:
        return Refused(_LONG_PROMPT)
    folder = known.folder_of(jid)
    if folder is None:
        return Refused("its targetJid is no registered group's chat")
    if not _may(source, folder):
        return Refused(f"its targetJid is the chat of group {folder!r}")
    task = named_task(document)
    if task is not None and (task in known.tasks or not _TASK_ID.fullmatch(task)):
        return Refused("its taskId is taken, or is no id")
    context = _word(TaskContext, document.get("context_mode")) or TaskContext.ISOLATED
    return ScheduleTask(folder, jid, prompt, kind, value, context, task)


def _change(source: str, document: Mapping[str, Any], known: Known) -> Decision:
    task, folder = _own_task(source, document, known)
    return ChangeTask(Change(document["type"]), task, folder) if folder else Refused(task)


def _update(source: str, document: Mapping[str, Any], known: Known) -> Decision:
    task, folder = _own_task(source, document, known)
    if not folder:
        return Refused(task)
    given = {field for field in ("prompt", "schedule_type", "schedule_value") if document.get(field) is not None}
    update = UpdateTask(
        task,
        folder,
        prompt=_text(document, "prompt"),
        kind=_word(TaskKind, document.get("schedule_type")),
        value=_text(document, "schedule_value"),
    )
    understood = (update.prompt, update.kind, update.value)
    if not given or sum(part is not None for part in understood) != len(given):
        return Refused("an update needs a prompt, a schedule_type or a schedule_value, each of its right kind")
    return update if len(update.prompt or "") <= LONGEST_PROMPT else Refused(_LONG_PROMPT)


def _own_task(source: str, document: Mapping[str, Any], known: Known) -> tuple[str, str]:
    """The task and its folder; a reason and no folder when it is not one the source may touch."""
    task = named_task(document)
    if task is None:
        return "it needs a taskId", ""
    folder = known.tasks.get(task)
    if folder is None or not _may(source, folder):
        return "its taskId is no task of this group", ""
    return task, folder


def _refresh(source: str, _document: Mapping[str, Any], _known: Known) -> Decision:
    return RefreshGroups() if _is_main(source) else Refused("only main may refresh the groups")


def _register(source: str, document: Mapping[str, Any], _known: Known) -> Decision:
    if not _is_main(source):
        return Refused("only main may register groups")
    required = ("jid", "name", "folder", "trigger")
    jid, name, folder, trigger = (_text(document, field) for field in required)
    if jid is None or name is None or folder is None or trigger is None:
        return Refused("a group needs a jid, a name, a folder and a trigger")
    if problem := names.folder_problem(folder):
        return Refused(f"its folder cannot be one: {problem}")
    fields = {"jid": jid, "name": name, "folder": folder}
    try:
        fields |= _optional(document)
        return RegisterGroup(GroupSpec.model_validate(fields))
    except ValueError as error:
        return Refused(_reason(error))


def _optional(document: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a registration that may be missing, in our words. Raises ValueError."""
    fields: dict[str, Any] = {}
    if (trigger := document.get("requiresTrigger")) is not None:
        if not isinstance(trigger, bool):
            raise ValueError("its requiresTrigger is neither true nor false")
        fields["requiresTrigger"] = trigger
    if (container := document.get("containerConfig")) is not None:
        if not isinstance(container, dict):
            raise ValueError("its containerConfig is no object")
        fields["containerConfig"] = container | _seconds(container)
    return fields


def _seconds(container: Mapping[str, Any]) -> dict[str, float]:
    """NanoClaw counts a group's timeout in milliseconds, we in seconds."""
    timeout = container.get("timeout")
    if timeout is None:
        return {}
    if type(timeout) not in {int, float} or not 0 < timeout < 1e12:
        raise ValueError("its containerConfig.timeout is no number of milliseconds")
    return {"timeout": timeout / 1000}


def _reason(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors(include_input=False, include_url=False)[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"[:_LONGEST_REASON]


def _is_main(source: str) -> bool:
    return source == names.MAIN_FOLDER


def _may(source: str, folder: str | None) -> bool:
    return _is_main(source) or source == folder


def _text(document: Mapping[str, Any], field: str) -> str | None:
    """The field's text in characters that can be stored; None when it is missing, blank or no text."""
    value = document.get(field)
    if not isinstance(value, str) or not value.strip():
        return None
    return _UNSTORABLE.sub("\ufffd", value)


def _word(words: type[_Word], value: object) -> _Word | None:
    return next((word for word in words if word == value), None)


_TASK_REQUESTS: Final[Mapping[str, Callable[[str, Mapping[str, Any], Known], Decision]]] = {
    "schedule_task": _schedule,
    **dict.fromkeys(Change, _change),
    "update_task": _update,
    "refresh_groups": _refresh,
    "register_group": _register,
}
