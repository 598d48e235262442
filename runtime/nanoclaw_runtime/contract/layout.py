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
from nanoclaw_runtime.contract.claims import Layout, Purpose
from nanoclaw_runtime.contract.config import Transport

TREE: Final = PurePosixPath("/nanoclaw")
"""Root of the tree in the controller's pod."""

STORE_DIR: Final = "store"
GLOBAL_DIR: Final = "groups/global"
PROJECT_DIR: Final = "project"

BRIDGED_DIR: Final = "data"
"""With the transport `bridge`: folder of the tree, and of the store claim, with what is on its way."""
DATABASE_FILE: Final = "controller.db"


def group_dir(folder: str) -> str:
    """A group's working directory, relative to the tree."""
    return f"groups/{folder}"


def ipc_dir(folder: str) -> str:
    return f"data/ipc/{folder}"


GROUP_PURPOSES: Final = (Purpose.GROUP, Purpose.IPC, Purpose.SESSIONS)
"""What a group has; folders of its claim in the layout `per-group`."""

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


def agent_mounts(
    layout: Layout, folder: str, session: str, transport: Transport = Transport.VOLUME
) -> tuple[Mount, ...]:
    """What the agent of a session sees, as NanoClaw v1 mounts it; the project only for main, global for the others.

    Follow-ups come from a folder of the session's own, so that those of another never reach it. With the transport
    `bridge` the claims are those of the group alone: project and global are carried into its pod.
    """
    group, ipc, sessions = _places(layout, folder)
    own = (
        Mount(*group.at("/workspace/group")),
        Mount(*ipc.at("/workspace/ipc")),
        Mount(*ipc.below(f"{SESSION_INPUTS}/{session}").at(f"/workspace/ipc/{wire.INPUT_DIR}")),
        Mount(*sessions.at(f"{wire.AGENT_HOME}/.claude")),
    )
    if transport is Transport.BRIDGE:
        return own
    if folder == names.MAIN_FOLDER:
        role = Mount(*_own(layout, names.PROJECT_CLAIM, PROJECT_DIR).at("/workspace/project"), read_only=True)
    else:
        role = Mount(*_own(layout, names.GLOBAL_CLAIM, GLOBAL_DIR).at("/workspace/global"), read_only=True)
    return (*own, role)


@dataclass(frozen=True)
class _Place:
    """A claim, or a folder of it."""

    claim: str
    folder: str | None = None

    def below(self, inside: str) -> _Place:
        return _Place(self.claim, inside if self.folder is None else f"{self.folder}/{inside}")

    def at(self, path: str) -> tuple[str, str, str | None]:
        return self.claim, path, self.folder


def _places(layout: Layout, folder: str) -> tuple[_Place, _Place, _Place]:
    """Where a group's own files, its mailbox and its agent's memory are."""
    if layout is Layout.SHARED:
        directories = (group_dir(folder), ipc_dir(folder), sessions_dir(folder))
        group, ipc, sessions = (_Place(names.DATA_CLAIM, directory) for directory in directories)
        return group, ipc, sessions
    if layout is Layout.PER_GROUP:
        group, ipc, sessions = (_Place(names.folder_claim(folder), purpose.value) for purpose in GROUP_PURPOSES)
        return group, ipc, sessions
    return _Place(names.group_claim(folder)), _Place(names.ipc_claim(folder)), _Place(names.sessions_claim(folder))


def _own(layout: Layout, claim: str, directory: str) -> _Place:
    """Where something of the installation's own is."""
    return _Place(names.DATA_CLAIM, directory) if layout is Layout.SHARED else _Place(claim)


def controller_mounts(
    layout: Layout, folders: Iterable[str], transport: Transport = Transport.VOLUME
) -> tuple[Mount, ...]:
    """What the controller mounts so that the whole tree is below `TREE`; order is stable.

    With the transport `bridge` that is only what is the installation's own: of the groups, the tree then has only what
    is on its way, on the store's claim.
    """
    store = Mount(names.STORE_CLAIM, str(TREE / STORE_DIR))
    if layout is Layout.SHARED:
        return (Mount(names.DATA_CLAIM, str(TREE)), store)
    mounts = [
        store,
        Mount(names.PROJECT_CLAIM, str(TREE / PROJECT_DIR)),
        Mount(names.GLOBAL_CLAIM, str(TREE / GLOBAL_DIR)),
    ]
    if transport is Transport.BRIDGE:
        return (*mounts, Mount(names.STORE_CLAIM, str(TREE / BRIDGED_DIR), sub_path=BRIDGED_DIR))
    for folder in sorted(folders):
        directories = (group_dir(folder), ipc_dir(folder), sessions_dir(folder))
        places = _places(layout, folder)
        mounts += [
            Mount(*place.at(str(TREE / directory))) for place, directory in zip(places, directories, strict=True)
        ]
    return tuple(mounts)
