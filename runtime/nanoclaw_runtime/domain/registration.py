"""Which groups there are when the stack declares some and others were added while the controller ran.

The stack is written down and reviewed, so it wins wherever both speak of the same folder or chat.
"""

from __future__ import annotations

from collections.abc import Iterable

from nanoclaw_runtime.contract import names
from nanoclaw_runtime.contract.config import GroupSpec


def objection(new: GroupSpec, declared: Iterable[GroupSpec], registered: Iterable[GroupSpec]) -> str | None:
    """Why this group cannot be added, or None. A registered one again, same folder and same chat, is a change."""
    for other in declared:
        if other.folder == new.folder:
            return in_the_stack(new.folder)
        if taken := _taken(new, other):
            return taken
    for other in registered:
        if (other.folder, other.jid) != (new.folder, new.jid) and (taken := _taken(new, other)):
            return taken
    return None


def in_the_stack(folder: str) -> str:
    """Why a group of the stack is not changed here."""
    return f"group {folder!r} is declared in the stack; change it there and run `pulumi up`"


def overruled(registered: Iterable[GroupSpec], declared: Iterable[GroupSpec]) -> dict[str, str]:
    """The folders of registered groups that stand back behind the stack's, each with the reason."""
    stack = list(declared)
    reasons = {group.folder: [_taken(group, other) for other in stack] for group in registered}
    return {folder: next(filter(None, found)) for folder, found in reasons.items() if any(found)}


def _taken(group: GroupSpec, other: GroupSpec) -> str | None:
    if group.folder == other.folder:
        return (
            f"the folder {group.folder!r} belongs to the chat {other.jid!r}; choose another, or remove that group first"
        )
    if group.jid == other.jid:
        return f"the chat {group.jid!r} belongs to group {other.folder!r}; a chat has one group"
    if names.slug(group.folder) == names.slug(other.folder):
        return f"the folder {group.folder!r} folds to one name with {other.folder!r}; choose another"
    return None
