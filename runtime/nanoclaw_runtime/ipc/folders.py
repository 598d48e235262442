"""The folders a group's agent mounts, made before its pod is.

Where claims are shared, the kubelet would make a missing one itself, as root and without the
group's rights. Existing folders are left as they are.
"""

from __future__ import annotations

from pathlib import Path

from nanoclaw_runtime.contract import layout


def make_group_folders(tree: Path, folder: str) -> None:
    """Make what agents of the group mount; the mailbox makes its own. Raises OSError."""
    for directory in (
        f"{layout.group_dir(folder)}/logs",
        layout.sessions_dir(folder),
        layout.ipc_dir(folder),
        layout.GLOBAL_DIR,
        layout.PROJECT_DIR,
    ):
        (tree / directory).mkdir(parents=True, exist_ok=True)
