"""The engine's JSON as the few facts a comment needs, tolerant of everything a newer engine may add.

Not here: which of its steps matter, and what they mean.
"""

from __future__ import annotations

import json
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

LARGEST: Final = 64 * 1024 * 1024
"""Characters of a document; that of an installation of a hundred groups has a tenth."""


class Unusable(Exception):
    """There is no preview in what was given; the message is one sentence."""

    def __init__(self, sentence: str, found: str = "") -> None:
        super().__init__(sentence)
        self.found = found
        """What the document says there; text of unknown origin."""


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
    duration: int = Field(default=0, ge=0, le=2**63)
    """Nanoseconds."""
    change_summary: dict[str, int] = {}

    @property
    def stack(self) -> str | None:
        """The stack's name, as the resources' URNs have it."""
        names = (step.urn.split("::")[0].removeprefix("urn:pulumi:") for step in self.steps)
        return next(names, None)


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
