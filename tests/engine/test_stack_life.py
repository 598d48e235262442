"""A stack from its first `up` to its end, with the real engine and a real API server."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from nanoclaw_dev.engine import EngineFailed
from nanoclaw_runtime.contract import names

pytestmark = pytest.mark.engine


def claims(control_plane, namespace):
    found = control_plane.api.get(f"/api/v1/namespaces/{namespace}/persistentvolumeclaims")
    return {item["metadata"]["name"] for item in found["items"]}


def group_claims(folder):
    return {names.group_claim(folder), names.ipc_claim(folder), names.sessions_claim(folder)}


def token(control_plane, namespace):
    secret = control_plane.api.get(f"/api/v1/namespaces/{namespace}/secrets/{names.API_TOKEN}")
    return base64.b64decode(secret["data"][names.API_TOKEN_KEY]).decode()


def test_up_changes_only_what_changed_and_destroy_leaves_nothing(project, control_plane):
    project.write(groups=("main",))
    project.up()
    assert project.preview() == set(), "a second run has nothing to do"
    first = token(control_plane, project.namespace)
    assert len(first) >= 32

    project.write(groups=("main", "family"))
    assert project.up() == {
        *(("create", "PersistentVolumeClaim", name) for name in group_claims("family")),
        ("update", "ConfigMap", names.GROUPS_CONFIG),
        ("update", "Deployment", names.CONTROLLER),
    }
    assert token(control_plane, project.namespace) == first, "the token is made once"
    assert not project.engine.has_drift(project.stack)

    project.destroy()
    assert control_plane.api.get(f"/api/v1/namespaces/{project.namespace}") is None
    assert project.engine.resources(project.stack) == []


def test_a_new_group_in_the_shared_layout_is_a_line_in_a_config_map(project):
    project.write(layout="shared", groups=("main",))
    project.up()

    project.write(layout="shared", groups=("main", "family"))
    assert project.preview() == {
        ("create", "GroupClaims", "family"),
        ("update", "ConfigMap", names.GROUPS_CONFIG),
    }


def test_protected_data_survives_a_removed_group_and_the_end_of_the_stack(project, control_plane):
    project.write(protect=True, groups=("main", "family"))
    project.up()

    project.write(protect=True, groups=("main",))
    with pytest.raises(EngineFailed, match="protect"):
        project.up()

    project.write(protect=True, groups=("main", "family"))
    project.destroy()
    kept = claims(control_plane, project.namespace)
    assert kept == {names.STORE_CLAIM, names.GLOBAL_CLAIM} | group_claims("main") | group_claims("family")
    deployment = f"/apis/apps/v1/namespaces/{project.namespace}/deployments/{names.CONTROLLER}"
    assert control_plane.api.get(deployment) is None

    project.up()
    assert claims(control_plane, project.namespace) == kept | {names.PROJECT_CLAIM}, "the stack comes back to its data"


def test_a_mistake_in_the_stack_file_is_all_a_preview_shows(project):
    project.write(controller={"image": "localhost/controller"})

    with pytest.raises(EngineFailed) as failed:
        project.preview()

    assert "needs a tag or a digest" in str(failed.value)
    assert "Traceback" not in str(failed.value)


def test_a_run_under_way_is_waited_for_and_never_cancelled(project):
    project.write()
    lock = project.engine.state / "stacks" / ".pulumi" / "locks" / "organization" / "nanoclaw" / project.stack
    lock.mkdir(parents=True, exist_ok=True)
    held = {"pid": os.getpid(), "username": "somebody", "hostname": "here", "timestamp": "2026-01-01T00:00:00Z"}
    (lock / "held.json").write_text(json.dumps(held))

    with pytest.raises(EngineFailed, match=f"wait for process {os.getpid()}"):
        project.up()


def test_a_killed_run_does_not_block_the_next_one(project, control_plane):
    project.write()
    process = subprocess.Popen(
        [project.engine.binaries.cli, "up", "--stack", project.stack, "--yes", "--skip-preview", "--non-interactive"],
        cwd=project.folder,
        env=project.engine.environment(),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        for line in process.stdout:
            if "creating" in line:
                os.killpg(process.pid, signal.SIGKILL)
                break
    assert list((project.engine.state / "stacks" / ".pulumi" / "locks").rglob("*.json")), "it was killed in its work"
    assert not list(project.engine.state.rglob("*.attrs")), "nothing is written in place that could be cut off"

    project.up()

    assert names.STORE_CLAIM in claims(control_plane, project.namespace)
    assert project.preview() == set()
    assert processes_of(project.engine), "its hosts live on, which is why they are ended"
    project.engine.end_strays()
    assert not processes_of(project.engine)


def processes_of(engine):
    """What runs with the engine's home and is no zombie."""
    home = f"PULUMI_HOME={engine.state / 'home'}".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if home in (process / "environ").read_bytes():
                found.append(process)
    return found


def test_state_that_was_cut_off_while_it_was_written_is_repaired(project, control_plane):
    project.write(groups=("main", "family"))
    project.up()
    (state,) = (project.engine.state / "stacks").glob(f".pulumi/stacks/*/{project.stack}.json")
    state.write_bytes(state.read_bytes()[:1000])

    project.engine.init(project.stack)
    project.up()

    assert group_claims("family") <= claims(control_plane, project.namespace)
    assert project.preview() == set()
