"""Outputs of an agent, found in whatever its streams carry.

An output is three lines: start marker, one line of JSON, end marker. On an attached stdout
nothing stands between them; in a pod's log stdout and stderr are merged, so foreign lines may,
and the runtime cuts lines into chunks of 16 KiB, so a foreign line may even stand inside the
JSON. Bytes in, in any chunking; outputs out, in order. Not here: numbering, storing, skipping.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Final

from pydantic import ValidationError

from nanoclaw_runtime.contract.wire import OUTPUT_END, OUTPUT_START, ContainerOutput

CHUNK: Final = 16 * 1024
"""Bytes after which containerd and CRI-O cut a line of a container's log."""

MOST_PENDING: Final = 16 * 1024 * 1024
"""Bytes kept of one unfinished output; more than that is no answer for a chat and is dropped."""

LINE_COST: Final = 64
"""Bytes a line counts beyond its own: an agent that prints empty ones for ever costs memory, too."""

MOST_WORK: Final = 4 * MOST_PENDING
"""Bytes looked at to put one output together; an agent can make lines that fit in ever new ways."""

LOOK_COST: Final = 1024
"""Bytes that one look counts beyond what it is at."""

MOST_MENDED: Final = 1024 * 1024
"""Bytes of an output whose characters are mended: nested deep in Python's objects, it is a hundred times larger."""

_START: Final = OUTPUT_START.encode()
_END: Final = OUTPUT_END.encode()


class MarkerParser:
    """Line-based state machine. Feed it bytes; it forgets what it has returned."""

    def __init__(self) -> None:
        self._partial = bytearray()
        self._inside: list[bytes] | None = None
        self._found: ContainerOutput | None = None
        self._kept = 0
        self.dropped = 0
        """Outputs that were opened and closed but could not be read."""

    def feed(self, data: bytes) -> list[ContainerOutput]:
        """The outputs that `data` completes."""
        self._partial += data
        if b"\n" not in data:
            self._bound_partial()
            return []
        *lines, rest = bytes(self._partial).split(b"\n")
        self._partial = bytearray(rest)
        found = [output for line in lines if (output := self._line(line)) is not None]
        self._bound_partial()  # only now it is known whether the rest is part of an output
        return found

    def close(self) -> list[ContainerOutput]:
        """The output whose last line came without a newline, if any."""
        rest, self._partial = bytes(self._partial), bytearray()
        output = self._line(rest) if rest else None
        return [output] if output is not None else []

    def _bound_partial(self) -> None:
        limit = len(_START) if self._inside is None else MOST_PENDING
        if len(self._partial) > max(limit, CHUNK):
            del self._partial[:-limit]

    def _line(self, line: bytes) -> ContainerOutput | None:
        line = line.rstrip(b"\r")
        if line.endswith(_START):
            # A stderr line without a newline may stand before it in a merged log.
            self._inside, self._found, self._kept = [], None, 0
            return None
        if self._inside is None:
            return None
        if line.endswith(_END):
            found = self._found or _repaired(self._inside)
            self._inside, self._found = None, None
            self.dropped += found is None
            return found
        if self._found is None:
            self._found = _parsed(line)
        if self._found is None and self._kept < MOST_PENDING:
            self._inside.append(line)
            self._kept += len(line) + LINE_COST
        return None


def _parsed(line: bytes) -> ContainerOutput | None:
    text = line.strip()
    if not (text.startswith(b"{") and text.endswith(b"}")):
        return None
    try:
        return ContainerOutput.model_validate_json(text)
    except ValidationError:
        if len(text) > MOST_MENDED:
            return None
    try:  # JavaScript may write half a surrogate pair, which strict UTF-8 parsers refuse
        value = json.loads(text.decode(errors="replace"))
        return ContainerOutput.model_validate(_without_lone_surrogates(value))
    except (ValueError, RecursionError):
        return None


def _without_lone_surrogates(value: dict[str, object]) -> dict[str, object]:
    return {
        key: item.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if isinstance(item, str) else item
        for key, item in value.items()
    }


def _repaired(lines: Sequence[bytes]) -> ContainerOutput | None:
    """The JSON among lines of which none is JSON: foreign text stands in front of it or at a chunk's end."""
    return next((output for text in _candidates(lines) if (output := _parsed(text)) is not None), None)


def _candidates(lines: Sequence[bytes]) -> Iterator[bytes]:
    """What may be the JSON, with foreign text taken out, as far as `MOST_WORK` reaches."""
    work = 0
    for number, first in enumerate(lines):
        start = first.find(b'{"')
        if start < 0:
            continue
        text = bytearray()
        for following in range(number, len(lines)):
            text += lines[following] if following > number else first[start:]
            whole = text.endswith(b"}")
            work += LOOK_COST + (len(text) if whole else len(lines[following]))
            if work > MOST_WORK:
                return
            if whole:
                yield bytes(text)
            # JSON has no raw newline, so each newline ends foreign text that began where a chunk ended.
            boundary = len(text) // CHUNK * CHUNK
            if not boundary:
                break
            del text[boundary:]
