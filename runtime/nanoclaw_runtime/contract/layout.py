"""Where each volume appears: in the controller one NanoClaw-shaped tree, in an agent the v1 mounts.

The controller sees the same paths in every layout, and the Docker runtime bind-mounts from the
same tree, so code outside this module never asks which layout is in use.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from nanoclaw_runtime.contract import names, wire
from nanoclaw_runtime.contract.claims import Layout

TREE: Final = PurePosixPath("/nanoclaw")
"""Root of the tree in the controller's pod."""

STORE_DIR: Final = "store"
GLOBAL_DIR: Final = "groups/global"
PROJECT_DIR: Final = "project"

DATABASE_FILE: Final = "controller.db"


def group_dir(folder: str) -> str:
    """A group's working directory, relative to the tree."""
    return f"groups/{folder}"


def ipc_dir(folder: str) -> str:
    return f"data/ipc/{folder}"


SESSION_INPUTS: Final = "inputs"
"""Below a group's `ipc` folder: one folder a session, which its agent sees as `input/`."""


def session_input_dir(folder: str, session: str) -> str:
    """What the agent of one session reads follow-ups from; of no other session."""
    return f"{ipc_dir(folder)}/{SESSION_INPUTS}/{session}"


def sessions_dir(folder: str) -> str:
    return f"data/sessions/{folder}/.claude"


@dataclass(frozen=True)
class Mount:
    """A claim, or a folder of it, at a path of a container."""

    claim: str
    path: str
    sub_path: str | None = None
    read_only: bool = False


def agent_mounts(layout: Layout, folder: str, session: str) -> tuple[Mount, ...]:
    """What the agent of a session sees, as NanoClaw v1 mounts it; the project only for main, global for the others.

    Follow-ups come from a folder of the session's own, so that those of another never reach it.
    """

    def at(claim: str, directory: str, path: str, *, inside: str = "", read_only: bool = False) -> Mount:
        if layout is Layout.SHARED:
            return Mount(names.DATA_CLAIM, path, f"{directory}/{inside}" if inside else directory, read_only)
        return Mount(claim, path, inside or None, read_only)

    if folder == names.MAIN_FOLDER:
        role = at(names.PROJECT_CLAIM, PROJECT_DIR, "/workspace/project", read_only=True)
    else:
        role = at(names.GLOBAL_CLAIM, GLOBAL_DIR, "/workspace/global", read_only=True)
    return (
        at(names.group_claim(folder), group_dir(folder), "/workspace/group"),
        at(names.ipc_claim(folder), ipc_dir(folder), "/workspace/ipc"),
        at(
            names.ipc_claim(folder),
            ipc_dir(folder),
            f"/workspace/ipc/{wire.INPUT_DIR}",
            inside=f"{SESSION_INPUTS}/{session}",
        ),
        at(names.sessions_claim(folder), sessions_dir(folder), f"{wire.AGENT_HOME}/.claude"),
        role,
    )


def controller_mounts(layout: Layout, folders: Iterable[str]) -> tuple[Mount, ...]:
    """What the controller mounts so that the whole tree is below `TREE`; order is stable."""
    store = Mount(names.STORE_CLAIM, str(TREE / STORE_DIR))
    if layout is Layout.SHARED:
        return (Mount(names.DATA_CLAIM, str(TREE)), store)
    mounts = [
        store,
        Mount(names.PROJECT_CLAIM, str(TREE / PROJECT_DIR)),
        Mount(names.GLOBAL_CLAIM, str(TREE / GLOBAL_DIR)),
    ]
    for folder in sorted(folders):
        mounts += [
            Mount(names.group_claim(folder), str(TREE / group_dir(folder))),
            Mount(names.ipc_claim(folder), str(TREE / ipc_dir(folder))),
            Mount(names.sessions_claim(folder), str(TREE / sessions_dir(folder))),
        ]
    return tuple(mounts)
