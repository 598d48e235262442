"""Text of unknown origin in a comment: always as code, so that it can be nothing else.

Inside code neither GitHub nor GitLab sees HTML, links, mentions or issue numbers. What could end the
code, turn the reading direction or is invisible is written out.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from typing import Final

LONGEST: Final = 300
"""Characters of one value; a reviewer who needs more reads the stack file."""

_RUN: Final = re.compile(r"`+")


class Markdown:
    """Writes what was cleaned of secrets by `clean`."""

    def __init__(self, clean: Callable[[str], str]) -> None:
        self.clean = clean

    def code(self, text: str, longest: int = LONGEST) -> str:
        """`text` on one line, as code."""
        shown = _cut(_visible(self.clean(text)), longest)
        fence = "`" * (_longest_run(shown) + 1)
        space = " " if shown.startswith(("`", " ")) or shown.endswith(("`", " ")) or not shown else ""
        return f"{fence}{space}{shown}{space}{fence}"

    def block(self, text: str, longest: int, language: str = "text") -> str:
        """`text` with its lines, as a block of code."""
        # Cut at last: what is invisible is written out in six characters, and the comment has to be taken.
        shown = _cut("\n".join(_visible(line) for line in self.clean(text).splitlines()), longest)
        fence = "`" * max(3, _longest_run(shown) + 1)
        return f"{fence}{language}\n{shown}\n{fence}"


def marker(stack: str) -> str:
    """The line nobody sees, by which the comment of a stack is found again."""
    return f"<!-- nanoclaw-preview: {re.sub(r'[^A-Za-z0-9_./-]', '_', stack)[:200]} -->"


def _visible(text: str) -> str:
    return "".join(_shown(character) for character in text)


def _shown(character: str) -> str:
    if character in "\n\r":
        return "⏎"
    if character == "\t":
        return " "
    if unicodedata.category(character) in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}:
        return f"\\u{ord(character):04x}"
    return character


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[:longest]}… ({len(text) - longest} characters more)"


def _longest_run(text: str) -> int:
    return max((len(run) for run in _RUN.findall(text)), default=0)
