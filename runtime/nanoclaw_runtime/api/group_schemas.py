"""Groups that are added, changed and kept, as the API takes and tells them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Literal, Self

from pydantic import Field

from nanoclaw_runtime.api.schemas import Answer, Body, Text
from nanoclaw_runtime.contract.config import ContainerConfig, Folder, GroupSpec, Pattern, Priority, Warm
from nanoclaw_runtime.controller.status import Origin

if TYPE_CHECKING:
    from nanoclaw_runtime.controller.groups import GroupBook

Name = Annotated[Text, Field(max_length=200)]
Ranked = Annotated[Priority, Field(strict=False)]

_PATTERNS: Final[dict[str, Literal[Pattern.JOB, Pattern.STATEFULSET]]] = {
    "job": Pattern.JOB,
    "statefulset": Pattern.STATEFULSET,
}
# Words, because a refusal that shows members of an enumeration is for nobody.


class NewGroup(Body):
    """A group to add; the same folder and chat again is written anew."""

    folder: Folder
    name: Name
    jid: Annotated[Text, Field(max_length=255)] | None = None
    """The chat's address at its network; `http:<folder>` when it is left out."""
    requires_trigger: bool = True
    """Whether only messages that begin with `@<assistant name>` are answered."""
    priority: Ranked = Priority.NORMAL
    container_config: ContainerConfig = ContainerConfig()
    pattern: Literal["job", "statefulset"] | None = None
    """Where its agents run, when not as the stack says."""
    warm: Annotated[Warm, Field(strict=False)] = Warm.AUTO
    """Whether its agent is started before its message."""
    ephemeral: bool = False
    """As in a stack's line; it means something with the pattern `nodelocal` alone, where no group is added."""

    def spec(self) -> GroupSpec:
        return GroupSpec(
            folder=self.folder,
            name=self.name,
            jid=self.jid or "",
            requires_trigger=self.requires_trigger,
            priority=self.priority,
            container_config=self.container_config,
            pattern=_PATTERNS[self.pattern] if self.pattern else None,
            warm=self.warm,
            ephemeral=self.ephemeral,
        )


class GroupChange(Body):
    """What is left out stays. A group's folder and chat are what it is, and stay always."""

    name: Name | None = None
    requires_trigger: bool | None = None
    priority: Ranked | None = None
    container_config: ContainerConfig | None = None


class RegisteredGroup(Answer):
    """A group as it is kept."""

    folder: str
    name: str
    jid: str
    is_main: bool
    requires_trigger: bool
    priority: Priority
    origin: Origin
    pending: bool
    """True until its storage is mounted; its messages wait so long."""

    @classmethod
    def of(cls, group: GroupSpec, book: GroupBook) -> Self:
        return cls(
            folder=group.folder,
            name=group.name,
            jid=group.jid,
            is_main=group.is_main,
            requires_trigger=group.requires_trigger,
            priority=group.priority,
            origin=book.origin(group.folder),
            pending=book.pending(group.folder),
        )
