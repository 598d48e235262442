"""Cuts a text into pieces a network takes, where a reader would: between paragraphs, lines, words."""

from __future__ import annotations

from typing import Final

_BORDERS: Final = ("\n\n", "\n", " ")


def parts(text: str, limit: int) -> list[str]:
    """Pieces of at most `limit` (from 2) UTF-16 units, none of them blank; only white space at the cuts is left out."""
    found, rest = [], text
    while len(head := _beginning(rest, limit)) < len(rest):
        end, behind = _cut(head)
        found.append(rest[:end])
        rest = rest[behind:]
    return [piece for piece in [*found, rest] if piece.strip()]


def _beginning(text: str, limit: int) -> str:
    """As much of `text` as fits, and no half of a character."""
    return text[:limit].encode("utf-16-le")[: 2 * limit].decode("utf-16-le", "ignore")


def _cut(head: str) -> tuple[int, int]:
    """Where a full piece ends and the next begins: at the best border of its second half."""
    for border in _BORDERS:
        position = head.rfind(border, len(head) // 2)
        if position > 0:
            return position, position + len(border)
    return len(head), len(head)
