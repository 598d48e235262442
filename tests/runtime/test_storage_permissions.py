"""The container that gives volumes to the agent: only where it is asked for, and only to what is the group's."""

from __future__ import annotations

import os
import subprocess

import pytest

from nanoclaw_runtime.contract import ownership
from nanoclaw_runtime.contract.claims import Layout
from nanoclaw_runtime.contract.config import Platform
from nanoclaw_runtime.manifests.job import agent_job
from tests.support.plans import plan


def first(**settings):
    """The containers that run before the agent."""
    pod = agent_job(plan("team", "s1", **settings))["spec"]["template"]["spec"]
    return pod.get("initContainers", [])


def test_nobody_is_root_unless_the_stack_says_so():
    assert first() == []


def test_openshift_has_no_such_container_whatever_is_asked():
    assert first(fix_permissions=True, platform=Platform.OPENSHIFT) == []


@pytest.mark.parametrize("layout", Layout)
def test_it_sees_what_the_agent_may_write_and_nothing_else(layout):
    (container,) = first(fix_permissions=True, layout=layout)
    paths = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert paths == {"/workspace/group", "/workspace/ipc", "/home/node/.claude"}
    assert set(container["command"][4:]) == paths


def test_its_rights_are_to_give_away_and_no_more():
    (container,) = first(fix_permissions=True)
    assert container["securityContext"] == {
        "runAsUser": 0,
        "runAsNonRoot": False,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"], "add": ["CHOWN", "DAC_OVERRIDE"]},
    }


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_the_command_gives_away_what_is_others_and_touches_nothing_else(tmp_path):
    outside, group = tmp_path / "outside", tmp_path / "group"
    group.mkdir()
    outside.touch()
    for name in ("theirs", "ours", "a name with 'quotes'"):
        (group / name).touch()
    (group / "link").symlink_to(outside)
    os.chown(group / "ours", ownership.UID, 1234)
    before = (group / "ours").stat().st_ctime_ns
    subprocess.run(ownership.command([str(group)]), check=True)
    owners = {each.name: (each.lstat().st_uid, each.lstat().st_gid) for each in group.iterdir()}
    given = (ownership.UID, ownership.UID)
    assert owners == {"theirs": given, "a name with 'quotes'": given, "link": given, "ours": (ownership.UID, 1234)}
    assert group.stat().st_uid == ownership.UID
    assert (outside.stat().st_uid, (group / "ours").stat().st_ctime_ns) == (0, before)
