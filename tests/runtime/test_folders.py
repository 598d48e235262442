"""What a group's agent finds at its start, whatever an earlier one of the group left there."""

import os
import stat

import pytest

from nanoclaw_runtime.contract import layout
from nanoclaw_runtime.ipc import skills
from nanoclaw_runtime.ipc.folders import make_group_folders
from tests.support.vanishing import remove_behind_each_look

SETTINGS = """\
{
  "env": {
    "CLAUDE_CODE_EXPERIMENTAL_AGENT_TEAMS": "1",
    "CLAUDE_CODE_ADDITIONAL_DIRECTORIES_CLAUDE_MD": "1",
    "CLAUDE_CODE_DISABLE_AUTO_MEMORY": "0"
  }
}
"""


@pytest.fixture
def claude(tmp_path):
    """The `.claude` of the group, which the agent owns."""
    return tmp_path / layout.sessions_dir("family")


@pytest.fixture
def project(tmp_path):
    """The project's skills: one with a script and a folder."""
    folder = tmp_path / layout.PROJECT_DIR / "container/skills"
    (folder / "browser/deep").mkdir(parents=True)
    (folder / "browser/SKILL.md").write_text("how to browse")
    (folder / "browser/run.sh").write_text("#!/bin/sh\n")
    (folder / "browser/run.sh").chmod(0o755)
    (folder / "browser/deep/notes.md").write_text("notes")
    (folder / "README.md").write_text("not a skill")
    return folder


@pytest.fixture
def secret(tmp_path):
    """A file of another group, and what must still be in it."""
    file = tmp_path / "other-group.txt"
    file.write_text("theirs")
    return file


def prepare(tmp_path):
    make_group_folders(tmp_path, "family")


def files_below(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


COPIED = {"browser/SKILL.md": "how to browse", "browser/run.sh": "#!/bin/sh\n", "browser/deep/notes.md": "notes"}


def test_everything_an_agent_mounts_is_there(tmp_path):
    prepare(tmp_path)
    for directory in ("groups/family/logs", "data/ipc/family", "groups/global", "project"):
        assert (tmp_path / directory).is_dir()


def test_settings_are_those_of_nanoclaw(tmp_path, claude):
    prepare(tmp_path)
    assert (claude / "settings.json").read_text() == SETTINGS


def test_settings_that_are_there_stay(tmp_path, claude):
    claude.mkdir(parents=True)
    (claude / "settings.json").write_text("{}")
    prepare(tmp_path)
    assert (claude / "settings.json").read_text() == "{}"


@pytest.mark.parametrize("target", ["other-group.txt", "nothing.txt"], ids=["to a file", "to nothing"])
def test_settings_are_not_written_through_a_link(tmp_path, claude, secret, target):
    claude.mkdir(parents=True)
    (claude / "settings.json").symlink_to(tmp_path / target)
    prepare(tmp_path)
    assert (claude / "settings.json").is_symlink()
    assert secret.read_text() == "theirs"
    assert not (tmp_path / "nothing.txt").exists()


def test_logs_are_not_made_through_a_link(tmp_path):
    (tmp_path / "groups/family").mkdir(parents=True)
    (tmp_path / "groups/family/logs").symlink_to(tmp_path / "elsewhere")
    prepare(tmp_path)
    assert (tmp_path / "groups/family/logs").is_dir()
    assert not (tmp_path / "elsewhere").exists()


def test_a_project_without_skills_gives_none(tmp_path, claude):
    prepare(tmp_path)
    assert sorted(path.name for path in claude.iterdir()) == ["settings.json"]


def test_skills_are_copied_with_their_folders_and_rights(tmp_path, claude, project):
    prepare(tmp_path)
    assert files_below(claude / "skills") == COPIED
    assert (claude / "skills/browser/run.sh").stat().st_mode & stat.S_IXUSR
    assert not (claude / "skills/browser/SKILL.md").stat().st_mode & stat.S_IXUSR


def test_what_goes_from_the_project_meanwhile_keeps_no_other_skill_from_being_copied(
    tmp_path, claude, project, monkeypatch
):
    (project / "a-gone").mkdir()
    (project / "browser/a-gone.md").write_text("just removed")
    remove_behind_each_look(monkeypatch)
    prepare(tmp_path)
    monkeypatch.undo()
    assert files_below(claude / "skills") == COPIED


def test_what_changed_in_the_project_reaches_the_group(tmp_path, claude, project):
    prepare(tmp_path)
    (project / "browser/SKILL.md").write_text("how to browse well")
    (project / "mail").mkdir()
    (project / "mail/SKILL.md").write_text("how to write")
    prepare(tmp_path)
    assert files_below(claude / "skills") == COPIED | {
        "browser/SKILL.md": "how to browse well",
        "mail/SKILL.md": "how to write",
    }


def test_an_agents_own_skills_stay(tmp_path, claude, project):
    (claude / "skills/own").mkdir(parents=True)
    (claude / "skills/own/SKILL.md").write_text("mine")
    prepare(tmp_path)
    assert files_below(claude / "skills") == COPIED | {"own/SKILL.md": "mine"}


def test_nothing_is_copied_when_nothing_changed(tmp_path, claude, project):
    prepare(tmp_path)
    before = {path: path.stat().st_ino for path in claude.rglob("*")}
    prepare(tmp_path)
    assert {path: path.stat().st_ino for path in claude.rglob("*")} == before


def test_a_skill_that_an_agent_changed_unseen_is_made_ours_again(tmp_path, claude, project):
    prepare(tmp_path)
    file = claude / "skills/browser/SKILL.md"
    status = file.stat()
    file.write_text("how to deceive"[: status.st_size].ljust(status.st_size))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    prepare(tmp_path)
    assert files_below(claude / "skills") == COPIED


def test_a_skill_that_an_agent_removed_comes_back(tmp_path, claude, project):
    prepare(tmp_path)
    (claude / "skills/browser/deep/notes.md").unlink()
    (claude / "skills/browser/deep").rmdir()
    prepare(tmp_path)
    assert files_below(claude / "skills") == COPIED


@pytest.mark.parametrize("place", ["skills", "skills/browser", "skills/browser/deep"])
def test_a_folder_replaced_by_a_link_is_not_written_through(tmp_path, claude, project, place):
    outside = tmp_path / "outside"
    outside.mkdir()
    (claude / place).parent.mkdir(parents=True)
    (claude / place).symlink_to(outside)
    prepare(tmp_path)
    assert list(outside.iterdir()) == []
    assert files_below(claude / "skills") == COPIED


@pytest.mark.parametrize("name", ["SKILL.md", ".SKILL.md.nanoclaw"], ids=["the file", "its temporary name"])
@pytest.mark.parametrize("link", [os.symlink, os.link])
@pytest.mark.usefixtures("project")
def test_a_file_replaced_by_a_link_is_not_written_through(tmp_path, claude, secret, name, link):
    (claude / "skills/browser").mkdir(parents=True)
    link(secret, claude / "skills/browser" / name)
    prepare(tmp_path)
    assert secret.read_text() == "theirs"
    assert files_below(claude / "skills") == COPIED


def test_a_pipe_in_place_of_a_file_holds_nobody_up(tmp_path, claude, project):
    (claude / "skills/browser").mkdir(parents=True)
    os.mkfifo(claude / "skills/browser/SKILL.md")
    prepare(tmp_path)
    assert files_below(claude / "skills") == COPIED


@pytest.mark.parametrize("name", ["SKILL.md", ".SKILL.md.nanoclaw"], ids=["the file", "its temporary name"])
def test_a_folder_in_place_of_a_file_costs_the_agent_that_file_only(tmp_path, claude, project, name):
    (claude / "skills/browser" / name / "full").mkdir(parents=True)
    prepare(tmp_path)
    assert files_below(claude / "skills") == {path: text for path, text in COPIED.items() if path != "browser/SKILL.md"}


def test_links_in_the_project_are_not_copied(tmp_path, claude, project, secret):
    (project / "browser/link.md").symlink_to(secret)
    (project / "linked-skill").symlink_to(tmp_path)
    os.mkfifo(project / "browser/pipe")
    prepare(tmp_path)
    assert files_below(claude / "skills") == COPIED
    assert sorted(path.name for path in (claude / "skills").iterdir()) == ["browser"]


def test_a_project_that_leads_elsewhere_gives_no_skills(tmp_path, claude):
    elsewhere = tmp_path / "elsewhere/skills/foreign"
    elsewhere.mkdir(parents=True)
    (tmp_path / "project").mkdir()
    (tmp_path / "project/container").symlink_to(tmp_path / "elsewhere")
    prepare(tmp_path)
    assert not (claude / "skills").exists()


def test_folders_without_end_are_cut_off(tmp_path, claude, project):
    deep = project / "maze"
    for _ in range(300):
        deep /= "x"
        deep.mkdir(parents=True)
    (deep / "SKILL.md").write_text("the end")
    prepare(tmp_path)
    assert files_below(claude / "skills") == COPIED


def test_a_skill_that_does_not_fit_is_left_out_alone(tmp_path, claude, project):
    (project / "atlas").mkdir()
    with (project / "atlas/map.bin").open("wb") as file:
        file.truncate(skills.LARGEST + 1)
    prepare(tmp_path)
    assert files_below(claude / "skills") == COPIED


def test_what_we_remember_of_skills_is_out_of_the_agents_reach(tmp_path, project):
    prepare(tmp_path)
    remembered = tmp_path / layout.STORE_DIR / "skills/family"
    assert remembered.is_file()
    for arrangement in layout.Layout:
        for mount in layout.agent_mounts(arrangement, "family", "s1"):
            assert mount.claim != layout.names.STORE_CLAIM
            assert not (mount.sub_path or "").startswith(layout.STORE_DIR)
