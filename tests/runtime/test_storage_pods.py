"""The pods of a measurement: nobody's rights, nobody's labels, and each on the node it should be on."""

from __future__ import annotations

import pytest

from nanoclaw_runtime.cli import bench_pods
from nanoclaw_runtime.cli.bench_pods import Place
from nanoclaw_runtime.contract import labels, names

NEAR, FAR = "near", "far"


def place(*, openshift=False, **more):
    return Place("nanoclaw-bench-1", "data", "registry.example/runtime:1", openshift=openshift, **more)


def pods(**more):
    where = place(**more)
    return [
        bench_pods.answering(where, NEAR, node=None),
        bench_pods.answering(where, FAR, node=None),
        bench_pods.measuring(where, [NEAR, FAR], node=None),
    ]


@pytest.mark.parametrize("pod", pods(), ids=lambda pod: pod["metadata"]["name"])
def test_guardrails_see_no_agent_in_it(pod):
    assert not any(key.startswith(labels.PREFIX) for key in pod["metadata"]["labels"])
    assert pod["metadata"]["labels"][labels.COMPONENT] != labels.AGENT
    assert pod["spec"].get("serviceAccountName") != names.AGENT_ACCOUNT
    assert pod["spec"]["automountServiceAccountToken"] is False


def test_openshift_chooses_the_user():
    chosen = {"runAsUser", "runAsGroup", "fsGroup"}
    assert [chosen & set(pod["spec"]["securityContext"]) for pod in pods(openshift=True)] == [set()] * 3
    assert [pod["spec"]["securityContext"]["runAsUser"] for pod in pods()] == [1000] * 3


def test_without_names_the_scheduler_keeps_them_together_and_apart():
    near, far, measuring = (pod["spec"]["affinity"] for pod in pods())
    assert (near, list(far), list(measuring)) == ({}, ["podAntiAffinity"], ["podAffinity"])
    alone = bench_pods.measuring(place(), [], node=None)
    assert alone["spec"]["affinity"] == {}


def test_a_named_node_is_asked_for_so_that_the_scheduler_still_binds_the_claim():
    pod = bench_pods.answering(place(), FAR, node="b")
    assert "nodeName" not in pod["spec"]
    (term,) = pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][
        "nodeSelectorTerms"
    ]
    assert term["matchFields"][0]["values"] == ["b"]


def test_all_of_them_work_in_one_folder_of_the_claim():
    folders = {
        command[command.index("--folder") + 1]
        for pod in pods()
        for command in [pod["spec"]["containers"][0]["command"]]
    }
    assert folders == {"/claim/.nanoclaw-bench-1"}


def test_what_the_installation_needs_to_start_a_pod_is_taken_over():
    taints = ({"key": "agents", "operator": "Exists"},)
    secrets = ({"name": "registry"},)
    for pod in pods(tolerations=taints, pull_secrets=secrets, pull_policy="Always"):
        assert (pod["spec"]["tolerations"], pod["spec"]["imagePullSecrets"]) == (list(taints), list(secrets))
        assert pod["spec"]["containers"][0]["imagePullPolicy"] == "Always"
