"""What changes in the cluster: resources with an operation, a kind and a name, from the engine's steps.

Steps that belong together become one resource; what only the engine knows is left out. Not here: what a
change means.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from nanoclaw_infra.preview.document import State, Step, Unusable

AUTONAMED: Final = "pulumi.com/autonamed"
"""Annotation, `true` on what has a generated name."""


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
