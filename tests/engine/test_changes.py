"""What a change of the stack does to a cluster that has it already, with the real engine and a real API server.

Volumes are made by hand and bound by the real controllers: no pod ever runs here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import time
import uuid

import pytest

from nanoclaw_dev.engine import EngineFailed
from nanoclaw_infra import drift
from nanoclaw_infra.drift import DRIFT, NO_DRIFT
from nanoclaw_runtime.contract import names

pytestmark = pytest.mark.engine

GROUP = names.group_claim("main")
GROUPS_CLAIMS = "persistentvolumeclaims"


def path(namespace, resource, name="", group="api/v1"):
    return f"/{group}/namespaces/{namespace}/{resource}/{name}".rstrip("/")


@pytest.fixture
def storage_class(control_plane):
    """A class whose volumes may grow, with nobody who makes any."""
    name = f"growing-{uuid.uuid4().hex[:8]}"
    manifest = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name},
        "provisioner": "example.com/none",
        "allowVolumeExpansion": True,
        "volumeBindingMode": "Immediate",
    }
    control_plane.api.apply(f"/apis/storage.k8s.io/v1/storageclasses/{name}", manifest)
    yield name
    control_plane.api.delete(f"/apis/storage.k8s.io/v1/storageclasses/{name}")


def volume_for(control_plane, storage_class, namespace, claim):
    """A volume for one claim; the claim is bound when this returns."""
    name = f"{namespace}-{claim}"
    manifest = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name, "annotations": {"pv.kubernetes.io/provisioned-by": "example.com/none"}},
        "spec": {
            "storageClassName": storage_class,
            "capacity": {"storage": "100Gi"},
            "accessModes": ["ReadWriteMany"],
            "claimRef": {"namespace": namespace, "name": claim},
            "nfs": {"server": "192.0.2.1", "path": "/"},
        },
    }
    control_plane.api.apply(f"/api/v1/persistentvolumes/{name}", manifest)
    deadline = time.monotonic() + 90
    while control_plane.api.get(path(namespace, GROUPS_CLAIMS, claim))["status"]["phase"] != "Bound":
        assert time.monotonic() < deadline, "nobody bound the claim"
        time.sleep(0.1)


def claim(control_plane, namespace, name=GROUP):
    return control_plane.api.get(path(namespace, GROUPS_CLAIMS, name))


@pytest.fixture(scope="module")
def standing(make_project):
    """A stack that is up and protects its data; the tests that share it leave the cluster as it is."""
    with make_project() as project:
        project.write(protect=True)
        project.up()
        yield project


@pytest.fixture
def deployment(standing, control_plane):
    """The controller's Deployment of the standing stack, asked for anew at each call."""
    where = path(standing.namespace, "deployments", names.CONTROLLER, "apis/apps/v1")
    return lambda: control_plane.api.get(where)


def test_another_layout_is_never_made_out_of_data_that_is_protected(standing, control_plane):
    standing.write(protect=True, layout="per-group")

    with pytest.raises(EngineFailed, match="protect"):
        standing.preview()

    assert claim(control_plane, standing.namespace) is not None


AGENT = {"agent": {"image": "localhost/agent:1"}}
NEW_SETTINGS = {("replace", "ConfigMap", "nanoclaw-settings"), ("update", "Deployment", names.CONTROLLER)}
BRIDGE = {
    ("update", "Service", names.CONTROLLER),
    ("update", "NetworkPolicy", "nanoclaw-agents"),
    ("update", "NetworkPolicy", "nanoclaw-controller"),
}
REVIEWER = [(kind, names.TOKEN_REVIEWER) for kind in ("ClusterRole", "ClusterRoleBinding")]


def test_pattern_and_transport_change_there_and_back_and_no_claim_does(standing, control_plane):
    def claims():
        found = control_plane.api.get(path(standing.namespace, GROUPS_CLAIMS))["items"]
        return {each["metadata"]["name"]: (each["metadata"]["uid"], each["spec"]) for each in found}

    before = claims()
    for runtime, wanted in (
        ({"pattern": "statefulset"}, NEW_SETTINGS),
        (
            {"pattern": "statefulset", "transport": "bridge"},
            NEW_SETTINGS | BRIDGE | {("create", *each) for each in REVIEWER},
        ),
        ({"transport": "bridge"}, NEW_SETTINGS),
        ({}, NEW_SETTINGS | BRIDGE | {("delete", *each) for each in REVIEWER}),
    ):
        standing.write(protect=True, runtime=AGENT | runtime)
        assert standing.up() == wanted
        assert claims() == before


def test_destroying_a_stack_that_protects_its_data_is_refused(standing, control_plane, deployment):
    standing.write(protect=True)

    refused = standing.pulumi("destroy", "--yes")

    assert refused.returncode, "the engine's own word, as somebody types it"
    assert "protected" in refused.stdout + refused.stderr
    assert claim(control_plane, standing.namespace) is not None
    assert deployment() is not None, "nothing is half done"


def test_drift_is_told_and_repaired_whoever_owns_the_field(standing, control_plane, deployment):
    """Whoever edits a field owns it from then on, and the provider looks at its own."""
    standing.write(protect=True)
    assert drift_of(standing) == (NO_DRIFT, "no drift: the cluster has what the stack last put there\n")
    role = path(standing.namespace, "roles", names.CONTROLLER, "apis/rbac.authorization.k8s.io/v1")
    found = control_plane.api.get(role)
    wider = [*found["rules"], {"apiGroups": [""], "resources": ["secrets"], "verbs": ["list"]}]
    edit(control_plane, role, found | {"rules": wider})
    changed = deployment()
    changed["spec"]["template"]["spec"]["hostNetwork"] = True
    where = path(standing.namespace, "deployments", names.CONTROLLER, "apis/apps/v1")
    edit(control_plane, where, changed)
    assert not standing.engine.has_drift(standing.stack), "when this fails, the provider has learned it: use its check"

    status, told = drift_of(standing)

    assert status == DRIFT
    assert "Role nanoclaw-controller: rules is 9 entries, the stack has 8 entries, written by kubectl-edit" in told
    assert "Deployment nanoclaw-controller: spec.template.spec.hostNetwork is there" in told
    repair = f"kubectl delete role {names.CONTROLLER} -n {standing.namespace} && pulumi up --refresh --stack test"
    assert repair in told
    control_plane.api.delete(role)
    control_plane.api.delete(where)
    assert standing.engine.has_drift(standing.stack), "what is gone the engine sees itself"
    assert not (done := standing.pulumi("up", "--refresh", "--yes", "--skip-preview")).returncode, done.stdout
    assert control_plane.api.get(role)["rules"] == found["rules"]
    assert drift_of(standing)[0] == NO_DRIFT


def test_a_claim_grows_in_place_and_keeps_its_volume(project, control_plane, storage_class):
    project.write(storage={"storageClass": storage_class})
    project.up()
    volume_for(control_plane, storage_class, project.namespace, GROUP)
    before = claim(control_plane, project.namespace)

    project.write(storage={"storageClass": storage_class, "groupSizes": {"main": {"group": "3Gi"}}})
    assert project.up() == {("update", "PersistentVolumeClaim", GROUP)}

    after = claim(control_plane, project.namespace)
    assert after["spec"]["resources"]["requests"]["storage"] == "3Gi"
    assert (after["metadata"]["uid"], after["spec"]["volumeName"]) == (
        before["metadata"]["uid"],
        before["spec"]["volumeName"],
    )


def test_a_group_that_goes_keeps_its_data_as_long_as_the_stack_says_so(project, control_plane):
    project.write(protect=True, groups=("main", "family"))
    project.up()
    family = names.group_claim("family")
    uid = claim(control_plane, project.namespace, family)["metadata"]["uid"]

    project.write(protect=True, groups=("main",), storage={"keep": ["family"]})
    assert project.up() == {
        ("update", "ConfigMap", names.GROUPS_CONFIG),
        ("update", "Deployment", names.CONTROLLER),
    }
    assert claim(control_plane, project.namespace, family)["metadata"]["uid"] == uid

    gone = [f"PersistentVolumeClaim/{each('family')}" for each in (names.group_claim, names.ipc_claim)]
    gone.append(f"PersistentVolumeClaim/{names.sessions_claim('family')}")
    project.write(protect=True, groups=("main",), storage={"keep": ["family"]}, allowDataLoss=gone)
    project.up()
    project.write(protect=True, groups=("main",), allowDataLoss=gone)
    project.up()
    assert claim(control_plane, project.namespace, family) is None, "who writes it down may let it go"


def test_claims_that_exist_are_taken_over_as_they_are(project, control_plane):
    control_plane.api.apply(
        f"/api/v1/namespaces/{project.namespace}",
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": project.namespace}},
    )
    theirs = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": GROUP, "labels": {"team": "chat"}},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "7Gi"}}},
    }
    control_plane.api.create(path(project.namespace, GROUPS_CLAIMS), theirs)
    uid = claim(control_plane, project.namespace)["metadata"]["uid"]
    place = {"namespace": {"name": project.namespace, "create": False}}

    project.write(**place, storage={"adopt": [GROUP]})
    assert ("import", "PersistentVolumeClaim", GROUP) in project.preview()
    project.up()
    adopted = claim(control_plane, project.namespace)
    assert adopted["metadata"]["uid"] == uid
    assert adopted["metadata"]["labels"] == {"team": "chat"}
    assert adopted["spec"]["resources"]["requests"]["storage"] == "7Gi"
    assert project.preview() == set(), "it stays as it is"


def drift_of(project):
    told = io.StringIO()
    state = project.folder / "state.json"
    state.write_text(project.pulumi("stack", "export").stdout)
    with contextlib.redirect_stdout(told):
        status = drift.main([str(state)])
    return status, told.getvalue()


def edit(control_plane, where, manifest):
    """As `kubectl edit` does it."""
    status, body = control_plane.api._call(
        "PUT", f"{where}?fieldManager=kubectl-edit", json.dumps(manifest), {"Content-Type": "application/json"}
    )
    assert status == 200, body


def test_an_up_that_failed_goes_on_where_it_stopped(project, control_plane):
    """A quota of somebody else's refuses the claims; with room for them the rest is made, and nothing twice."""
    control_plane.api.apply(
        f"/api/v1/namespaces/{project.namespace}",
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": project.namespace}},
    )
    quota = path(project.namespace, "resourcequotas", "theirs")
    hard = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "theirs"}}
    control_plane.api.apply(quota, hard | {"spec": {"hard": {"persistentvolumeclaims": "2"}}})
    project.write(namespace={"name": project.namespace, "create": False})

    with pytest.raises(EngineFailed, match="exceeded quota: theirs"):
        project.up()
    assert len(control_plane.api.get(path(project.namespace, GROUPS_CLAIMS))["items"]) <= 2

    control_plane.api.delete(quota)
    project.up()
    assert len(control_plane.api.get(path(project.namespace, GROUPS_CLAIMS))["items"]) == 6
    assert project.preview() == set()


def test_two_stacks_live_in_one_cluster_and_one_leaves_without_the_other(project, control_plane):
    everything = {"priorities": {"enabled": True}, "guardrails": {"enabled": True}}
    other = dataclasses.replace(project, namespace=f"{project.namespace}-b", stack="other")
    project.write(**everything)
    other.write(**everything)
    project.up()
    other.up()
    assert project.preview() == set()

    project.destroy()

    assert control_plane.api.get(f"/api/v1/namespaces/{project.namespace}") is None
    assert claim(control_plane, other.namespace) is not None
    assert other.preview() == set(), "nothing of it was shared"
