"""The declared groups, followed live through a real API server."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from structlog.testing import capture_logs

from nanoclaw_runtime.contract import names
from nanoclaw_runtime.contract.config import Groups, GroupSpec
from nanoclaw_runtime.kube.client import KubeClient
from nanoclaw_runtime.kube.errors import Target
from nanoclaw_runtime.kube.groups import watch_groups
from nanoclaw_runtime.kube.resources import CONFIG_MAPS
from tests.support.objects import config_map

pytestmark = pytest.mark.apiserver


def declared(*folders: str) -> str:
    return Groups(groups=tuple(GroupSpec(folder=folder, name=folder) for folder in folders)).model_dump_json(
        by_alias=True
    )


async def declare(admin: KubeClient, namespace: str, **data: str) -> None:
    path = CONFIG_MAPS.path(namespace, names.GROUPS_CONFIG)
    body = config_map(names.GROUPS_CONFIG, **data)
    await admin.request("PUT", path, Target("update", "configmaps"), body=body)


async def test_groups_follow_the_config_map_and_survive_mistakes(
    admin: KubeClient, controller: KubeClient, namespace: str
) -> None:
    await admin.create(
        CONFIG_MAPS, config_map(names.GROUPS_CONFIG, **{names.GROUPS_KEY: declared("main")}), namespace=namespace
    )
    async with contextlib.aclosing(watch_groups(controller, namespace)) as seen, asyncio.timeout(60):
        assert [group.folder for group in (await anext(seen)).groups] == ["main"]

        with capture_logs() as logs:
            await declare(admin, namespace, **{names.GROUPS_KEY: '{"groups": [{"folder": "no good", "name": "x"}]}'})
            await declare(admin, namespace, other="key")
            await admin.delete(CONFIG_MAPS, names.GROUPS_CONFIG, namespace=namespace)
            again = config_map(names.GROUPS_CONFIG, **{names.GROUPS_KEY: declared("main", "team")})
            await admin.create(CONFIG_MAPS, again, namespace=namespace)
            # None of the mistakes was yielded: the next thing is the good one.
            assert [group.folder for group in (await anext(seen)).groups] == ["main", "team"]
    events = [entry["event"] for entry in logs]
    assert events == ["groups.invalid", "groups.invalid", "groups.config-gone"]
    assert "no good" in logs[0]["problem"]
    assert names.GROUPS_KEY in logs[1]["problem"]
