"""Stores of tests, on copies of a database that was made once: making its tables takes longer than most tests."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from nanoclaw_runtime.store.store import Store

_made: list[bytes] = []
"""The file of a database with all its tables and nothing in them."""


async def opened(folder: Path, **more: Any) -> Store:
    """The store of a folder, as it was left there or new; `more` is for `Store.open`."""
    path = folder / "controller.db"
    if not path.exists():
        _put(path, await _new())
    return await Store.open(url(path), **more)


def url(path: Path) -> str:
    """As the settings name a database."""
    return f"sqlite+aiosqlite:///{path}"


def _put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


async def _new() -> bytes:
    if not _made:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "controller.db"
            store = await Store.open(url(path))
            await store.close()
            _made.append(path.read_bytes())
    return _made[0]
