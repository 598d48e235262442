"""Where the command line finds an installation, whatever keeps its controller running."""

from __future__ import annotations

from typing import Any

import pytest

from nanoclaw_runtime.cli.installation import DAEMON_SETS, find_controller, namespaces
from nanoclaw_runtime.contract import labels, names
from nanoclaw_runtime.kube.client import KubeClient
from nanoclaw_runtime.kube.errors import NotFound
from nanoclaw_runtime.kube.resources import DEPLOYMENTS, Resource

pytestmark = pytest.mark.apiserver


def keeper(kind: Resource) -> dict[str, Any]:
    """What keeps the controller running."""
    ours = labels.component(labels.CONTROLLER)
    pod = {"metadata": {"labels": ours}, "spec": {"containers": [{"name": "controller", "image": "none:1"}]}}
    return {
        "apiVersion": "apps/v1",
        "kind": kind.kind,
        "metadata": {"name": names.CONTROLLER, "labels": ours},
        "spec": {"selector": {"matchLabels": ours}, "template": pod},
    }


@pytest.mark.parametrize("kind", [DEPLOYMENTS, DAEMON_SETS], ids=lambda kind: kind.kind)
async def test_an_installation_is_found_by_its_controller(admin: KubeClient, namespace: str, kind: Resource) -> None:
    assert namespace not in await namespaces(admin)
    await admin.create(kind, keeper(kind), namespace=namespace)
    assert namespace in await namespaces(admin)
    found = await find_controller(admin, namespace)
    assert (found["kind"], found["metadata"]["name"]) == (kind.kind, names.CONTROLLER)
    await admin.delete(kind, names.CONTROLLER, namespace=namespace)


async def test_without_a_controller_its_deployment_is_missed(admin: KubeClient, namespace: str) -> None:
    with pytest.raises(NotFound) as missed:
        await find_controller(admin, namespace)
    assert missed.value.target.resource == DEPLOYMENTS.plural


async def test_who_may_look_nowhere_finds_none(controller: KubeClient) -> None:
    assert await namespaces(controller) == set()
