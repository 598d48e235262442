"""The review comment on what the real engine says of every kind of change, before a real API server."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
import uuid

import pytest

from kubernetes import client, config
from nanoclaw_dev.paths import CHECKOUT
from nanoclaw_infra.preview.command import review
from nanoclaw_runtime.contract import names

pytestmark = pytest.mark.engine

GROUPS = ("main", "family")


def preview(project):
    """What the engine prints, failed or not."""
    return subprocess.run(
        [project.engine.binaries.cli, "preview", "--stack", project.stack, "--json", "--non-interactive"],
        cwd=project.folder,
        env=project.engine.environment(),
        capture_output=True,
        text=True,
        check=False,
    )


def reviewed(project):
    return review(preview(project).stdout)


def permitted(told, *lines):
    """The same preview of a stack that permits these losses."""
    tree = json.loads(told)
    settings = json.loads(tree["config"]["nanoclaw:settings"]) | {"allowDataLoss": list(lines)}
    tree["config"]["nanoclaw:settings"] = json.dumps(settings)
    return review(json.dumps(tree))


def test_an_open_stack_from_its_first_preview_to_the_loss_of_its_namespace(project):
    project.write(groups=GROUPS)
    first = reviewed(project)
    assert first.status == 0
    assert first.text.startswith("<!-- nanoclaw-preview: test -->\n\n### Stack `test`: ")
    assert "- **Group `family`**: `PersistentVolumeClaim` `nanoclaw-" in first.text
    assert "Data" not in first.text
    project.up()

    project.write(groups=GROUPS, runtime={"agent": {"image": "localhost/agent:2"}, "registration": True})
    settings = reviewed(project)
    assert settings.status == 0
    assert '`data["config.json"].agent.image`: `localhost/agent:1` → `localhost/agent:2`' in settings.text
    assert "rolls the controller: a new pod; running sessions go on" in settings.text
    assert "may now `patch` `deployments` of `apps`, only `nanoclaw-controller`" in settings.text

    project.write(groups=(*GROUPS, "team"))
    added = reviewed(project)
    assert added.status == 0
    assert "groups change live" in added.text
    assert '`data["groups.json"].groups[team]`: added' in added.text
    assert "groups[family]" not in added.text, "who was there is matched by folder"
    assert "volumes[nanoclaw-ipc-team]`: added" in added.text

    project.write(groups=("main",))
    told = preview(project).stdout
    removed = review(told)
    assert removed.status == 1
    assert (
        "- **Lost, not permitted**: `PersistentVolumeClaim/nanoclaw-sessions-family` is deleted; "
        "it holds conversations of group `family`." in removed.text
    )
    claims = [names.group_claim("family"), names.ipc_claim("family"), names.sessions_claim("family")]
    assert permitted(told, *(f"PersistentVolumeClaim/{name}" for name in claims)).status == 0
    assert permitted(told, f"PersistentVolumeClaim/{claims[0]}").status == 1

    project.write(groups=GROUPS, namespace={"name": f"{project.namespace}-new"})
    told = preview(project).stdout
    renamed = review(told)
    assert renamed.status == 1
    assert f"- **Lost, not permitted**: `Namespace/{project.namespace}` is deleted" in renamed.text
    assert f"allowDataLoss:\n  - Namespace/{project.namespace}\n```" in renamed.text
    assert permitted(told, f"Namespace/{project.namespace}").status == 0, "what is in it is covered"


def test_a_group_removed_from_a_protected_stack_is_refused_in_words_and_let_go_once_unprotected(project):
    project.write(protect=True, groups=GROUPS)
    project.up()

    project.write(groups=GROUPS)
    freed = reviewed(project)
    assert "- **No longer protected**, so that a later change can delete it: `Namespace/" in freed.text

    project.write(protect=True, groups=("main",))
    refused = reviewed(project)
    assert refused.status == 2
    assert "### The preview of stack `test` failed" in refused.text
    assert "- **Protected**: `PersistentVolumeClaim/nanoclaw-sessions-family` (conversations of group" in refused.text
    assert "urn:pulumi" not in refused.text

    for resource in project.engine.resources(project.stack):
        if resource.get("protect") and resource["urn"].endswith("-family"):
            project.engine._run("state", "unprotect", resource["urn"], "--stack", project.stack, "--yes")
    let_go = reviewed(project)
    assert let_go.status == 0
    assert "- **Let go**: `PersistentVolumeClaim/nanoclaw-sessions-family`" in let_go.text
    assert "Lost" not in let_go.text


@pytest.fixture
def expandable(control_plane):
    """A StorageClass whose claims may grow, and a volume of it for the claim that is named; both removed again."""
    connection = config.new_client_from_config(str(control_plane.kubeconfig))
    core, storage = client.CoreV1Api(connection), client.StorageV1Api(connection)
    name = f"preview-{uuid.uuid4().hex[:8]}"
    meta = {"metadata": {"name": name}}
    storage.create_storage_class(meta | {"provisioner": "kubernetes.io/no-provisioner", "allowVolumeExpansion": True})

    def bind(namespace, claim):
        spec = {
            "storageClassName": name,
            "accessModes": ["ReadWriteMany"],
            "capacity": {"storage": "1Gi"},
            "hostPath": {"path": "/nowhere"},
            "claimRef": {"namespace": namespace, "name": claim},
        }
        core.create_persistent_volume(meta | {"spec": spec})
        for _ in range(600):
            if core.read_namespaced_persistent_volume_claim(claim, namespace).status.phase == "Bound":
                return
            time.sleep(0.1)
        pytest.fail(f"{claim} was not bound")

    yield name, bind
    storage.delete_storage_class(name)
    with contextlib.suppress(client.ApiException):
        core.delete_persistent_volume(name)
    connection.close()


def test_a_claim_in_use_may_grow_and_its_class_may_not_change(project, expandable):
    storage, bind = expandable
    project.write(storage={"storageClass": storage})
    project.up()
    bind(project.namespace, names.GLOBAL_CLAIM)

    project.write(storage={"storageClass": storage, "sizes": {"global": "512Mi"}})
    grown = reviewed(project)
    assert grown.status == 0
    assert "`PersistentVolumeClaim/nanoclaw-global` (the memory all groups share) grows; nothing is lost" in grown.text
    assert "`spec.resources.requests.storage`: `256Mi` → `512Mi`" in grown.text

    project.write(storage={"storageClass": "elsewhere"})
    moved = reviewed(project)
    assert moved.status == 2
    assert "is deleted and made again, empty" in moved.text
    assert f"`spec.storageClassName`: `{storage}` → `elsewhere`" in moved.text
    assert "Kubernetes does not change storage class, access modes or volume of a claim that exists" in moved.text


def test_a_changed_secret_is_told_and_never_shown(project):
    project.write()
    project.engine.set_secret(project.stack, "nanoclaw:credentials.ANTHROPIC_API_KEY", "first-key-of-the-house")
    project.engine.set_secret(project.stack, "nanoclaw:apiToken", "first-token-of-the-house")
    project.up()
    project.engine.set_secret(project.stack, "nanoclaw:credentials.ANTHROPIC_API_KEY", "second-key-of-the-house")

    told = preview(project).stdout
    made = review(told)
    assert made.status == 0
    assert "`Secret` `nanoclaw-credentials`: agents get the new credentials at their next start" in made.text
    assert "changed, secret" in made.text
    assert "of-the-house" not in made.text


def test_the_script_of_the_workflows_runs_the_real_engine(project):
    project.write(controller={"image": "localhost/controller"})
    command = project.folder / ".venv" / "bin" / "nanoclaw-preview"
    command.parent.mkdir(parents=True)
    command.write_text(f"#!{sys.executable}\nimport sys\nfrom nanoclaw_infra.preview import main\nsys.exit(main())\n")
    command.chmod(0o755)
    path = f"{project.engine.binaries.cli.parent}{os.pathsep}{os.environ['PATH']}"

    def run(stack):
        script = [CHECKOUT / "ci" / "preview.sh", stack, "comment.md"]
        environment = project.engine.environment() | {"PATH": path, "PYTHONPATH": str(CHECKOUT)}
        ran = subprocess.run(script, cwd=project.folder, env=environment, check=False)
        return ran.returncode, (project.folder / "comment.md").read_text()

    status, mistake = run(project.stack)
    assert status == 2
    assert "needs a tag or a digest, exactly one of them" in mistake

    status, absent = run("nobody")
    assert status == 2
    assert absent.startswith("<!-- nanoclaw-preview: nobody -->")
    assert "no stack named 'nobody' found" in absent
