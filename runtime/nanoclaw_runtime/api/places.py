"""Where the other members are, as whoever passes something on to one has to know it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

UNSEEN: Final = 30.0
"""Seconds after which a silent member is not merely slow."""


@dataclass(frozen=True)
class Place:
    """A member as it is reached."""

    node: str
    address: str
    """Host and port; empty when nobody knows."""
    silent: float
    """Seconds without a sign of life."""

    @property
    def unseen(self) -> bool:
        """Whether it has been silent for long enough to be worth a word."""
        return self.silent >= UNSEEN

    @property
    def quiet(self) -> str:
        """For how long it has been silent, as people say it."""
        if self.silent < 90:
            return f"{self.silent:.0f} s"
        return f"{self.silent / 60:.0f} min" if self.silent < 5400 else f"{self.silent / 3600:.0f} h"

    @property
    def trouble(self) -> str:
        """What there is to say when it does not answer."""
        if not self.unseen:
            return f"node {self.node!r}, whose controller does not answer"
        return f"node {self.node!r}, which has not been seen for {self.quiet}"


class Elsewhere(Protocol):
    """What the API has to know of the other members."""

    @property
    def node(self) -> str:
        """Our own."""
        ...

    def place(self, folder: str) -> Place | None:
        """Where a group is that another member has; None when it is here, or there is no such group."""
        ...

    def waits(self, folder: str) -> str | None:
        """Why a group of the stack is nowhere at the moment; None when it is somewhere."""
        ...

    def others(self) -> Sequence[Place]:
        """Every other member that is not known to be gone, and those that groups are with."""
        ...
