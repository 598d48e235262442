"""What of a NanoClaw project folder main's agent may see, decided by path alone.

NanoClaw mounts the whole project into main's container, with `.env`, the database and the chat network's keys in it.
Here only what passes this filter ever reaches the project volume. Not here: reading and sending the files.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Final

from nanoclaw_runtime.contract.mounts import ALWAYS_BLOCKED

_HOST_FOLDERS: Final = frozenset({"store", "data"})
"""At the top of the project: the database, keys of chat networks, sessions, requests of agents."""
_UNWANTED: Final = frozenset({"logs", ".git", "node_modules"})
_SUFFIXES: Final = (".pem", ".key", ".p12", ".pfx", ".ppk", ".jks", ".kdbx", ".db", ".sqlite", ".sqlite3")
"""Keys, and databases wherever they lie."""
_BEHIND: Final = ("-wal", "-shm", "-journal", ".bak")
"""What a database has beside it, and what editors and people make of a file before they change it."""
_KEY_PREFIX: Final = "id_"


def wanted(path: str) -> bool:
    """Whether a file or folder of the project is sent along; `path` is relative to the project, with `/`.

    Letters' case never matters, because it does not on every host. What leaves the project is not wanted.
    """
    parts = PurePosixPath(path.lower()).parts
    if not parts or path.startswith("/") or ".." in parts or "\0" in path:
        return False
    return parts[0] not in _HOST_FOLDERS and not any(_secret_or_ballast(part) for part in parts)


def _secret_or_ballast(name: str) -> bool:
    for behind in _BEHIND:
        name = name.removesuffix(behind)
    return (
        name in _UNWANTED
        or name.startswith(_KEY_PREFIX)
        or name.endswith(_SUFFIXES)
        or any(word in name for word in ALWAYS_BLOCKED)
    )
