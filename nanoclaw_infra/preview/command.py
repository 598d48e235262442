"""`nanoclaw-preview [FILE]`: from the engine's JSON to a comment on standard output, and an exit status."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from nanoclaw_infra.preview.comment import Comment, comment, unusable
from nanoclaw_infra.preview.document import LARGEST, Unusable, parse, read
from nanoclaw_infra.preview.markdown import Markdown
from nanoclaw_infra.preview.secrecy import Secrecy

_UNKNOWN = "unknown"
# Of a stack nobody named, whose preview names none either.


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    given = _parser().parse_args(arguments)
    made = review(_text(given.file), stack=given.stack, log=_text(given.log) if given.log else "")
    if given.output is None:
        sys.stdout.buffer.write(made.text.encode())
    else:
        given.output.write_text(made.text, encoding="utf-8")
    return made.status


def review(text: str, *, stack: str | None = None, log: str = "") -> Comment:
    """The comment on what `pulumi preview --json` printed; `log` is what it wrote beside. Never raises."""
    secrecy = Secrecy()
    ink = Markdown(secrecy.clean)
    try:
        document = read(secrecy.without_secrets(parse(text)))
        return comment(document, stack or document.stack or _UNKNOWN, ink)
    except Unusable as problem:
        reason = f"{problem} ({ink.code(problem.found)})" if problem.found else str(problem)
        return unusable(stack or _UNKNOWN, reason, log, ink)
    except RecursionError:
        return unusable(stack or _UNKNOWN, "The preview is nested too deeply to be one of this program.", log, ink)


def _text(file: Path | None) -> str:
    """What is in a file, or on standard input; nothing where there is no file, as after an engine that never ran."""
    if file is None:
        return sys.stdin.buffer.read(LARGEST + 1).decode(errors="replace")
    try:
        with file.open("rb") as opened:
            return opened.read(LARGEST + 1).decode(errors="replace")
    except OSError:
        return ""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nanoclaw-preview",
        description="Write a review comment in Markdown from what `pulumi preview --json` printed.",
        epilog="Exit status: 0 fine; 1 data would be lost without a permission in the stack "
        "(nanoclaw:settings.allowDataLoss: [Kind/name]); 2 no usable preview. The comment is written in every case.",
    )
    parser.add_argument("file", nargs="?", type=Path, help="the JSON; standard input when left out")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="where the comment goes; standard output when left out"
    )
    parser.add_argument("--stack", metavar="NAME", help="the stack's name, for a preview that failed before it told")
    parser.add_argument(
        "--log", type=Path, metavar="FILE", help="the engine's standard error, shown where the JSON is empty"
    )
    return parser
