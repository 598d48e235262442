"""The answers of several members to one question, as one answer: pure functions of documents.

Not here: asking them, and which of them did not answer (`members`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

Join = Callable[[list[tuple[str, dict[str, Any]]]], dict[str, Any]]
"""From node and answer of each member to the one answer."""


def _lists(key: str, order: Callable[[dict[str, Any]], Any]) -> Join:
    """Joins answers that are one list; each entry says which node it is of."""

    def join(parts: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
        return {key: sorted((entry | {"node": node} for node, part in parts for entry in part[key]), key=order)}

    return join


def _queues(parts: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """Places are each node's own: all of them, and who waits for one of which node."""
    return {
        "limit": sum(part["limit"] for _, part in parts),
        "active": sum(part["active"] for _, part in parts),
        "waiting": [entry | {"node": node} for node, part in parts for entry in part["waiting"]],
    }


def _chats(parts: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """A chat is one, whoever heard of it."""
    found: dict[str, dict[str, Any]] = {}
    for entry in (entry for _, part in parts for entry in part["chats"]):
        found[entry["jid"]] = max(entry, found.get(entry["jid"], entry), key=_heard)
    return {"chats": list(found.values())}


def _heard(chat: dict[str, Any]) -> str:
    """When somebody last wrote there, in a form that sorts."""
    return str(chat.get("lastActivity", ""))


def _bundles(parts: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """Joins documents whose lists go on in each other; what is no list is the same in all."""
    joined = dict(parts[0][1])
    for _, part in parts[1:]:
        joined |= {key: [*joined[key], *value] for key, value in part.items() if isinstance(value, list)}
    return joined


JOINS: Final[Mapping[str, Join]] = {
    "/groups": _lists("groups", lambda entry: entry["folder"]),
    "/sessions": _lists("sessions", lambda entry: (entry["started"], entry["session"])),
    "/tasks": _lists("tasks", lambda entry: (entry["created"], entry["id"])),
    "/outbox": _lists("posts", lambda entry: entry["created"]),
    "/queue": _queues,
    "/chats": _chats,
    "/transfer/groups": _bundles,
    "/transfer/tasks": _bundles,
    "/transfer/chats": _chats,
}
"""By path, behind the prefix of the API."""
