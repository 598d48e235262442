"""Where things lie: the checkout, and the cache that outlives it."""

import os
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
TOOLS = CHECKOUT / "tools"


def _cache() -> Path:
    if chosen := os.environ.get("NANOCLAW_CACHE"):
        return Path(chosen).expanduser().resolve()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser().resolve() / "nanoclaw"


CACHE = _cache()
"""Binaries, base images and downloads; keyed by content, shared by every checkout of a user."""
