"""A real API server takes every Job we make, in a namespace that enforces Pod Security `restricted`."""

from __future__ import annotations

import copy

import pytest

from nanoclaw_runtime.contract import names
from nanoclaw_runtime.contract.config import Pattern
from nanoclaw_runtime.contract.mounts import ExtraMount
from nanoclaw_runtime.kube.client import KubeClient
from nanoclaw_runtime.kube.errors import Forbidden, Invalid, Target
from nanoclaw_runtime.kube.resources import JOBS, PODS, STATEFUL_SETS, Resource
from nanoclaw_runtime.manifests.job import agent_job
from tests.apiserver.conftest import ACCOUNTS
from tests.support.plans import SHAPES, holder, plan

pytestmark = pytest.mark.apiserver

NAMESPACES = Resource("Namespace", "namespaces", namespaced=False)
STRICT = [("dryRun", "All"), ("fieldValidation", "Strict")]


@pytest.fixture
async def restricted(admin: KubeClient, namespace: str) -> str:
    """A namespace that enforces `restricted`, with the agents' account."""
    found = await admin.get(NAMESPACES, namespace)
    found["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] = "restricted"
    await admin.request("PUT", NAMESPACES.path("", namespace), Target("update", "namespaces"), body=found)
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": names.AGENT_ACCOUNT}}
    await admin.create(ACCOUNTS, account, namespace=namespace)
    return namespace


def pod_of(job: dict) -> dict:
    template = job["spec"]["template"]
    return {"apiVersion": "v1", "kind": "Pod", **template, "metadata": template["metadata"] | {"name": "agent"}}


@pytest.mark.parametrize(
    "shape", [name for name, made in SHAPES.items() if made.config.pattern is not Pattern.NODELOCAL]
)
async def test_what_holds_a_session_and_its_pod_are_accepted(admin: KubeClient, restricted: str, shape: str) -> None:
    job = holder(SHAPES[shape])
    kind = JOBS if job["kind"] == "Job" else STATEFUL_SETS
    made = await admin.request("POST", kind.path(restricted), Target("create", kind.plural), query=STRICT, body=job)
    for key, value in job["spec"].items():
        if key != "template":
            assert made["spec"][key] == value
    made = await admin.request("POST", PODS.path(restricted), Target("create", "pods"), query=STRICT, body=pod_of(job))
    assert made["spec"]["containers"][0]["stdinOnce"] is True
    assert "kube-api-access" not in str(made["spec"]["volumes"])


async def test_folders_of_a_node_are_not(admin: KubeClient, restricted: str) -> None:
    pod = pod_of(holder(SHAPES["nodelocal"]))
    with pytest.raises(Forbidden, match="hostPath"):
        await admin.request("POST", PODS.path(restricted), Target("create", "pods"), query=STRICT, body=pod)


async def test_the_check_is_a_check(admin: KubeClient, restricted: str) -> None:
    privileged = copy.deepcopy(pod_of(agent_job(plan("main", "s1"))))
    privileged["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    with pytest.raises(Forbidden, match="PodSecurity"):
        await admin.request("POST", PODS.path(restricted), Target("create", "pods"), query=STRICT, body=privileged)
    misspelt = agent_job(plan("main", "s1"))
    misspelt["spec"]["backofLimit"] = 0
    with pytest.raises(Invalid, match="backofLimit"):
        await admin.request("POST", JOBS.path(restricted), Target("create", "jobs"), query=STRICT, body=misspelt)


async def test_the_namespaces_we_make_forbid_folders_of_nodes(admin: KubeClient, restricted: str) -> None:
    pod = pod_of(agent_job(plan("main", "s1", extra=(ExtraMount("/workspace/extra/docs", host_path="/srv/docs"),))))
    with pytest.raises(Forbidden, match="hostPath"):
        await admin.request("POST", PODS.path(restricted), Target("create", "pods"), query=STRICT, body=pod)


async def test_the_longest_folder_still_makes_a_job(admin: KubeClient, restricted: str) -> None:
    job = agent_job(plan("X" * 64, "20260101-abcd"))
    await admin.request("POST", JOBS.path(restricted), Target("create", "jobs"), query=STRICT, body=job)
