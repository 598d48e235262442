"""The part of the comment about data, which is never cut: what is lost, protected, let go or resized."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from nanoclaw_infra.preview import fields, words
from nanoclaw_infra.preview.changes import Operation, Resource
from nanoclaw_infra.preview.difference import differences
from nanoclaw_infra.preview.markdown import Markdown
from nanoclaw_infra.preview.risk import SETTING, Fate, Loss

LONGEST: Final = 25_000
"""Characters in full; beyond, the objects are only named."""
_LOST, _OTHERS = 14_000, 3_000
# Characters of names then: a hundred groups' claims, or more; the comment has to be taken.


def data_at_risk(
    found: Sequence[Loss], warned: Sequence[tuple[Resource, str]], freed: Sequence[Resource], ink: Markdown
) -> list[str]:
    """Paragraphs, none when no data is concerned."""
    if not (found or warned or freed):
        return []
    items = [*_losses(found, ink), *_warnings(warned, ink)]
    full = "\n".join(items) if sum(map(len, items)) <= LONGEST else _short(found, warned, ink)
    return [f"#### {_headline(found)}", "\n".join(filter(None, [full, *_freed(freed, ink)])), *_permission(found, ink)]


def stale(found: Sequence[Loss], permissions: Iterable[str], ink: Markdown) -> list[str]:
    """A paragraph about permissions nothing here needs; none when there are none."""
    unused = sorted(set(permissions) - {each.permission for each in found})
    if not unused:
        return []
    named = ", ".join(_fitting([ink.code(each, 100) for each in unused], _OTHERS, "and {} more"))
    return [f"`{SETTING}` permits what does not happen here: {named}. Remove it from the stack once it is done."]


def _freed(freed: Sequence[Resource], ink: Markdown) -> list[str]:
    if not freed:
        return []
    return [f"- **No longer protected**, so that a later change can delete it: {_names(freed, ink, _OTHERS)}"]


def _headline(found: Sequence[Loss]) -> str:
    unpermitted = sum(each.unpermitted for each in found)
    if unpermitted:
        return f"Data at risk: {unpermitted} not permitted"
    return "Data" if not any(each.fate is Fate.GONE for each in found) else "Data at risk, permitted in the stack"


def _losses(found: Sequence[Loss], ink: Markdown) -> list[str]:
    told = [_loss(each, ink) for each in found]
    if any(each.fate is Fate.GONE and each.resource.kind == "PersistentVolumeClaim" for each in found):
        told.append(
            "- A volume whose StorageClass says `reclaimPolicy: Retain` outlives its claim; any other goes with it."
        )
    return told


def _loss(loss: Loss, ink: Markdown) -> str:
    resource = loss.resource
    name, holds = ink.code(resource.reference), words.holds(resource, ink.code)
    again = resource.operation is Operation.REPLACE
    if loss.fate is Fate.REFUSED:
        told = f"- **Protected**: {name} ({holds}) would be {resource.operation.value}; the engine refuses."
    elif loss.fate is Fate.KEPT:
        told = f"- **Let go**: {name} ({holds}) leaves the stack and stays in the cluster."
        if again and resource.name == _new_name(resource):
            told += " A new one of the same name cannot be made beside it."
    else:
        done = "is deleted and made again, empty" if again else "is deleted"
        verdict = "permitted" if loss.permission else "not permitted"
        told = f"- **Lost, {verdict}**: {name} {done}; it holds {holds}."
        if loss.permission and loss.permission != resource.reference:
            told += f" Permitted by {ink.code(loss.permission)}, in which it is."
    return "\n".join([told, *(f"  - {line}" for line in _reasons(resource, ink))])


def _reasons(resource: Resource, ink: Markdown) -> list[str]:
    if resource.operation is not Operation.REPLACE:
        return []
    return fields.lines(resource, differences(resource.old, resource.new), ink)


def _new_name(resource: Resource) -> object:
    metadata = resource.new.get("metadata")
    return metadata.get("name") if isinstance(metadata, dict) else None


def _warnings(warned: Iterable[tuple[Resource, str]], ink: Markdown) -> list[str]:
    told = []
    for resource, text in warned:
        found = fields.lines(resource, differences(resource.old, resource.new), ink)
        told.append(f"- {ink.code(resource.reference)} ({words.holds(resource, ink.code)}) {text}: {'; '.join(found)}")
    return told


def _short(found: Sequence[Loss], warned: Sequence[tuple[Resource, str]], ink: Markdown) -> str:
    """Where there are too many objects for a line each."""
    fates = {
        "Lost, not permitted": [each for each in found if each.unpermitted],
        "Lost, permitted": [each for each in found if each.fate is Fate.GONE and not each.unpermitted],
        "Protected; the engine refuses": [each for each in found if each.fate is Fate.REFUSED],
        "Let go, stays in the cluster": [each for each in found if each.fate is Fate.KEPT],
    }
    told = [
        f"- **{fate}**: {_names([each.resource for each in losses], ink, _LOST if losses[0].unpermitted else _OTHERS)}"
        for fate, losses in fates.items()
        if losses
    ]
    if warned:
        told.append(f"- **Resized**: {_names([each for each, _ in warned], ink, _OTHERS)}")
    return "\n".join(told)


def _names(concerned: Sequence[Resource], ink: Markdown, room: int) -> str:
    return ", ".join(_fitting([ink.code(each.reference, 100) for each in concerned], room, "and {} more"))


def _fitting(texts: Sequence[str], room: int, rest: str) -> list[str]:
    """As many as there is room for, and how many there are besides."""
    kept: list[str] = []
    for text in texts:
        room -= len(text) + 2
        if room < 0:
            return [*kept, rest.format(len(texts) - len(kept))]
        kept.append(text)
    return kept


def _permission(found: Sequence[Loss], ink: Markdown) -> list[str]:
    """The lines to write in the stack; one for a namespace covers what is in it."""
    missing = [each.resource for each in found if each.unpermitted]
    spaces = {each.name for each in missing if each.kind == "Namespace"}
    wanted = [each.reference for each in missing if each.kind == "Namespace" or each.namespace not in spaces]
    if not wanted:
        return []
    lines = _fitting([f"  - {each}" for each in wanted], _LOST, "  # and {} more")
    return [
        "If it is meant to go, say so in this change, below `nanoclaw:settings` of the stack file:",
        ink.block("\n".join([f"{SETTING}:", *lines]), 2 * _LOST, "yaml"),
    ]
