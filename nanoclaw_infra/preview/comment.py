"""The comment: data at risk first and never cut, then errors, then what changes, as far as there is room."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from nanoclaw_infra.preview import errors, fields, words
from nanoclaw_infra.preview.changes import Operation, Resource, freed, resources
from nanoclaw_infra.preview.danger import data_at_risk, stale
from nanoclaw_infra.preview.difference import differences
from nanoclaw_infra.preview.document import Document
from nanoclaw_infra.preview.markdown import Markdown, marker
from nanoclaw_infra.preview.risk import Fate, losses, permissions, warning

LONGEST: Final = 60_000
"""Characters; GitHub takes 65,536."""
_LONGEST_ERROR: Final = 8_000

FINE, AT_RISK, NO_PREVIEW = 0, 1, 2
"""Exit statuses of the command."""


@dataclass(frozen=True)
class Comment:
    """Markdown, and what the command ends with."""

    text: str
    status: int


@dataclass(frozen=True)
class _Section:
    title: str
    items: list[str]


def unusable(stack: str, reason: str, log: str, ink: Markdown) -> Comment:
    """What to say where there is no preview: one sentence, and what the engine wrote besides."""
    parts = [marker(stack), f"### There is no preview of stack {ink.code(stack)}", reason]
    if log.strip():
        parts.append(ink.block(log.strip(), _LONGEST_ERROR))
    parts += [f"- {remedy}" for remedy in errors.remedies([log])]
    return Comment("\n\n".join([*parts, _FOOTER]) + "\n", NO_PREVIEW)


def comment(document: Document, stack: str, ink: Markdown) -> Comment:
    """The comment on a preview, whether it went well or not."""
    changes = resources(document.steps)
    told = errors.sentences(document.diagnostics)
    found = losses(changes, permissions(document.config), failed=bool(told))
    lost = sum(each.unpermitted for each in found)

    head = [marker(stack), _title(stack, changes, ink, failed=bool(told))]
    warned = [(each, text) for each in changes if (text := warning(each)) is not None]
    head += data_at_risk(found, warned, freed(document.steps), ink)
    head += stale(found, permissions(document.config), ink)
    head += _errors(told, ink, refused=any(each.fate is Fate.REFUSED for each in found))
    covered = {id(each.resource) for each in found} | {id(each) for each, _ in warned}
    sections = list(_sections([each for each in changes if id(each) not in covered], ink))
    status = NO_PREVIEW if told else AT_RISK if lost else FINE
    return Comment(_joined(head, sections, _ending(document)), status)


def _title(stack: str, changes: Sequence[Resource], ink: Markdown, *, failed: bool) -> str:
    counts = Counter(each.operation for each in changes)
    counted = ", ".join(f"{counts[each]} {each.value}" for each in _ORDER if counts[each]) or "no changes"
    if failed:
        return f"### The preview of stack {ink.code(stack)} failed; as far as it came: {counted}"
    return f"### Stack {ink.code(stack)}: {counted}"


_ORDER: Final = (Operation.CREATE, Operation.ADOPT, Operation.UPDATE, Operation.REPLACE, Operation.DELETE)


def _errors(told: Sequence[str], ink: Markdown, *, refused: bool) -> list[str]:
    if not told:
        return []
    # What is protected was listed object by object.
    shown = [text for text in told if not (refused and errors.PROTECTED in text)]
    block = [ink.block("\n".join(shown), _LONGEST_ERROR)] if shown else []
    return ["#### Why the preview failed", *block, *(f"- {remedy}" for remedy in errors.remedies(told))]


def _sections(changes: Sequence[Resource], ink: Markdown) -> Iterable[_Section]:
    for operation in (Operation.REPLACE, Operation.DELETE, Operation.UPDATE, Operation.CREATE, Operation.ADOPT):
        concerned = [each for each in changes if each.operation is operation]
        if operation in {Operation.REPLACE, Operation.UPDATE}:
            items = [_in_full(each, ink) for each in sorted(concerned, key=_by_part(ink))]
        else:
            items = list(_by_name(concerned, ink))
        if items:
            yield _Section(operation.value, items)


def _by_part(ink: Markdown) -> Callable[[Resource], tuple[str, str, str]]:
    return lambda each: (words.heading(each, ink.code), each.kind, each.name)


def _in_full(resource: Resource, ink: Markdown) -> str:
    found = differences(resource.old, resource.new)
    told = words.effect(resource, found)
    head = f"- **{words.heading(resource, ink.code)}**: {resource_name(resource, ink)}{f': {told}' if told else ''}"
    return "\n".join([head, *(f"  - {line}" for line in fields.lines(resource, found, ink))])


def resource_name(resource: Resource, ink: Markdown) -> str:
    """Kind and name, for a reader."""
    return f"{ink.code(resource.kind)} {ink.code(resource.name)}"


def _by_name(concerned: Iterable[Resource], ink: Markdown) -> Iterable[str]:
    """One line a part of the installation, with its kinds and their names."""
    parts: dict[str, dict[str, list[str]]] = {}
    for each in concerned:
        kinds = parts.setdefault(words.heading(each, ink.code), {})
        kinds.setdefault(each.kind, []).append(ink.code(each.name))
    for part, kinds in sorted(parts.items()):
        yield f"- **{part}**: " + "; ".join(
            f"{ink.code(kind)} {', '.join(each)}" for kind, each in sorted(kinds.items())
        )


def _ending(document: Document) -> str:
    unchanged = document.change_summary.get("same", 0)
    return f"Unchanged: {unchanged}. The preview took {document.duration / 1e9:.1f} s.\n\n{_FOOTER}"


_FOOTER: Final = (
    "<sub>Made by <code>pulumi preview --json | nanoclaw-preview</code>; how: docs/pull-requests.md. "
    "Applied by <code>pulumi up</code>.</sub>"
)


def _joined(head: Sequence[str], sections: Iterable[_Section], ending: str) -> str:
    """All of it, or as much as there is room for, and then what was left out."""
    text = "\n\n".join(head)
    room = LONGEST - len(ending) - 300  # for the sentence about the rest
    left_out: list[str] = []
    for section in sections:
        body = f"\n\n#### {section.title.capitalize()}\n"
        shown = 0
        for item in section.items:
            if len(text) + len(body) + len(item) + 1 > room:
                break
            body += f"\n{item}"
            shown += 1
        if shown:
            text += body
        if shown < len(section.items):
            left_out.append(f"{len(section.items) - shown} of {len(section.items)} {section.title}")
    if left_out:
        text += f"\n\n**Left out, because a comment has at most {LONGEST} characters: {', '.join(left_out)}.**"
    return f"{text}\n\n{ending}\n"
