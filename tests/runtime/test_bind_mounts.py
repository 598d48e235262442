"""The folders a container binds, whatever an earlier agent of the group made of them."""

import os

import pytest

from nanoclaw_runtime.contract.layout import Mount
from nanoclaw_runtime.ipc.bind_mounts import make_ready
from nanoclaw_runtime.ipc.descriptors import opened_folder, remove_tree
from tests.support.vanishing import remove_behind_each_look

UID = 4711
GROUP = Mount("claim", "/workspace/group", "groups/family")

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


def ready(tree):
    make_ready(tree, [GROUP], UID, UID)


@pytest.fixture
def group(tmp_path):
    folder = tmp_path / "groups/family"
    folder.mkdir(parents=True)
    return folder


def test_what_is_missing_is_made(tmp_path):
    ready(tmp_path)
    assert (tmp_path / "groups/family").is_dir()


@pytest.mark.parametrize("part", ["groups", "groups/family"])
def test_a_link_on_the_way_is_refused(tmp_path, part):
    (tmp_path / "elsewhere/family").mkdir(parents=True)
    (tmp_path / part).parent.mkdir(exist_ok=True)
    (tmp_path / part).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        ready(tmp_path)


@as_root
def test_what_root_made_is_given_away_and_no_link_is_followed(tmp_path, group):
    (tmp_path / "secret").write_text("theirs")
    (group / "notes").mkdir()
    (group / "notes/a.md").write_text("a")
    (group / "notes/link").symlink_to(tmp_path / "secret")
    (group / "folder").symlink_to(tmp_path)
    ready(tmp_path)
    given = [group, group / "notes", group / "notes/a.md", group / "notes/link", group / "folder"]
    assert {path.lstat().st_uid for path in given} == {UID}
    assert (tmp_path / "secret").stat().st_uid == 0
    assert tmp_path.stat().st_uid == 0


@as_root
def test_what_somebody_else_made_stays_theirs(tmp_path, group):
    (group / "theirs").touch()
    os.chown(group / "theirs", 12, 12)
    ready(tmp_path)
    assert (group / "theirs").stat().st_uid == 12


@as_root
def test_what_goes_meanwhile_keeps_nothing_else_from_being_given(tmp_path, group, monkeypatch):
    (group / "a-gone").touch()
    (group / "b-gone").mkdir()
    (group / "notes").touch()
    remove_behind_each_look(monkeypatch)
    ready(tmp_path)
    assert [(path.name, path.lstat().st_uid) for path in group.glob("*")] == [("notes", UID)]


def test_what_goes_while_its_folder_is_removed_is_no_hindrance(tmp_path, monkeypatch):
    for name in ("a-gone", "z"):
        (tmp_path / "folder/inner" / name).mkdir(parents=True)
    (tmp_path / "folder/inner/b-gone").touch()
    remove_behind_each_look(monkeypatch)
    with opened_folder(tmp_path) as folder:
        remove_tree("folder", folder)
    assert not list(tmp_path.glob("*"))


@as_root
def test_folders_nested_deeper_than_any_stack_are_no_hindrance(tmp_path, group):
    inner = os.open(group, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=inner)
        inner, outer = os.open("d", os.O_RDONLY, dir_fd=inner), inner
        os.close(outer)
    os.close(inner)
    ready(tmp_path)
    assert (group / "d/d/d").stat().st_uid == UID
    with opened_folder(group) as folder:
        remove_tree("d", folder)  # which is too deep for pytest
