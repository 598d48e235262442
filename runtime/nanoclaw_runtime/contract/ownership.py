"""Giving volumes to the user of our pods, where the storage driver does not: one command, and the rights it takes.

Both packages make the container of it, each for its own pods. Only where the stack says `runtime.fixPermissions`: the
container is root, which Pod Security `restricted` and OpenShift refuse.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

NAME: Final = "fix-permissions"
"""The init container."""

UID: Final = 1000
"""Who agents and the controller are on Kubernetes."""

CAPABILITIES: Final = ("CHOWN", "DAC_OVERRIDE")
"""To give away what is others', and to look into what only they may read."""

_SCRIPT: Final = f'exec find "$@" -xdev ! -user {UID} -exec chown -h {UID}:{UID} {{}} +'
# What has the right owner is only looked at; links are given away themselves, and other volumes are not entered.


def command(paths: Sequence[str]) -> list[str]:
    """Gives everything below these mounts to `UID`. POSIX, for any image with `find` and `chown`."""
    return ["sh", "-c", _SCRIPT, NAME, *paths]
