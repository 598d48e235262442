"""A stack's mistakes as sentences: which field, which value, what to write instead.

pydantic finds the mistakes; its own report is made for programmers. Not here: the rules.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import pulumi
from pydantic import BaseModel

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_SCALARS: Final = {
    ("runtime", "platform"): "nanoclaw:platform",
    ("runtime", "layout"): "nanoclaw:layout",
    ("protectData",): "nanoclaw:protectData",
}
# These have keys of their own in the stack file; everything else is below `nanoclaw:settings`.


class StackRefused(pulumi.RunError):
    """The stack's configuration cannot be used. The engine shows the message and nothing else."""

    def __init__(self, stack: str, problems: Sequence[str]) -> None:
        count = "one problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__("\n".join([f"stack {stack!r} has {count}:", *(f"  - {problem}" for problem in problems)]))
        self.problems = tuple(problems)


def sentences(errors: Sequence[ErrorDetails], model: type[BaseModel]) -> list[str]:
    """One sentence for each mistake pydantic found while it read `model`."""
    return [_sentence(error, model) for error in errors]


def _sentence(error: ErrorDetails, model: type[BaseModel]) -> str:
    location = tuple(error["loc"])
    field, value, kind = _field(location), error["input"], error["type"]
    context = error.get("ctx", {})
    if kind == "missing":
        return f"{field} is missing{_meaning(model, location)}; add it to the stack file"
    if kind == "extra_forbidden":
        return f"{field} is not a setting{_nearest(model, location)}"
    if kind == "value_error":
        return f"{field}: {context['error']}"
    if kind in {"enum", "literal_error"}:
        return f"{field} is {value!r}; write {context['expected']}"
    if kind in {"model_type", "dict_type"}:
        return f"{field} is {value!r}; write a map of settings"
    return f"{field} is {value!r}; {_lower(error['msg'])}"


def _field(location: Sequence[int | str]) -> str:
    if (key := _SCALARS.get(tuple(str(part) for part in location))) is not None:
        return key
    path = "nanoclaw:settings"
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
    # The list of groups is a model of its own for the controller's sake; a stack file has just the list.
    return path.replace(".groups.groups[", ".groups[")


def _model_at(model: type[BaseModel], location: Sequence[int | str]) -> type[BaseModel] | None:
    """The model that holds the last part of `location`, or None when that is not a model's field."""
    for part in location[:-1]:
        if isinstance(part, int):
            continue
        inner = next((field for field in model.model_fields.values() if field.alias == part), None)
        if inner is None:
            return None
        candidates: list[Any] = [inner.annotation, *getattr(inner.annotation, "__args__", ())]
        found = next((each for each in candidates if isinstance(each, type) and issubclass(each, BaseModel)), None)
        if found is None:
            return None
        model = found
    return model


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
    known = sorted(str(field.alias) for field in holder.model_fields.values())
    near = difflib.get_close_matches(str(location[-1]), known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(known)}"


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
