"""The engine's JSON as the few facts a comment needs, tolerant of everything a newer engine may add.

Here the document becomes resources with an operation, a kind and a name. Not here: what a change means.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic.alias_generators import to_camel

LARGEST: Final = 64 * 1024 * 1024
"""Characters of a document; that of an installation of a hundred groups has a tenth."""

AUTONAMED: Final = "pulumi.com/autonamed"
"""Annotation, `true` on what has a generated name."""


class Unusable(Exception):
    """There is no preview in what was given; the message is one sentence."""

    def __init__(self, sentence: str, found: str = "") -> None:
        super().__init__(sentence)
        self.found = found
        """What the document says there; text of unknown origin."""


class Operation(StrEnum):
    """What happens to a resource, in the words of the comment."""

    REPLACE = "replaced"
    DELETE = "deleted"
    UPDATE = "changed"
    CREATE = "created"
    ADOPT = "adopted"


_OPERATIONS: Final = {
    "replace": Operation.REPLACE,
    "create-replacement": Operation.REPLACE,
    "delete-replaced": Operation.REPLACE,
    "import-replacement": Operation.REPLACE,
    "delete": Operation.DELETE,
    "update": Operation.UPDATE,
    "create": Operation.CREATE,
    "import": Operation.ADOPT,
}
_HARMLESS: Final = frozenset(
    {"same", "read", "read-replacement", "refresh", "discard", "discard-replaced", "remove-pending-replace", "diff"}
)
# Touches nothing in the cluster.
_OURS_OUTSIDE: Final = ("pulumi:", "nanoclaw:")
# Types the cluster knows nothing of: components, the provider, stashes.


class _Tolerant(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, frozen=True, extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _null_is_left_out(cls, value: Any) -> Any:
        return {key: each for key, each in value.items() if each is not None} if isinstance(value, dict) else value


class State(_Tolerant):
    """A resource before or after."""

    inputs: dict[str, Any] = {}
    protect: bool = False
    retain_on_delete: bool = False


class Step(_Tolerant):
    """One step of the engine."""

    op: str
    urn: str
    old_state: State | None = None
    new_state: State | None = None
    detailed_diff: dict[str, Any] = {}


class Diagnostic(_Tolerant):
    """Something the engine or the program said."""

    message: str
    severity: str = "error"


class Document(_Tolerant):
    """The whole of `pulumi preview --json`."""

    config: dict[str, Any] = {}
    steps: list[Step] = []
    diagnostics: list[Diagnostic] = []
    duration: int = 0
    """Nanoseconds."""
    change_summary: dict[str, int] = {}

    @property
    def stack(self) -> str | None:
        """The stack's name, as the resources' URNs have it."""
        names = (step.urn.split("::")[0].removeprefix("urn:pulumi:") for step in self.steps)
        return next(names, None)


@dataclass(frozen=True)
class Resource:
    """One resource that changes."""

    operation: Operation
    type: str
    """The chain of types, from the outermost component to the resource's own."""
    kind: str
    name: str
    namespace: str | None
    old: Mapping[str, Any]
    new: Mapping[str, Any]
    protected: bool
    retained: bool
    touched: tuple[str, ...]
    """Paths the engine says differ; the only trace of a changed secret."""

    @property
    def reference(self) -> str:
        """As a permission is written: Kind/name."""
        return f"{self.kind}/{self.name}"

    @property
    def metadata(self) -> Mapping[str, Any]:
        return _mapping((self.old or self.new).get("metadata"))

    def metadata_map(self, field: str) -> Mapping[str, Any]:
        """`labels` or `annotations`; those it had, where it was there."""
        return _mapping(self.metadata.get(field))


def parse(text: str) -> Any:
    """The JSON document in `text`. Raises Unusable."""
    if len(text) > LARGEST:
        raise Unusable(f"The preview has more than {LARGEST // 1024**2} MiB; that is no preview of this program.")
    if not text.strip():
        raise Unusable("The preview is empty: the engine stopped before it could say anything.")
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError):
        raise Unusable(_why_not_json(text)) from None
    if isinstance(tree, dict) and "steps" not in tree and "diagnostics" not in tree and "sequence" in tree:
        raise Unusable(_STREAM)
    return tree


def read(tree: Any) -> Document:
    """The document in a JSON value. Raises Unusable."""
    if not isinstance(tree, dict):
        raise Unusable("The preview is JSON, but no object; give what `pulumi preview --json` printed.")
    if not tree.keys() & {"steps", "diagnostics", "changeSummary"}:
        raise Unusable("The preview has neither steps nor diagnostics; give what `pulumi preview --json` printed.")
    try:
        return Document.model_validate(tree)
    except ValidationError as error:
        field = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise Unusable("The preview cannot be read: a field is not as the engine writes it.", field) from None


def resources(steps: Iterable[Step]) -> list[Resource]:
    """What changes in the cluster, one entry a resource; what only the engine knows is left out.

    Raises Unusable at an operation nobody here knows: it might delete.
    """
    merged: dict[str, Step] = {}
    for step in steps:
        if step.op not in _OPERATIONS.keys() | _HARMLESS:
            raise Unusable("The preview has an operation this version does not know; use a newer one.", step.op)
        if step.op in _HARMLESS or _type(step.urn).rsplit("$", 1)[-1].startswith(_OURS_OUTSIDE):
            continue
        earlier = merged.get(step.urn)
        merged[step.urn] = step if earlier is None else _both(earlier, step)
    return [_resource(step) for step in merged.values()]


def freed(steps: Iterable[Step]) -> list[Resource]:
    """What stays and loses its protection, which the engine counts as no change."""
    return [
        _resource(step)
        for step in steps
        if (old := step.old_state) is not None
        and (new := step.new_state) is not None
        and step.op in {"same", "update"}
        and ((old.protect and not new.protect) or (old.retain_on_delete and not new.retain_on_delete))
    ]


def _both(one: Step, other: Step) -> Step:
    """A replacement that an engine told in several steps, or a replacement beside its old copy's end."""
    replaced = Operation.REPLACE in {_OPERATIONS[one.op], _OPERATIONS[other.op]} or one.op != other.op
    return one.model_copy(
        update={
            "op": "replace" if replaced else one.op,
            "old_state": one.old_state or other.old_state,
            "new_state": one.new_state or other.new_state,
            "detailed_diff": one.detailed_diff | other.detailed_diff,
        }
    )


def _resource(step: Step) -> Resource:
    old, new = step.old_state, step.new_state
    inputs = (old or new or State()).inputs
    metadata = _mapping(inputs.get("metadata"))
    chain = _type(step.urn)
    operation = _OPERATIONS.get(step.op, Operation.UPDATE)
    if operation is Operation.REPLACE and new is None:
        operation = Operation.DELETE  # the old copy an earlier run left over
    return Resource(
        operation=operation,
        type=chain,
        kind=chain.rsplit(":", 1)[-1],
        name=_text(metadata.get("name")) or step.urn.split("::", 3)[-1],
        namespace=_text(metadata.get("namespace")),
        old=old.inputs if old else {},
        new=new.inputs if new else {},
        protected=old is not None and old.protect,
        # Of a replacement both sides have to say so: which one counts is the engine's secret.
        retained=old is not None and old.retain_on_delete and (new is None or new.retain_on_delete),
        touched=tuple(step.detailed_diff),
    )


def _type(urn: str) -> str:
    parts = urn.split("::", 3)
    return parts[2] if len(parts) == 4 else ""


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


_STREAM: Final = (
    "The preview is a stream of events; unset PULUMI_ENABLE_STREAMING_JSON_PREVIEW "
    "and run `pulumi preview --json` again."
)


def _why_not_json(text: str) -> str:
    first, _, rest = text.lstrip().partition("\n")
    if not first.startswith(("{", "[")):
        return "The preview is no JSON; run `pulumi preview --json`, and give its standard output alone."
    if rest.lstrip().startswith("{") and _complete(first):
        return _STREAM
    return "The preview is cut off or damaged JSON: the engine, or what ran it, was stopped."


def _complete(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True
