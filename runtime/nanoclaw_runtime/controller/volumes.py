"""Where the folders of groups that are added at run time come from, and nothing about who adds them.

On a cluster that gives each group claims of its own it is `kube.registration`.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol


class GroupVolumes(Protocol):
    """Where the folders of groups that are added come from."""

    async def provide(self, folder: str) -> None:
        """Make the group's storage; what it had before is taken again. Raises RegistrationRefused."""
        ...

    async def mount(self, folders: Collection[str]) -> None:
        """Have the storage of exactly these groups here; this process may be replaced for it. Raises NanoclawError."""
        ...

    async def mounted(self, folder: str) -> bool: ...


class OneTree:
    """All groups are folders of one tree, made at their first session: nothing to do."""

    async def provide(self, folder: str) -> None:
        """Nothing."""

    async def mount(self, folders: Collection[str]) -> None:
        """Nothing."""

    async def mounted(self, folder: str) -> bool:  # noqa: ARG002
        return True
