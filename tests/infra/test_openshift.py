"""OpenShift's constraints: the verdicts of its real admission, written down, and what a stack binds."""

from __future__ import annotations

import pytest

from nanoclaw_runtime.contract import names
from tests.infra.recording import configuration, manifests, record, settings
from tests.support.scc import MCS, PROJECT, REQUIRED, UID_RANGE, Project, admit

OURS = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
TIGHT = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
PAPER = {"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000}


def pod(security=None, container=None, annotations=None, **spec):
    containers = [{"name": "agent", "image": "agent:1", **({"securityContext": container} if container else {})}]
    spec |= {"securityContext": security} if security else {}
    return {"metadata": {"annotations": annotations or {}}, "spec": {"containers": containers, **spec}}


def test_a_pod_that_says_nothing_gets_everything_from_restricted_v2():
    verdict = admit(pod(), PROJECT)
    filled = verdict.pod["spec"]

    assert verdict.constraint == "restricted-v2"
    assert filled["securityContext"] == {
        "fsGroup": 1000650000,
        "seccompProfile": {"type": "RuntimeDefault"},
        "seLinuxOptions": {"level": "s0:c26,c0"},
    }
    assert filled["containers"][0]["securityContext"] == {
        "runAsUser": 1000650000,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }


def test_a_pod_as_ours_is_admitted_by_restricted_v2():
    assert admit(pod(OURS, TIGHT), PROJECT).constraint == "restricted-v2"


def test_the_papers_fixed_ids_are_refused():
    verdict = admit(pod(PAPER), PROJECT)
    told = " ".join(verdict.refusals)

    assert verdict.constraint is None
    assert "1000 is not an allowed group" in told
    assert "must be in the ranges: [1000650000, 1000659999]" in told
    assert 'provider "nonroot-v2": Forbidden: not usable by user or serviceaccount' in told


def test_the_papers_ids_are_admitted_by_nonroot_v2_where_it_is_bound():
    assert admit(pod(PAPER), PROJECT, bound={"nonroot-v2"}).constraint == "nonroot-v2"


def test_the_papers_ids_are_admitted_by_restricted_v3_with_users_of_their_own():
    assert admit(pod(PAPER, hostUsers=False), PROJECT).constraint == "restricted-v3"


def test_the_annotation_keeps_every_other_constraint_away():
    pinned = pod(PAPER, annotations={REQUIRED: "restricted-v2"})
    verdict = admit(pinned, PROJECT, bound={"nonroot-v2"})

    assert verdict.constraint is None
    assert all(refusal.startswith("provider restricted-v2: ") for refusal in verdict.refusals)
    assert admit(pod(annotations={REQUIRED: "nobodys"}), PROJECT).refusals == ("required scc/nobodys not found",)


@pytest.mark.parametrize(
    ("refused", "words"),
    [
        pytest.param(
            pod(volumes=[{"name": "x", "hostPath": {"path": "/"}}]), "hostPath volumes are not allowed", id="hostPath"
        ),
        pytest.param(pod(hostNetwork=True), "Host network is not allowed", id="hostNetwork"),
        pytest.param(pod(hostPID=True), "Host PID is not allowed", id="hostPID"),
        pytest.param(pod(container={"privileged": True}), "Privileged containers", id="privileged"),
        pytest.param(pod(container={"allowPrivilegeEscalation": True}), "privilege escalation", id="escalation"),
        pytest.param(pod(container={"capabilities": {"add": ["SYS_ADMIN"]}}), "may not be added", id="capability"),
        pytest.param(pod({"seccompProfile": {"type": "Unconfined"}}), "not a valid seccomp", id="seccomp"),
        pytest.param(pod({"seLinuxOptions": {"level": "s0:c1,c2"}}), "must be s0:c26,c0", id="SELinux"),
        pytest.param(pod(container={"runAsUser": 0}), "must be in the ranges", id="root"),
    ],
)
def test_what_restricted_v2_forbids_is_refused(refused, words):
    verdict = admit(refused, PROJECT)

    assert verdict.constraint is None
    assert words in " ".join(verdict.refusals)


def test_root_is_refused_by_nonroot_v2_too():
    told = " ".join(admit(pod({"runAsUser": 0}), PROJECT, bound={"nonroot-v2"}).refusals)

    assert "running with the root UID is forbidden" in told


def test_supplemental_groups_of_a_namespace_may_differ_from_its_users():
    project = Project.of({UID_RANGE: "1000/10", MCS: "s0", "openshift.io/sa.scc.supplemental-groups": "2000-2009"})

    assert admit(pod({"runAsUser": 1009, "fsGroup": 2009}), project).constraint == "restricted-v2"
    assert admit(pod({"fsGroup": 1000}), project).constraint is None


def bindings(stack="local", **changes):
    config = configuration(stack, {"nanoclaw:platform": "openshift", "nanoclaw:settings": settings(stack) | changes})
    return [each for each in manifests(record(stack, config)) if each["metadata"].get("name") == "nanoclaw-scc"]


def test_nothing_is_bound_unless_the_stack_asks():
    assert bindings() == []
    assert bindings(openshift={"scc": "nonroot-v2"}) == []


def test_the_accounts_of_the_installation_may_use_the_constraint_and_nobody_else():
    (binding,) = bindings(openshift={"scc": "nonroot-v2", "bind": True})

    assert binding["kind"] == "RoleBinding"
    assert binding["roleRef"] == {
        "apiGroup": "rbac.authorization.k8s.io",
        "kind": "ClusterRole",
        "name": "system:openshift:scc:nonroot-v2",
    }
    assert binding["subjects"] == [
        {"kind": "ServiceAccount", "name": name, "namespace": "nanoclaw"}
        for name in (names.CONTROLLER, names.AGENT_ACCOUNT)
    ]
