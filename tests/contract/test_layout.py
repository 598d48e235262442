"""Every mount finds its claim, and both sides see the same files."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from nanoclaw_runtime.contract import names
from nanoclaw_runtime.contract.claims import Layout, Purpose, group_claims, installation_claims
from nanoclaw_runtime.contract.layout import (
    TREE,
    Mount,
    agent_mounts,
    controller_mounts,
    group_dir,
    ipc_dir,
    session_input_dir,
)

FOLDERS = ["main", "family", "Team_42"]
layouts = pytest.mark.parametrize("layout", list(Layout))
folders = pytest.mark.parametrize("folder", FOLDERS)


def declared(layout: Layout, *some: str) -> set[str]:
    claims = [*installation_claims(layout)]
    for folder in some:
        claims += group_claims(layout, folder)
    return {claim.name for claim in claims}


def place(mounts: tuple[Mount, ...], path: str) -> tuple[str, PurePosixPath]:
    """The claim behind a path, and the path within that claim."""
    behind = [mount for mount in mounts if PurePosixPath(path).is_relative_to(mount.path)]
    mount = max(behind, key=lambda mount: len(mount.path))
    return mount.claim, PurePosixPath(mount.sub_path or "") / PurePosixPath(path).relative_to(mount.path)


@layouts
@folders
def test_an_agent_mounts_only_declared_claims_of_its_own_group(layout, folder):
    assert {mount.claim for mount in agent_mounts(layout, folder, "s1")} <= declared(layout, folder)


@layouts
def test_the_controller_mounts_exactly_the_declared_claims(layout):
    assert {mount.claim for mount in controller_mounts(layout, FOLDERS)} == declared(layout, *FOLDERS)


@layouts
@folders
def test_controller_and_agent_see_the_same_files(layout, folder):
    agent = agent_mounts(layout, folder, "s1")
    controller = controller_mounts(layout, FOLDERS)
    pairs = {
        "/workspace/group": group_dir(folder),
        "/workspace/ipc": ipc_dir(folder),
        "/workspace/ipc/input": session_input_dir(folder, "s1"),
        "/home/node/.claude": f"data/sessions/{folder}/.claude",
    }
    for inside, in_tree in pairs.items():
        assert place(agent, f"{inside}/file") == place(controller, str(TREE / in_tree / "file"))


@layouts
@folders
def test_no_mount_hides_another(layout, folder):
    for mounts in (agent_mounts(layout, folder, "s1"), controller_mounts(layout, FOLDERS)):
        paths = [mount.path for mount in mounts]
        assert len(set(paths)) == len(paths)
    inside = [PurePosixPath(mount.path) for mount in agent_mounts(layout, folder, "s1")]
    nested = [one for one in inside for other in inside if one != other and one.is_relative_to(other)]
    assert nested == [PurePosixPath("/workspace/ipc/input")]  # of one session only


EVERYBODY = {
    "/workspace/group": ("groups/{}", "rw"),
    "/workspace/ipc": ("data/ipc/{}", "rw"),
    "/workspace/ipc/input": ("data/ipc/{}/inputs/s1", "rw"),
    "/home/node/.claude": ("data/sessions/{}/.claude", "rw"),
}


@layouts
@pytest.mark.parametrize(
    ("folder", "role"),
    [
        ("main", {"/workspace/project": ("project", "ro")}),
        ("family", {"/workspace/global": ("groups/global", "ro")}),
        ("Main", {"/workspace/global": ("groups/global", "ro")}),
    ],
)
def test_each_role_mounts_what_nanoclaw_mounts_for_it(layout, folder, role):
    controller = controller_mounts(layout, [folder])
    mounts = {mount.path: mount for mount in agent_mounts(layout, folder, "s1")}
    wanted = EVERYBODY | role
    assert {path: "ro" if mount.read_only else "rw" for path, mount in mounts.items()} == {
        path: mode for path, (_, mode) in wanted.items()
    }
    for path, (in_tree, _) in wanted.items():
        assert place(tuple(mounts.values()), path) == place(controller, str(TREE / in_tree.format(folder)))


@layouts
def test_only_main_sees_the_project_and_nobody_may_write_what_is_shared(layout):
    main, other = agent_mounts(layout, "main", "s1"), agent_mounts(layout, "family", "s1")
    shared = {
        mount.path: mount.read_only for mount in main + other if mount.path.split("/")[-1] in {"project", "global"}
    }
    assert shared == {"/workspace/project": True, "/workspace/global": True}
    assert "/workspace/project" not in {mount.path for mount in other}
    assert "/workspace/global" not in {mount.path for mount in main}


@layouts
def test_groups_never_share_a_writable_place(layout):
    seen: dict[tuple[str, str | None], str] = {}
    for folder in FOLDERS:
        for mount in agent_mounts(layout, folder, "s1"):
            if not mount.read_only:
                assert seen.setdefault((mount.claim, mount.sub_path), folder) == folder


def test_the_controllers_mounts_do_not_depend_on_the_order_of_groups():
    assert controller_mounts(Layout.PER_TYPE, FOLDERS) == controller_mounts(Layout.PER_TYPE, FOLDERS[::-1])


def test_a_new_group_changes_nothing_in_the_shared_layout():
    assert controller_mounts(Layout.SHARED, ["main"]) == controller_mounts(Layout.SHARED, FOLDERS)
    assert group_claims(Layout.SHARED, "family") == ()


@layouts
def test_the_database_is_precious(layout):
    (store,) = [claim for claim in installation_claims(layout) if claim.purpose is Purpose.STORE]
    assert store.name == names.STORE_CLAIM
    assert store.precious
