"""Whose pod a token is, on a real API server: asked with exactly the rights the contract gives a bridged controller."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from nanoclaw_dev.cluster.control_plane import ControlPlane
from nanoclaw_runtime.bridge.callers import PodCallers
from nanoclaw_runtime.bridge.server import Caller, CallerRefused
from nanoclaw_runtime.contract import labels, names
from nanoclaw_runtime.contract.permissions import BRIDGE_RULES
from nanoclaw_runtime.kube.client import KubeClient
from nanoclaw_runtime.kube.deadline import Deadline
from nanoclaw_runtime.kube.errors import Target
from nanoclaw_runtime.kube.reflector import Reflector
from nanoclaw_runtime.kube.resources import PODS, Pod, Resource
from nanoclaw_runtime.kube.token_review import review
from tests.apiserver.conftest import ACCOUNTS, RBAC, allowed
from tests.support import cluster as support

pytestmark = pytest.mark.apiserver

ROLES = Resource("ClusterRole", "clusterroles", RBAC, namespaced=False)
BINDINGS = Resource("ClusterRoleBinding", "clusterrolebindings", RBAC, namespaced=False)


@pytest.fixture
async def reviewer(admin: KubeClient, controller: KubeClient, namespace: str) -> AsyncIterator[KubeClient]:
    """The controller, with the ClusterRole of the transport `bridge`, too."""
    name = f"{names.TOKEN_REVIEWER}-{namespace}"
    rules = [
        {"apiGroups": [rule.api_group], "resources": list(rule.resources), "verbs": list(rule.verbs)}
        for rule in BRIDGE_RULES
    ]
    kind = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": name}}
    await admin.create(ROLES, kind | {"kind": "ClusterRole", "rules": rules})
    binding = {
        "kind": "ClusterRoleBinding",
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": names.CONTROLLER, "namespace": namespace}],
    }
    await admin.create(BINDINGS, kind | binding)
    try:
        await allowed(controller, BRIDGE_RULES[0])
        yield controller
    finally:
        await admin.delete(BINDINGS, name)
        await admin.delete(ROLES, name)


@pytest.fixture
async def pods(reviewer: KubeClient, namespace: str) -> AsyncIterator[Reflector[Pod]]:
    reflector = Reflector(reviewer, PODS, Pod, namespace=namespace, labels=labels.AGENT_SELECTOR)
    watching = asyncio.create_task(reflector.run())
    try:
        await reflector.synced(Deadline.after(60))
        yield reflector
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching


@pytest.fixture
async def callers(reviewer: KubeClient, namespace: str, pods: Reflector[Pod]) -> PodCallers:
    return PodCallers(reviewer, namespace, pods)


async def account(admin: KubeClient, namespace: str, name: str = names.AGENT_ACCOUNT) -> None:
    await admin.create(
        ACCOUNTS, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}, namespace=namespace
    )


async def pod(
    admin: KubeClient, namespace: str, *, name: str = "agent", session: str = "s1", of: str = names.AGENT_ACCOUNT
) -> dict[str, Any]:
    metadata = {
        "name": name,
        "labels": labels.session("Team_42", session, "messages"),
        "annotations": {labels.FOLDER: "Team_42"},
    }
    spec = {"serviceAccountName": of, "containers": [{"name": "agent", "image": "registry.example/agent:1"}]}
    made = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
    return await admin.create(PODS, made, namespace=namespace)


async def token(
    admin: KubeClient,
    namespace: str,
    bound: dict[str, Any] | None,
    *,
    audience: str = names.BRIDGE_AUDIENCE,
    of: str = names.AGENT_ACCOUNT,
) -> str:
    """As the kubelet asks for the one it projects into a pod."""
    spec: dict[str, Any] = {"audiences": [audience], "expirationSeconds": 600}
    if bound is not None:
        metadata = bound["metadata"]
        spec["boundObjectRef"] = {
            "apiVersion": "v1",
            "kind": "Pod",
            "name": metadata["name"],
            "uid": metadata["uid"],
        }
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    path = ACCOUNTS.path(namespace, of, "token")
    made = await admin.request("POST", path, Target("create", "token"), body=body)
    return str(made["status"]["token"])


async def test_the_token_of_an_agents_pod_says_whose_session_it_is(
    admin: KubeClient, callers: PodCallers, namespace: str
) -> None:
    await account(admin, namespace)
    made = await pod(admin, namespace)
    assert await callers(await token(admin, namespace, made)) == Caller("Team_42", "s1", "agent")


async def test_a_token_for_another_audience_is_none(admin: KubeClient, callers: PodCallers, namespace: str) -> None:
    await account(admin, namespace)
    made = await pod(admin, namespace)
    for audience in ("nanoclaw-other", "https://kubernetes.default.svc.cluster.local"):
        with pytest.raises(CallerRefused, match="none for 'nanoclaw-bridge'"):
            await callers(await token(admin, namespace, made, audience=audience))


async def test_a_token_that_is_bound_to_no_pod_is_refused(
    admin: KubeClient, callers: PodCallers, namespace: str
) -> None:
    await account(admin, namespace)
    with pytest.raises(CallerRefused, match="of no agent's pod"):
        await callers(await token(admin, namespace, None))


async def test_another_accounts_pod_is_refused(admin: KubeClient, callers: PodCallers, namespace: str) -> None:
    await account(admin, namespace, "stranger")
    made = await pod(admin, namespace, of="stranger")
    with pytest.raises(CallerRefused, match="stranger"):
        await callers(await token(admin, namespace, made, of="stranger"))


async def test_a_pod_of_another_namespace_is_refused(
    admin: KubeClient, callers: PodCallers, apiserver: ControlPlane
) -> None:
    with support.temporary_namespace(apiserver) as other:
        await account(admin, other)
        made = await pod(admin, other)
        with pytest.raises(CallerRefused, match=other):
            await callers(await token(admin, other, made))


async def test_a_pod_that_is_gone_is_refused_and_so_is_the_old_one_of_a_name(
    admin: KubeClient, callers: PodCallers, pods: Reflector[Pod], namespace: str
) -> None:
    await account(admin, namespace)
    made = await pod(admin, namespace)
    old = await token(admin, namespace, made)
    assert (await callers(old)).session == "s1"
    body = {"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0}
    path = PODS.path(namespace, "agent")
    await admin.request("DELETE", path, Target("delete", "pods"), body=body)
    await pods.until("agent", lambda pod: pod is None, Deadline.after(60))
    with pytest.raises(CallerRefused):
        await callers(old)
    again = await pod(admin, namespace, session="s2")
    with pytest.raises(CallerRefused):
        await callers(old)
    assert (await callers(await token(admin, namespace, again))).session == "s2"


@pytest.mark.parametrize("made_up", ["", "x", "a.b.c", "\n", "x" * 10_000])
async def test_what_is_no_token_is_refused(callers: PodCallers, made_up: str) -> None:
    with pytest.raises(CallerRefused):
        await callers(made_up)


async def test_without_the_right_to_ask_nobody_is_let_in(
    admin: KubeClient, controller: KubeClient, namespace: str, tmp_path: Path
) -> None:
    await account(admin, namespace)
    made = await token(admin, namespace, await pod(admin, namespace))
    pods = Reflector(controller, PODS, Pod, namespace=namespace)
    with pytest.raises(CallerRefused, match="could not be reviewed"):
        await PodCallers(controller, namespace, pods)(made)
    assert await review(admin, made, names.BRIDGE_AUDIENCE) is not None
