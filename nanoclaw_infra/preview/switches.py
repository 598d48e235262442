"""What becomes of agents and data when a stack's pattern or transport changes, in one sentence each.

These are settings of the controller and show as two words in a document; what they do is far from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from nanoclaw_infra.preview.difference import Difference
from nanoclaw_infra.preview.secrecy import embedded
from nanoclaw_runtime.contract import names
from nanoclaw_runtime.contract.config import Pattern, Transport

_SETTINGS: Final = f'data["{names.SETTINGS_KEY}"].'
_PLACES: Final = {
    Pattern.JOB.value: "Jobs",
    Pattern.STATEFULSET.value: "StatefulSets",
    Pattern.NODELOCAL.value: "Jobs on the nodes that have their folders",
}
_WAYS: Final = {Transport.VOLUME.value: "volumes that all mount", Transport.BRIDGE.value: "a container beside each"}
_LONGEST: Final = 7 * 86_400
# Seconds; a number of unknown origin beyond it is not repeated.


def switched(found: Sequence[Difference], settings: Any) -> list[str]:
    """Sentences about the changed fields of the settings; `settings` is the new document, as text."""
    by_field = {each.path.removeprefix(_SETTINGS): (each.before, each.after) for each in found}
    told = []
    if (pattern := _known(by_field.get("pattern"), _PLACES)) is not None:
        told.append(_pattern(*pattern))
    if (transport := _known(by_field.get("transport"), _WAYS)) is not None:
        told.append(_transport(*transport, _seconds(settings)))
    return told


def _known(change: tuple[Any, Any] | None, words: Mapping[str, str]) -> tuple[str, str] | None:
    """The change, when both sides are values that there are."""
    return change if change is not None and all(isinstance(each, str) and each in words for each in change) else None


def _pattern(before: str, after: str) -> str:
    moved = f"agents move from {_PLACES[before]} to {_PLACES[after]}"
    if after == Pattern.NODELOCAL.value:
        return (
            f"{moved}, where they begin with nothing: data stays in the claims; `nanoclaw export` first, name the "
            "groups in `storage.keep` so that their claims stay declared, and `nanoclaw import` after"
        )
    if before == Pattern.NODELOCAL.value:
        return (
            f"{moved}: data stays in the folders of the nodes; `nanoclaw export` first and `nanoclaw import` after, or "
            "agents begin with what the claims have"
        )
    return f"{moved}: each group with its next session, those that run finish; claims stay"


def _transport(before: str, after: str, seconds: str) -> str:
    return (
        f"messages reach agents by {_WAYS[after]}, no longer by {_WAYS[before]}: idle sessions end at once, those that "
        f"work finish or are ended after {seconds}; claims stay, with the access modes they have"
    )


def _seconds(settings: Any) -> str:
    document = embedded(settings) if isinstance(settings, str) else None
    seconds = document.get("switchDeadline") if isinstance(document, dict) else None
    if isinstance(seconds, (int, float)) and not isinstance(seconds, bool) and 0 <= seconds <= _LONGEST:
        return f"{seconds:g} s"
    return "`runtime.switchDeadline`"
