"""The admission rules for who makes and changes what is an agent's, and what the controller may make and change."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import pytest

from nanoclaw_runtime.contract import labels, names
from nanoclaw_runtime.domain.model import SessionRef
from nanoclaw_runtime.kube.errors import AlreadyExists, Forbidden
from nanoclaw_runtime.kube.resources import DEPLOYMENTS, JOBS, PODS, STATEFUL_SETS
from nanoclaw_runtime.manifests.job import agent_job
from tests.support.agent_pods import SECRET, agent, claim, plain
from tests.support.guarded import ADMINISTRATOR, KUBELET, Guarded
from tests.support.plans import SHAPES, holder, plan

pytestmark = pytest.mark.apiserver


@pytest.mark.parametrize(
    "user", [ADMINISTRATOR, KUBELET, "system:serviceaccount:kube-system:replicaset-controller", "{}"]
)
async def test_nobody_but_the_job_controller_makes_pods_of_agents(guarded: Guarded, user: str) -> None:
    user = guarded.controller if user == "{}" else user
    with pytest.raises(Forbidden, match=rf"Jobs or StatefulSets of nanoclaw-controller alone.*made by {user}"):
        await guarded.make_pod(agent(SHAPES["task"]), user)


def job(**changes: Any) -> dict[str, Any]:
    """A Job of somebody else, with something of ours in it."""
    made = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "theirs", "labels": changes.get("labels", {})},
        "spec": {"template": {"metadata": {"labels": changes.get("inner", {})}, "spec": plain("x")["spec"]}},
    }
    made["spec"]["template"]["spec"] |= {"restartPolicy": "Never"} | changes.get("spec", {})
    return made


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"labels": labels.component(labels.AGENT)}, id="component"),
        pytest.param({"inner": labels.component(labels.AGENT)}, id="component of its pods"),
        pytest.param({"inner": {labels.SESSION: "s1"}}, id="session of its pods"),
        pytest.param({"spec": {"serviceAccountName": names.AGENT_ACCOUNT}}, id="account of its pods"),
    ],
)
async def test_nobody_but_the_controller_makes_jobs_of_agents(guarded: Guarded, changes: dict[str, Any]) -> None:
    with pytest.raises(Forbidden, match=rf"made by nanoclaw-controller alone.*made by {ADMINISTRATOR}"):
        await guarded.send(ADMINISTRATOR, "POST", JOBS, job(**changes))


@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_whatever_job_the_controller_makes_is_an_agents(guarded: Guarded, method: str) -> None:
    """Or else one without a label of ours could mount every Secret of the namespace, and no rule would look at it."""
    key = {"volumes": [{"name": "key", "secret": {"secretName": "nanoclaw-credentials"}}]}
    made, place = job(spec=key), ()
    if method == "PATCH":
        made["metadata"]["name"] = "taken-over"
        await guarded.send(ADMINISTRATOR, "POST", JOBS, made)
        made, place = {"metadata": {"annotations": {"note": "mine"}}}, ("taken-over",)
    with pytest.raises(Forbidden, match=r"makes objects of agents alone.*account"):
        await guarded.send(guarded.controller, method, JOBS, made, place)


OWN = {"name": names.CONTROLLER_CONTAINER, "image": "registry.example/controller:1"}
SCRATCH = {"name": "scratch", "emptyDir": {}}


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"containers": [OWN | {"image": "registry.example/other:1"}]}, id="image"),
        pytest.param({"containers": [OWN | {"command": ["sh"]}]}, id="command"),
        pytest.param({"containers": [OWN | {"securityContext": {"runAsUser": 0}}]}, id="rights"),
        pytest.param({"containers": [OWN | {"env": [{"name": "KEY", "valueFrom": SECRET}]}]}, id="Secret as variable"),
        pytest.param({"containers": [OWN, OWN | {"name": "other"}]}, id="second container"),
        pytest.param({"initContainers": [OWN | {"name": "other"}]}, id="init container"),
        pytest.param({"serviceAccountName": "default"}, id="account"),
        pytest.param({"hostPID": True}, id="node's processes"),
        pytest.param({"hostNetwork": True}, id="node's network"),
        pytest.param({"securityContext": {"runAsUser": 0}}, id="root"),
        pytest.param({"volumes": [SCRATCH, {"name": "host", "hostPath": {"path": "/"}}]}, id="folder of the node"),
        pytest.param({"volumes": [SCRATCH, {"name": "key", "secret": {"secretName": "x"}}]}, id="Secret"),
        pytest.param({"volumes": [SCRATCH, {"name": "theirs", **claim("theirs")}]}, id="somebody's claim"),
    ],
)
async def test_of_its_own_deployment_the_controller_changes_which_claims_it_mounts_and_nothing_else(
    guarded: Guarded, changed: dict[str, Any]
) -> None:
    marks = labels.component(labels.CONTROLLER)
    pod = {"containers": [OWN], "volumes": [SCRATCH], "serviceAccountName": names.CONTROLLER}
    body = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": names.CONTROLLER, "labels": marks},
        "spec": {"selector": {"matchLabels": marks}, "template": {"metadata": {"labels": marks}, "spec": pod}},
    }
    with contextlib.suppress(AlreadyExists):
        await guarded.send(ADMINISTRATOR, "POST", DEPLOYMENTS, body)

    async def patch(user: str, spec: dict[str, Any]) -> None:
        inner = {"spec": {"template": {"spec": spec}}}
        await guarded.send(user, "PATCH", DEPLOYMENTS, inner, (names.CONTROLLER,), dry_run=True)

    with pytest.raises(Forbidden, match="which claims of groups it mounts"):
        await patch(guarded.controller, changed)
    await patch(ADMINISTRATOR, changed)
    mount = {"name": "nanoclaw-group-new", "mountPath": "/data/groups/new"}
    volumes = [SCRATCH, {"name": mount["name"], **claim(mount["name"])}]
    await patch(guarded.controller, {"containers": [OWN | {"volumeMounts": [mount]}], "volumes": volumes})


@pytest.mark.parametrize("cut", ["nodelocal"])
async def test_sets_of_agents_need_groups_with_claims(guarded: Guarded) -> None:
    with pytest.raises(Forbidden, match="pattern 'nodelocal' agents run in Jobs only"):
        await guarded.send(guarded.controller, "POST", STATEFUL_SETS, holder(SHAPES["statefulset"]))


async def test_the_controller_alone_takes_a_set_over_for_the_next_session(guarded: Guarded) -> None:
    first, second = (replace(SHAPES["statefulset"], ref=SessionRef("team", each)) for each in ("s1", "s2"))
    name = (await guarded.send(guarded.controller, "POST", STATEFUL_SETS, holder(first)))["metadata"]["name"]
    following = {"metadata": holder(second)["metadata"], "spec": {"template": holder(second)["spec"]["template"]}}

    await guarded.send(guarded.controller, "PATCH", STATEFUL_SETS, {"spec": {"replicas": 0}}, (name,))
    with pytest.raises(Forbidden, match="delete the object instead"):
        await guarded.send(ADMINISTRATOR, "PATCH", STATEFUL_SETS, following, (name,))
    await guarded.send(guarded.controller, "PATCH", STATEFUL_SETS, following, (name,))
    other = {"spec": {"template": {"spec": {"serviceAccountName": "default"}}}}
    with pytest.raises(Forbidden, match=r"makes objects of agents alone.*default"):
        await guarded.send(guarded.controller, "PATCH", STATEFUL_SETS, other, (name,))


async def test_what_is_an_agents_stays_as_it_is_and_the_rest_goes_on(guarded: Guarded) -> None:
    pod = (await guarded.make_pod(agent(SHAPES["task"])))["metadata"]["name"]
    other = (await guarded.send(ADMINISTRATOR, "POST", PODS, plain("other")))["metadata"]["name"]

    async def patch(name: str, body: Any, subresource: str = "") -> None:
        await guarded.send(ADMINISTRATOR, "PATCH", PODS, body, (name, subresource))

    stays = "neither added to a pod nor changed nor taken away"
    for body in (
        {"labels": {labels.GROUP: "main"}},
        {"labels": {labels.GROUP: None}},
        {"labels": {labels.COMPONENT: "controller"}},
        {"annotations": {labels.FOLDER: "main"}},
        {"labels": {"nanoclaw.dev/new": "x"}},
    ):
        with pytest.raises(Forbidden, match=stays):
            await patch(pod, {"metadata": body})
    for marks in ({labels.GROUP: "main"}, labels.component(labels.AGENT)):
        with pytest.raises(Forbidden, match=stays):
            await patch(other, {"metadata": {"labels": marks}})
    image = [{"name": "agent", "image": "registry.example/other:1"}]
    made = await guarded.api.get(PODS, pod, namespace=guarded.namespace)
    image = [made["spec"]["containers"][0] | image[0]]
    with pytest.raises(Forbidden, match="image of an agent that runs is not changed"):
        await patch(pod, {"spec": {"containers": image}})
    debug = [{"name": "debug", "image": "busybox:1", "targetContainerName": "agent"}]
    with pytest.raises(Forbidden, match="could read what it was given"):
        await patch(pod, {"spec": {"ephemeralContainers": debug}}, "ephemeralcontainers")

    await patch(pod, {"metadata": {"labels": {"team": "blue"}, "finalizers": ["example.org/kept"]}})
    await patch(pod, {"metadata": {"finalizers": None}})
    await patch(other, {"metadata": {"labels": {"app": "x"}}})
    await patch(
        other, {"spec": {"ephemeralContainers": [debug[0] | {"targetContainerName": "main"}]}}, "ephemeralcontainers"
    )
    await guarded.send(KUBELET, "PATCH", PODS, {"status": {"phase": "Succeeded"}}, (pod, "status"))
    for name in (pod, other):
        await guarded.send(ADMINISTRATOR, "DELETE", PODS, None, (name,))


async def test_a_job_of_an_agent_is_not_made_another_groups(guarded: Guarded) -> None:
    made = await guarded.send(guarded.controller, "POST", JOBS, agent_job(plan("team", "kept")))
    place = (made["metadata"]["name"],)
    with pytest.raises(Forbidden, match="delete the object instead"):
        await guarded.send(ADMINISTRATOR, "PATCH", JOBS, {"metadata": {"labels": {labels.GROUP: "main"}}}, place)
    await guarded.send(ADMINISTRATOR, "PATCH", JOBS, {"metadata": {"annotations": {"note": "seen"}}}, place)
    collector = "system:serviceaccount:kube-system:generic-garbage-collector"
    await guarded.send(collector, "PATCH", JOBS, {"metadata": {"finalizers": ["foregroundDeletion"]}}, place)


async def test_another_namespace_is_nobodys_business(guarded: Guarded, namespace: str) -> None:
    await Guarded(guarded.api, namespace).make_pod(plain("theirs", **labels.component(labels.AGENT)), ADMINISTRATOR)
