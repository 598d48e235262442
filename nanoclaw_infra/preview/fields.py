"""The fields of one change as lines of a list: path, old value, new value; rights as rights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from nanoclaw_infra.preview.changes import AUTONAMED, Resource
from nanoclaw_infra.preview.difference import ABSENT, Difference
from nanoclaw_infra.preview.markdown import Markdown

MOST: Final = 40
"""Fields of one object; whoever changes more has written it anew."""

_UNKNOWN: Final = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
# The engine's stand-in for what only `pulumi up` finds out.
_SECRET: Final = "[secret"  # noqa: S105


def lines(resource: Resource, found: Sequence[Difference], ink: Markdown) -> list[str]:
    """One line a field; where only the engine saw a difference, what it says of it."""
    found = [each for each in found if not _generated(each, resource)]
    told = [_right(each, ink) or _field(each, ink) for each in found[:MOST]]
    if len(found) > MOST:
        told.append(f"and {len(found) - MOST} fields more")
    return told or _touched(resource, ink)


def _generated(difference: Difference, resource: Resource) -> bool:
    """A name the engine makes up anew with every replacement."""
    return difference.path == "metadata.name" and resource.metadata_map("annotations").get(AUTONAMED) == "true"


def _touched(resource: Resource, ink: Markdown) -> list[str]:
    secret = ", secret" if resource.kind == "Secret" else ""
    told = [f"{ink.code(path)}: changed{secret}" for path in resource.touched[:MOST]]
    if len(resource.touched) > MOST:
        told.append(f"and {len(resource.touched) - MOST} fields more")
    return told


def _field(difference: Difference, ink: Markdown) -> str:
    path, before, after = ink.code(difference.path), difference.before, difference.after
    if before is ABSENT:
        return f"{path}: added {_value(after, ink)}"
    if after is ABSENT:
        return f"{path}: removed {_value(before, ink)}"
    if _secret(before) and _secret(after):
        return f"{path}: changed, secret"
    return f"{path}: {_value(before, ink)} → {_value(after, ink)}"


def _secret(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(_SECRET)


def _value(value: Any, ink: Markdown) -> str:
    if _secret(value):
        return "secret"
    text = value if isinstance(value, str) else json.dumps(_essential(value, ink), ensure_ascii=False)
    return ink.code(text.replace(_UNKNOWN, "(not yet known)"))


def _essential(value: Any, ink: Markdown) -> Any:
    """Without nulls, which are fields left out. Empty maps and lists stay: in a network policy they mean much."""
    if isinstance(value, dict):
        return {key: _essential(each, ink) for key, each in value.items() if each is not None}
    if isinstance(value, str):
        return ink.clean(value)  # before quotes in it are escaped
    return [_essential(each, ink) for each in value] if isinstance(value, list) else value


def _right(difference: Difference, ink: Markdown) -> str | None:
    """A rule of a Role, or None when the difference is something else."""
    rule = difference.after if difference.before is ABSENT else difference.before
    if difference.path != "rules[]" or not isinstance(rule, dict):
        return None
    may = "may now" if difference.before is ABSENT else "may no longer"
    groups = [each for each in _strings(rule, "apiGroups") if each]
    told = f"{may} {_listed(_strings(rule, 'verbs'), ink)} {_listed(_strings(rule, 'resources'), ink)}"
    if groups:
        told += f" of {_listed(groups, ink)}"
    if named := _strings(rule, "resourceNames"):
        told += f", only {_listed(named, ink)}"
    return told


def _strings(rule: dict[str, Any], key: str) -> list[str]:
    value = rule.get(key)
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def _listed(texts: Sequence[str], ink: Markdown) -> str:
    return ", ".join(ink.code(each) for each in texts)
