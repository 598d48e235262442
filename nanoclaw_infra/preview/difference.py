"""Two versions of an object, field by field, as a reader of manifests would compare them.

Lists of named things are matched by name, so that a container in front moves nobody; JSON documents
inside a ConfigMap are compared by their own fields. Pure: what is secret was hidden before.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from nanoclaw_infra.preview.secrecy import embedded


class Absent(Enum):
    """A field that is not there."""

    ABSENT = "absent"


ABSENT: Final = Absent.ABSENT


@dataclass(frozen=True)
class Difference:
    """One field that differs."""

    path: str
    before: Any
    after: Any


_NAMES: Final = ("mountPath", "folder", "name", "containerPort", "port", "key", "jid")
# By which the things of a list are told apart, the most telling first: one volume may be mounted twice.
_PLAIN: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def differences(old: Any, new: Any, path: str = "") -> list[Difference]:
    """What differs, in the order of the fields' names; lists that are no lists of named things come item by item."""
    if old == new and type(old) is type(new):
        return []
    old, new = _opened(old, new)
    if isinstance(old, dict) and isinstance(new, dict):
        return _of_maps(old, new, path, _field)
    if isinstance(old, list) and isinstance(new, list):
        if (name := _naming(old, new)) is not None:
            return _of_maps(_by_name(old, name), _by_name(new, name), path, _item)
        if any(isinstance(each, (dict, list)) for each in (*old, *new)):
            return _of_things(old, new, path)
    if old == new or {old is None or old is ABSENT, new is None or new is ABSENT} == {True}:
        return []  # null is how a field is left out
    return [Difference(path, old, new)]


def _opened(old: Any, new: Any) -> tuple[Any, Any]:
    """Both sides as the documents they hold, when both hold one."""
    if isinstance(old, str) and isinstance(new, str):
        one, other = embedded(old), embedded(new)
        if one is not None and type(one) is type(other):
            return one, other
    return old, new


def _of_maps(old: Mapping[str, Any], new: Mapping[str, Any], path: str, step: Any) -> list[Difference]:
    found: list[Difference] = []
    for key in [*old, *(key for key in new if key not in old)]:
        found += differences(old.get(key, ABSENT), new.get(key, ABSENT), step(path, key))
    return found


def _of_things(old: Sequence[Any], new: Sequence[Any], path: str) -> list[Difference]:
    gone = [Difference(f"{path}[]", each, ABSENT) for each in old if each not in new]
    return gone + [Difference(f"{path}[]", ABSENT, each) for each in new if each not in old]


def _naming(old: Sequence[Any], new: Sequence[Any]) -> str | None:
    """The field that names each thing of both lists, alone on its side."""
    for name in _NAMES:
        if all(_names_all(each, name) for each in (old, new)):
            return name if old or new else None
    return None


def _names_all(things: Sequence[Any], name: str) -> bool:
    values = [each.get(name) if isinstance(each, dict) else None for each in things]
    return all(isinstance(value, (str, int)) for value in values) and len({str(value) for value in values}) == len(
        values
    )


def _by_name(things: Sequence[Any], name: str) -> dict[str, Any]:
    return {str(each[name]): each for each in things}


def _field(path: str, key: str) -> str:
    if not _PLAIN.fullmatch(key):
        return f"{path}[{json.dumps(key)}]"
    return f"{path}.{key}" if path else key


def _item(path: str, key: str) -> str:
    return f"{path}[{key}]"
