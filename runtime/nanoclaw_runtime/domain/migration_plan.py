"""What an import starts from, and the plan it makes: plain data for who shows it and who carries it out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from nanoclaw_runtime.contract.config import GroupSpec
from nanoclaw_runtime.domain.transfer import (
    NO_FILES,
    NO_TASKS,
    Area,
    FileFacts,
    FileList,
    Inventory,
    PastChat,
    PastMessage,
    PastRun,
    PastTask,
    StoredMessage,
    TaskBundle,
)
from nanoclaw_runtime.domain.v1_records import V1Records


class Verdict(StrEnum):
    NEW = "new"
    """Will be registered."""
    UPDATE = "update"
    SAME = "same"
    UNDECLARED = "not declared"
    """Cannot come in before the stack declares it."""


@dataclass(frozen=True)
class LeftOut:
    what: str
    why: str


@dataclass(frozen=True)
class Host:
    """What a v1 host has."""

    records: V1Records
    files: Mapping[str, Mapping[Area, FileList]] = field(default_factory=dict)
    """Of each folder below `groups/` and `data/sessions/`."""
    shared: FileList = NO_FILES
    """The memory all groups share."""
    left_out: tuple[LeftOut, ...] = ()
    """What was not even looked at."""


@dataclass(frozen=True)
class Installation:
    """What is here of the groups an import is about."""

    inventory: Inventory
    tasks: TaskBundle = NO_TASKS
    chats: tuple[PastChat, ...] = ()
    messages: Mapping[str, Sequence[StoredMessage]] = field(default_factory=dict)
    files: Mapping[str, Mapping[Area, FileList]] = field(default_factory=dict)
    shared: FileList = NO_FILES


@dataclass(frozen=True)
class FilePlan:
    changed: tuple[FileFacts, ...] = ()
    total: int = 0
    kept: int = 0
    """Newer here, and a group that was used here may have written them."""
    links: int = 0

    @property
    def bytes(self) -> int:
        return sum(file.size for file in self.changed)


@dataclass(frozen=True)
class GroupPlan:
    spec: GroupSpec
    verdict: Verdict
    messages: tuple[PastMessage, ...] = ()
    settled: tuple[PastMessage, ...] = ()
    """They wait here, and the agent there has had them."""
    messages_total: int = 0
    answers: int = 0
    """What its agent said; no history here has it."""
    tasks: tuple[PastTask, ...] = ()
    runs: tuple[PastRun, ...] = ()
    tasks_kept: int = 0
    """Tasks that are another way here, and stay so."""
    conversation: str | None = None
    conversation_kept: bool = False
    """Whether the agent has another conversation here, and goes on with that."""
    files: Mapping[Area, FilePlan] = field(default_factory=dict)
    session: str | None = None
    """The session that is alive and has to end first."""

    @property
    def waiting(self) -> int:
        return sum(message.waiting for message in self.messages)

    @property
    def has_records(self) -> bool:
        return bool(self.messages or self.settled or self.tasks or self.runs or self.conversation)


@dataclass(frozen=True)
class Plan:
    groups: tuple[GroupPlan, ...]
    chats: tuple[PastChat, ...]
    shared: FilePlan
    left_out: tuple[LeftOut, ...]

    @property
    def coming(self) -> tuple[GroupPlan, ...]:
        """The groups that something is done for."""
        return tuple(group for group in self.groups if group.verdict in {Verdict.NEW, Verdict.UPDATE})

    @property
    def undeclared(self) -> tuple[GroupSpec, ...]:
        return tuple(group.spec for group in self.groups if group.verdict is Verdict.UNDECLARED)

    @property
    def empty(self) -> bool:
        return not (self.coming or self.chats or self.shared.changed)


def declaration(specs: Iterable[GroupSpec]) -> str:
    """The groups as lines of a stack file, below `groups:`."""
    lines = []
    for spec in specs:
        fields: dict[str, object] = {"folder": spec.folder, "name": spec.name, "jid": spec.jid}
        if not spec.requires_trigger and not spec.is_main:
            fields["requiresTrigger"] = False
        if container := spec.container_config.model_dump(mode="json", by_alias=True, exclude_defaults=True):
            fields["containerConfig"] = container
        said = [f"  {name}: {json.dumps(value, ensure_ascii=False)}" for name, value in fields.items()]
        lines += [f"-{said[0][1:]}", *said[1:]]
    return "\n".join(lines)
