"""Where the agent finds things, and how slow it pretends to be. Nothing here changes what it says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

EXIT_DELAY = 0.4
# Seconds from `_close` to exit; the real agent takes 0.4 when its model process is gone, else 5.4.


@dataclass(frozen=True)
class Settings:
    """Folders and delays; seconds."""

    workspace: Path
    """Holds `group` and `ipc`."""
    home: Path | None
    """None when HOME is not set, which the real agent does not survive either."""
    scratch: Path
    """Where stdin lies for the moment it takes to read it."""
    compile_seconds: float
    """Stdin is not read before; the real image compiles its own source for 3 to 6 seconds."""
    exit_delay: float

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """ECHO_WORKSPACE and TMPDIR are for runs outside a container."""
        home = environment.get("HOME")
        return cls(
            workspace=Path(environment.get("ECHO_WORKSPACE", "/workspace")),
            home=Path(home) if home else None,
            scratch=Path(environment.get("TMPDIR", "/tmp")),  # noqa: S108  the image's contract
            compile_seconds=float(environment.get("ECHO_COMPILE_SECONDS", "0")),
            exit_delay=float(environment.get("ECHO_EXIT_DELAY", EXIT_DELAY)),
        )
