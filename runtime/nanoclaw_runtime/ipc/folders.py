"""The folders a group's agent mounts, and what NanoClaw puts into them before each start.

Where claims are shared, the kubelet would make a missing folder itself, as root and without the
group's rights. Below the folders of a group everything may be the agent's doing, so no link is
followed there. NanoClaw's copy of the runner's source is left out: the image has its own.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Final

import structlog

from nanoclaw_runtime.contract import layout
from nanoclaw_runtime.ipc.descriptors import make_folder, opened_folder, replace_file
from nanoclaw_runtime.ipc.skills import copy_skills

_log = structlog.get_logger(__name__)

SETTINGS_FILE: Final = "settings.json"
SETTINGS: Final = {
    "env": {
        "CLAUDE_CODE_EXPERIMENTAL_AGENT_TEAMS": "1",
        "CLAUDE_CODE_ADDITIONAL_DIRECTORIES_CLAUDE_MD": "1",
        "CLAUDE_CODE_DISABLE_AUTO_MEMORY": "0",
    }
}
"""What Claude Code is told where a group has no settings yet; an agent may change them."""


def make_group_folders(tree: Path, folder: str) -> None:
    """Make what agents of the group mount; the mailbox makes its own. Raises OSError.

    An agent starts without settings or skills that cannot be written, on a full volume for instance.
    """
    project = tree / layout.PROJECT_DIR
    for directory in (tree / layout.ipc_dir(folder), tree / layout.GLOBAL_DIR, project):
        directory.mkdir(parents=True, exist_ok=True)
    group, sessions = tree / layout.group_dir(folder), tree / layout.sessions_dir(folder)
    furnish(group, sessions, project=project, stamp=tree / layout.STORE_DIR / "skills" / folder)


def furnish(group: Path, sessions: Path, *, project: Path, stamp: Path) -> None:
    """As `make_group_folders`, of a group whose folders are anywhere; the file `stamp` is ours alone."""
    for directory in (group, sessions):
        directory.mkdir(parents=True, exist_ok=True)
    with opened_folder(group) as here:
        make_folder("logs", here)
    try:
        _write_settings(sessions)
        copy_skills(project, sessions, stamp)
    except OSError as error:
        _log.warning("group.not-prepared", group=stamp.name, reason=str(error), remedy="look at the group's volume")


def real_path(path: str) -> str | None:
    """The real path behind one on this host, `~` expanded and links followed; None when there is nothing."""
    try:
        return os.path.realpath(os.path.expanduser(path), strict=True)
    except (OSError, ValueError):
        return None


def _write_settings(sessions: Path) -> None:
    with opened_folder(sessions) as here:
        try:
            os.stat(SETTINGS_FILE, dir_fd=here, follow_symlinks=False)
        except FileNotFoundError:
            replace_file(here, SETTINGS_FILE, (json.dumps(SETTINGS, indent=2) + "\n").encode())
