"""Our own client on a real API server, as its administrator and as the controller."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from nanoclaw_dev.cluster.control_plane import ControlPlane
from nanoclaw_runtime.contract import names
from nanoclaw_runtime.contract.permissions import CONTROLLER_RULES, Rule
from nanoclaw_runtime.kube.client import KubeClient
from nanoclaw_runtime.kube.errors import Target
from nanoclaw_runtime.kube.resources import Resource
from tests.support.guarded import CUTS, Guarded, guarded_namespace, in_force

ACCOUNTS = Resource("ServiceAccount", "serviceaccounts")
RBAC = "/apis/rbac.authorization.k8s.io/v1"


@pytest.fixture
async def admin(apiserver: ControlPlane) -> AsyncIterator[KubeClient]:
    async with await KubeClient.connect(apiserver.kubeconfig) as client:
        yield client


@pytest.fixture
def nowhere() -> Iterator[str]:
    """The address of a server that is not there. Its port is taken, so that nobody else's begins to listen on it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture
def contract_rules() -> tuple[Rule, ...]:
    """What the controller's Role is made of."""
    return CONTROLLER_RULES


@pytest.fixture
async def controller_kubeconfig(
    admin: KubeClient, apiserver: ControlPlane, namespace: str, contract_rules: tuple[Rule, ...], tmp_path: Path
) -> Path:
    """A kubeconfig of the controller's ServiceAccount, which has exactly the contract's Role."""
    metadata = {"name": names.CONTROLLER}
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}
    await admin.create(ACCOUNTS, account, namespace=namespace)
    rules = [
        {
            "apiGroups": [rule.api_group],
            "resources": list(rule.resources),
            "verbs": list(rule.verbs),
            "resourceNames": list(rule.names),
        }
        for rule in contract_rules
    ]
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata, "rules": rules}
    await admin.create(Resource("Role", "roles", RBAC), role, namespace=namespace)
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": metadata,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": names.CONTROLLER},
        "subjects": [{"kind": "ServiceAccount", "name": names.CONTROLLER, "namespace": namespace}],
    }
    await admin.create(Resource("RoleBinding", "rolebindings", RBAC), binding, namespace=namespace)
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}}
    path = ACCOUNTS.path(namespace, names.CONTROLLER, "token")
    token = (await admin.request("POST", path, Target("create", "token"), body=request))["status"]["token"]
    user = {"token": token}
    kubeconfig = write_kubeconfig(tmp_path / "controller", apiserver.kubeconfig, user=user, namespace=namespace)
    async with await KubeClient.connect(kubeconfig) as client:
        await allowed(client, contract_rules[0])
    return kubeconfig


async def allowed(client: KubeClient, rule: Rule) -> None:
    """Return when the client may do this. The API server learns of roles and bindings by watching, a moment later."""
    resource, _, subresource = rule.resources[0].partition("/")
    name = rule.names[0] if rule.names else ""
    async with asyncio.timeout(60):
        while not await client.allowed(
            rule.verbs[0], resource, group=rule.api_group, subresource=subresource, name=name
        ):
            await asyncio.sleep(0.02)


@pytest.fixture
async def controller(controller_kubeconfig: Path) -> AsyncIterator[KubeClient]:
    async with await KubeClient.connect(controller_kubeconfig) as client:
        yield client


@pytest.fixture(scope="session")
def guarded_namespaces(apiserver: ControlPlane) -> Iterator[Callable[[str], str]]:
    """Their names by the name of the cut, each made once."""
    with contextlib.ExitStack() as made:
        yield functools.cache(lambda cut: made.enter_context(guarded_namespace(apiserver, CUTS[cut])))


@pytest.fixture
def cut() -> str:
    """Which of the stacks in `CUTS` the rules are of."""
    return "per-type"


@pytest.fixture
async def guarded(guarded_namespaces: Callable[[str], str], cut: str, admin: KubeClient) -> Guarded:
    """Policies take effect a moment after they are there."""
    ready = Guarded(admin, guarded_namespaces(cut))
    async with asyncio.timeout(60):
        while not await in_force(ready):
            await asyncio.sleep(0.1)
    return ready


def write_kubeconfig(
    path: Path, original: Path, *, user: dict[str, Any] | None = None, namespace: str = "", server: str = ""
) -> Path:
    """A copy of `original` with another user, default namespace or server."""
    config = yaml.safe_load(original.read_text())
    if user is not None:
        config["users"][0]["user"] = user
    if namespace:
        config["contexts"][0]["context"]["namespace"] = namespace
    if server:
        config["clusters"][0]["cluster"] = {"server": server}
        config["users"][0]["user"] = {}
    path.write_text(yaml.safe_dump(config))
    return path
