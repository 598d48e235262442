"""Lines out of a byte stream in any chunking, without a limit on their length.

A watch event of a large object exceeds what aiohttp's `readline` takes; and joining a buffer at
every chunk would cost quadratic time.
"""

from __future__ import annotations


class LineSplitter:
    """Feed it chunks; what follows the last newline stays until its own newline comes."""

    def __init__(self) -> None:
        self._partial: list[bytes] = []

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that `data` completes, without their newlines; empty lines are left out."""
        first, *others = data.split(b"\n")
        self._partial.append(first)
        if not others:
            return []
        lines = [b"".join(self._partial), *others[:-1]]
        self._partial = [others[-1]]
        return [line for line in lines if line.strip()]
