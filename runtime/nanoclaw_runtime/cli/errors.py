"""What a command tells instead of its result."""

from __future__ import annotations

from typing import Final

from nanoclaw_runtime.domain.errors import NanoclawError

UNAVAILABLE: Final = 503
"""The status of a controller that cannot serve us now, or cannot for the one of another node."""


class CommandFailed(NanoclawError):
    """One sentence for the person at the terminal; the exit status is 1."""


class NotReachable(CommandFailed):
    """The controller, or the way to it, does not answer."""


class Away(NotReachable):
    """It does not answer now, and may in a moment: it is being replaced, or the network blinked."""


class Refused(CommandFailed):
    """The controller answered with a problem document."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
