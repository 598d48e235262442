"""An installation as OpenShift runs it, on a real node: users of the namespace's range, and the guardrails in force.

OpenShift's admission is played by a MutatingAdmissionPolicy of this namespace, which fills in what `restricted-v2`
would: a user and a group of volumes, and no group of the process. Everything else is the stack's own.
"""

from __future__ import annotations

import contextlib

import pytest

from nanoclaw_dev import engine_binaries
from nanoclaw_dev.trial import Installation
from nanoclaw_runtime.contract import labels
from nanoclaw_runtime.kube.errors import Forbidden
from nanoclaw_runtime.kube.resources import PODS
from tests.support import cluster as support
from tests.support.objects import plain_pod
from tests.support.scc import PROJECT
from tests.support.world import run

pytestmark = [pytest.mark.cluster, pytest.mark.engine, pytest.mark.timeout(300)]

USER = PROJECT.uids[7]
# Any of the range, and in nobody's /etc/passwd.

API = "/apis/admissionregistration.k8s.io/v1"
FILLED_IN = f"""Object{{spec: Object.spec{{securityContext: Object.spec.securityContext{{
    runAsUser: {USER}, fsGroup: {USER}
}}}}}}"""


def admission(namespace):
    """Policy and binding by their paths; applied before the namespace is there."""
    metadata = {"name": f"openshift.{namespace}"}
    here = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    pods = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    policy = {
        "failurePolicy": "Fail",
        "reinvocationPolicy": "Never",
        "matchConstraints": {"namespaceSelector": here, "resourceRules": [pods]},
        "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": FILLED_IN}}],
    }
    made = {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": metadata}
    return {
        f"{API}/mutatingadmissionpolicies/{metadata['name']}": made
        | {"kind": "MutatingAdmissionPolicy", "spec": policy},
        f"{API}/mutatingadmissionpolicybindings/{metadata['name']}": made
        | {"kind": "MutatingAdmissionPolicyBinding", "spec": {"policyName": metadata["name"]}},
    }


@pytest.fixture(scope="module")
def installation(cluster, tmp_path_factory):
    binaries = engine_binaries.present()
    if binaries is None:
        support.unavailable("the Pulumi engine is not built: `make test` builds it")
    settings = {
        "runtime": {"idleTimeout": 600},
        "guardrails": {"enabled": True},
        "groups": [{"folder": folder, "name": folder, "requiresTrigger": False} for folder in ("main", "Team_42")],
    }
    folder = tmp_path_factory.mktemp("openshift")
    with fills_in(cluster, f"trial-{folder.name}"):
        made = Installation.up(cluster, binaries, folder, settings=settings, platform="openshift")
        assert made.namespace == f"trial-{folder.name}"
        yield made
        made.leave()


@contextlib.contextmanager
def fills_in(cluster, namespace):
    """Pods of the namespace get their ids from admission, as long as the block lasts."""
    api, objects = cluster.control_plane.api, admission(namespace)
    for path, each in objects.items():
        api.apply(path, each)
    try:
        yield
    finally:
        for path in objects:
            api.delete(path)


@pytest.fixture
async def chat(installation):
    async with installation.chat() as chat:
        yield chat


async def test_a_message_is_answered_by_an_agent_of_no_known_user(chat, core):
    answer = await chat.answer(await chat.send("Team_42", "write notes.txt remember me; read notes.txt"))
    session = f"{labels.SESSION}={answer.payload['session']}"
    (pod,) = await chat.client.list(PODS, namespace=chat.namespace, labels=session)
    asked = 'exec 2>&1; id -u; id -g; echo "$HOME"; touch /new'
    told = run(core, chat.namespace, pod["metadata"]["name"], "sh", "-c", asked)

    assert "remember me" in answer.payload["text"]
    assert told.split("\n")[:3] == [str(USER), "0", "/home/node"]
    assert "Read-only file system" in told


async def test_the_controller_writes_its_database_as_no_known_user(chat, core):
    (pod,) = await chat.client.list(PODS, namespace=chat.namespace, labels=labels.CONTROLLER_SELECTOR)
    told = run(
        core, chat.namespace, pod["metadata"]["name"], "sh", "-c", "id -u; id -g; stat -c %u /nanoclaw/store/*.db"
    )

    assert told.split() == [str(USER), "0", str(USER)]


async def test_main_reads_what_is_only_its_own(chat):
    answer = await chat.answer(await chat.send("main", "hello"))

    assert answer.payload["text"] == "Echo: hello"


async def test_the_guardrails_are_in_force_beside_it(chat):
    pod = plain_pod("stranger", **labels.component(labels.AGENT))
    with pytest.raises(Forbidden, match="made by Jobs or StatefulSets of nanoclaw-controller alone"):
        await chat.client.create(PODS, pod, namespace=chat.namespace)
