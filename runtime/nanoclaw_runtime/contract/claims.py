"""The claims of an installation: which exist, and what each is for.

Sizes, classes and access modes are the stack's choice; here is only what must agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from nanoclaw_runtime.contract import labels, names


class Layout(StrEnum):
    """How the volumes of the groups are cut into claims."""

    PER_TYPE = "per-type"
    """Three claims a group: group, ipc, sessions. A new group changes the controller's pod."""
    PER_GROUP = "per-group"
    """One claim a group with a folder for each type: one volume to attach, so a quick start on block storage."""
    SHARED = "shared"
    """One ReadWriteMany claim with a folder for each. New groups need no new claim."""


class Purpose(StrEnum):
    """What a claim holds; the stack sizes claims by it."""

    GROUP = "group"
    """A group's own files, and its memory."""
    IPC = "ipc"
    """What passes between a group's agent and the controller; files of moments."""
    SESSIONS = "sessions"
    """A group's conversations, as the agent keeps them."""
    FOLDER = "folder"
    """All three of a group, in the layout `per-group`."""
    PROJECT = "project"
    """What main's agent sees of the project; can be pushed again."""
    GLOBAL = "global"
    """The memory all groups share."""
    STORE = "store"
    """The controller's database."""
    USAGE = "usage"
    """What groups used of the model, counted by the gateway."""
    DATA = "data"
    """Everything but the databases, in the layout `shared`."""


@dataclass(frozen=True)
class Claim:
    """One PersistentVolumeClaim that has to exist."""

    name: str
    purpose: Purpose
    folder: str | None = None
    """The group it belongs to; None for the installation's own."""
    precious: bool = True
    """Holds what cannot be made again: conversations, the groups' files, the database."""


def group_claims(layout: Layout, folder: str) -> tuple[Claim, ...]:
    """The claims that come and go with one group."""
    if layout is Layout.SHARED:
        return ()
    if layout is Layout.PER_GROUP:
        return (Claim(names.folder_claim(folder), Purpose.FOLDER, folder),)
    return (
        Claim(names.group_claim(folder), Purpose.GROUP, folder),
        Claim(names.ipc_claim(folder), Purpose.IPC, folder),
        Claim(names.sessions_claim(folder), Purpose.SESSIONS, folder),
    )


def installation_claims(layout: Layout) -> tuple[Claim, ...]:
    """The claims every installation has, whatever its groups."""
    store = Claim(names.STORE_CLAIM, Purpose.STORE)
    if layout is Layout.SHARED:
        return (store, Claim(names.DATA_CLAIM, Purpose.DATA))
    return (
        store,
        Claim(names.PROJECT_CLAIM, Purpose.PROJECT, precious=False),
        Claim(names.GLOBAL_CLAIM, Purpose.GLOBAL),
    )


def gateway_claims() -> tuple[Claim, ...]:
    """The claims of the model gateway, where there is one."""
    return (Claim(names.GATEWAY, Purpose.USAGE, precious=False),)


def claim_labels(claim: Claim) -> dict[str, str]:
    """The labels of a claim, whoever makes it."""
    ours = labels.component(labels.STORAGE)
    return ours if claim.folder is None else ours | labels.group(claim.folder)


def claim_annotations(claim: Claim) -> dict[str, str]:
    return {} if claim.folder is None else {labels.FOLDER: claim.folder}
