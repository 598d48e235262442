"""A stack's mistakes as sentences: which field, which value, what to write instead.

pydantic finds the mistakes; its own report is made for programmers. Not here: the rules.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, get_args, get_origin

import pulumi
from pydantic import BaseModel

from nanoclaw_infra.settings.base import FILLED_IN, OWN_KEYS

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_KEY: Final = "[key]"
# What pydantic calls the key of a map, behind the key itself.

_REMEDIES: Final = {
    "bool_": "write true or false",
    "dict_type": "write a map of settings",
    "enum": "write {expected}",
    "finite_number": "write a number",
    "float_": "write a number",
    "greater_than_equal": "write {ge:.15g} or more",
    "greater_than": "write a number above {gt:.15g}",
    "int_": "write a whole number",
    "invalid_key": "write the key as text",
    "less_than_equal": "write {le:.15g} or less",
    "list_type": "write a list",
    "literal_error": "write {expected}",
    "model_": "write a map of settings",
    "string_pattern_mismatch": "write text that fits {pattern}",
    "string_too_long": "write at most {max_length} characters",
    "string_too_short": "write some text",
    "string_": "write text, in quotes where it looks like a number",
    "too_long": "write at most {max_length} of them",
    "too_short": "write at least {min_length} of them",
    "tuple_type": "write a list",
}
# Beginning of a kind of pydantic's → what to write instead.

_PLAIN: Final = re.compile(r"[\w$./-]{1,253}")
# What can be read as part of a path; anything else is shown in quotes.

LONGEST: Final = 120
"""Characters of a value that are shown."""


class StackRefused(pulumi.RunError):
    """The stack's configuration cannot be used. The engine shows the message and nothing else."""

    def __init__(self, stack: str, problems: Sequence[str]) -> None:
        count = "one problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__("\n".join([f"stack {stack!r} has {count}:", *(f"  - {problem}" for problem in problems)]))
        self.problems = tuple(problems)


def sentences(errors: Sequence[ErrorDetails], model: type[BaseModel]) -> list[str]:
    """One sentence for each mistake pydantic found while it read `model`."""
    return [_sentence(error, model) for error in errors if not _follows(error, errors)]


def _follows(error: ErrorDetails, errors: Sequence[ErrorDetails]) -> bool:
    """Whether a list is called too short only because of a wrong member."""
    at = error["loc"]
    return error["type"] == "too_short" and any(other["loc"][: len(at)] == at != other["loc"] for other in errors)


def _sentence(error: ErrorDetails, model: type[BaseModel]) -> str:
    location, kind, context = tuple(error["loc"]), error["type"], error.get("ctx", {})
    field = _field(location)
    if kind == "missing":
        return f"{field} is missing{_meaning(model, location)}; add it to the stack file"
    if kind == "extra_forbidden":
        return f"{field} is not a setting{_nearest(model, location)}"
    if location[-1:] == (_KEY,):
        return f"{_field(location[:-2])} has the key {_shown(location[-2])}; {_remedy(error)}"
    if kind == "value_error":
        return f"{field}: {context['error']}"
    return f"{field} is {_shown(error['input'])}; {_remedy(error)}"


def _remedy(error: ErrorDetails) -> str:
    """What to write instead."""
    kind, context = error["type"], error.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    for beginning, remedy in _REMEDIES.items():
        if kind.startswith(beginning):
            return remedy.format(**context)
    return _lower(error["msg"])


def _shown(value: Any) -> str:
    """`value` as it was written, cut where it is long: a whole map may be in the place of a word."""
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _field(location: Sequence[int | str]) -> str:
    if (key := OWN_KEYS.get(tuple(str(part) for part in location))) is not None:
        return key
    path = "nanoclaw:settings"
    for part in location:
        path += f".{part}" if isinstance(part, str) and _PLAIN.fullmatch(part) else f"[{_shown(part)}]"
    # The list of groups is a model of its own for the controller's sake; a stack file has just the list.
    return path.replace(":settings.groups.groups", ":settings.groups")


def _model_at(model: type[BaseModel], location: Sequence[int | str]) -> type[BaseModel] | None:
    """The model that holds the last part of `location`, or None when that is not a model's field."""
    is_key = False
    for part in location[:-1]:
        if isinstance(part, int) or is_key:
            is_key = False
            continue
        inner = next((field for field in model.model_fields.values() if field.alias == part), None)
        found = next(_models(inner.annotation), None) if inner is not None else None
        if inner is None or found is None:
            return None
        model, is_key = found, get_origin(inner.annotation) is dict
    return model


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models an annotation names, those in lists and maps included."""
    if isinstance(annotation, type) and not get_args(annotation) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)


def _meaning(model: type[BaseModel], location: Sequence[int | str]) -> str:
    holder = _model_at(model, location)
    field = (
        next((each for each in holder.model_fields.values() if each.alias == location[-1]), None) if holder else None
    )
    return f" ({_lower(field.description.rstrip('.'))})" if field is not None and field.description else ""


def _nearest(model: type[BaseModel], location: Sequence[int | str]) -> str:
    holder = _model_at(model, location)
    if holder is None:
        return "; remove it"
    above = tuple(location[:-1])
    hidden = {path[-1] for path in OWN_KEYS if path[:-1] == above} | (
        FILLED_IN.keys() if above == ("runtime",) else set()
    )
    known = sorted({str(field.alias) for field in holder.model_fields.values()} - hidden)
    near = difflib.get_close_matches(str(location[-1]), known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(known)}"


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
