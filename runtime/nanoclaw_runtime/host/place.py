"""The folders and secrets of a Docker host: its tree, the token of its API, the agents' credentials.

A place belongs to one process at a time: two controllers on one tree would each start agents.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nanoclaw_runtime.contract import layout, wire
from nanoclaw_runtime.domain.errors import SettingsInvalid

TOKEN_FILE: Final = "api-token"  # noqa: S105
LOCK_FILE: Final = "host.lock"

FOLDERS: Final = ("groups", layout.GLOBAL_DIR, "data/ipc", "data/sessions", layout.PROJECT_DIR, layout.STORE_DIR)


@dataclass(frozen=True)
class HostPlace:
    """One tree and where its secrets come from."""

    tree: Path
    """Absolute, without links."""
    credentials_dir: Path | None
    """One file a key; the environment when it is None."""
    environ: Mapping[str, str]

    @property
    def token_file(self) -> Path:
        return self.tree / layout.STORE_DIR / TOKEN_FILE

    @property
    def database_url(self) -> str:
        return f"sqlite+aiosqlite:///{self.tree / layout.STORE_DIR / layout.DATABASE_FILE}"

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Make the folders and the token where they are missing, and keep every other controller out.

        Raises SettingsInvalid when that cannot be done, or another controller works here.
        """
        try:
            for folder in FOLDERS:
                (self.tree / folder).mkdir(parents=True, exist_ok=True)
            (self.tree / layout.STORE_DIR).chmod(0o700)  # conversations and the token
            _make_token(self.token_file)
            lock = os.open(self.tree / layout.STORE_DIR / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SettingsInvalid(f"the tree {self.tree} cannot be used ({error}); name another with --tree") from error
        try:
            _lock(lock, self.tree)
            yield
        finally:
            os.close(lock)

    def api_token(self) -> str:
        """The token the API asks for, as it is now. Raises SettingsInvalid when there is none."""
        if token := _secret(self.token_file):
            return token
        raise SettingsInvalid(f"{self.token_file} has no token; remove it, and the next start makes one")

    def credentials(self) -> dict[str, str]:
        """What agents get as `secrets`, as it is now. Raises SettingsInvalid for a file that cannot be read."""
        return {key: value for key in wire.SECRET_KEYS if (value := self._credential(key))}

    def channel_secret(self, key: str) -> str | None:
        """A secret the controller keeps for itself; one of `wire.CHANNEL_SECRET_KEYS`."""
        return self._credential(key)

    def _credential(self, key: str) -> str | None:
        if self.credentials_dir is None:
            return self.environ.get(key) or None
        return _secret(self.credentials_dir / key)


def _make_token(file: Path) -> None:
    with contextlib.suppress(FileExistsError):
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as created:
            created.write(f"{secrets.token_urlsafe(32)}\n")


def _lock(lock: int, tree: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.pread(lock, 32, 0).decode(errors="replace").strip()
        raise SettingsInvalid(
            f"another `nanoclaw host` (process {owner or 'unknown'}) works on {tree}; stop it first"
        ) from None
    os.truncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)


def _secret(file: Path) -> str | None:
    """The content without the line end editors leave behind; None when the file is missing."""
    try:
        return file.read_text().strip() or None
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsInvalid(f"{file} cannot be read as text ({error}); correct it") from error
