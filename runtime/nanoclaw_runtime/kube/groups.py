"""The groups the stack declares, read live from their ConfigMap.

The Role allows exactly this one object, by name. Content that is not valid, and a ConfigMap that
vanishes, are logged and leave the last good groups in force: a mistake in the stack must not stop
the chats that work.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator

import structlog
from pydantic import ValidationError

from nanoclaw_runtime.contract import names
from nanoclaw_runtime.contract.config import Groups
from nanoclaw_runtime.kube.client import KubeClient
from nanoclaw_runtime.kube.resources import CONFIG_MAPS, ConfigMap
from nanoclaw_runtime.kube.watch import Watch

_log = structlog.get_logger(__name__)


async def watch_groups(client: KubeClient, namespace: str) -> AsyncGenerator[Groups]:
    """The declared groups, at once and whenever they change. Never ends and never raises.

    Yields nothing before there has been a valid ConfigMap.
    """
    watch = Watch(client, CONFIG_MAPS, ConfigMap, namespace=namespace, fields=f"metadata.name={names.GROUPS_CONFIG}")
    known: Groups | None = None
    async with contextlib.aclosing(watch.batches()) as batches:
        async for batch in batches:
            for change in batch.changes:
                found = _groups(change.object)
                if found is not None and found != known:
                    known = found
                    yield found


def _groups(declared: ConfigMap | None) -> Groups | None:
    if declared is None:
        _log.warning("groups.config-gone", config_map=names.GROUPS_CONFIG, remedy="run `pulumi up` to restore it")
        return None
    content = (declared.data or {}).get(names.GROUPS_KEY)
    if content is None:
        _log.error("groups.invalid", config_map=names.GROUPS_CONFIG, problem=f"the key {names.GROUPS_KEY} is missing")
        return None
    try:
        return Groups.model_validate_json(content)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]
        _log.error("groups.invalid", config_map=names.GROUPS_CONFIG, problem="; ".join(problems))
        return None
