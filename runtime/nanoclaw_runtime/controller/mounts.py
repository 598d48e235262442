"""The additional mounts of a session that is about to start: those its group may have, with a warning for each other.

What may be mounted is decided in `contract.mounts`; here is only who asks it, and the log.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import structlog

from nanoclaw_runtime.contract.config import ControllerConfig, GroupSpec
from nanoclaw_runtime.contract.mounts import ExtraMount, judge
from nanoclaw_runtime.ipc.folders import real_path

_log = structlog.get_logger(__name__)


def permitted_mounts(config: ControllerConfig, tree: Path) -> Callable[[GroupSpec], tuple[ExtraMount, ...]]:
    """What of a group's additional mounts its next session gets. On a Docker host each call looks at the files."""
    own = str(tree.resolve())

    def permitted(group: GroupSpec) -> tuple[ExtraMount, ...]:
        judged = judge(group, config.mount_allowlist, pattern=config.pattern, resolve=real_path, tree=own)
        for refused in judged.refused:
            _log.warning("mount.refused", group=group.folder, position=refused.position, reason=refused.reason)
        return judged.accepted

    return permitted
