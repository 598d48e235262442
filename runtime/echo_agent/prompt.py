"""Prompts: NanoClaw's block of messages, or plain text."""

from __future__ import annotations

import re
from html import unescape

_MESSAGE = re.compile(r"<message\b[^>]*>(.*?)</message>", re.DOTALL)
_MENTION = re.compile(r"^@\S+\s+")


def messages(prompt: str) -> list[str]:
    """The texts in a prompt, oldest first, unescaped and without the word that called the assistant."""
    found = [unescape(text) for text in _MESSAGE.findall(prompt)]
    # Follow-ups that waited before the start are appended, each a block of its own or plain text.
    rest = _MESSAGE.sub("", prompt).replace("<messages>", "").replace("</messages>", "").strip()
    return [_MENTION.sub("", text.strip()) for text in [*found, *([rest] if rest else [])]]
