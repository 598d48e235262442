"""The record of which node has which group: a ConfigMap, read by all members, written by one.

A write carries the version it was read with and the term of its writer, so that a member that was
replaced without knowing it writes nothing. Content that is not valid is never written over: it may
be somebody's repair gone wrong, and the groups' data is where the old content said.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, Final

import structlog
from pydantic import ValidationError

from nanoclaw_runtime.contract import labels, names
from nanoclaw_runtime.domain.assignment import Assignments
from nanoclaw_runtime.domain.errors import NanoclawError
from nanoclaw_runtime.kube.client import KubeClient, Manifest
from nanoclaw_runtime.kube.errors import NotFound
from nanoclaw_runtime.kube.lease import replace
from nanoclaw_runtime.kube.resources import CONFIG_MAPS, PODS, ConfigMap
from nanoclaw_runtime.kube.watch import Watch

KEY: Final = "assignments.json"

_log = structlog.get_logger(__name__)


class RecordInvalid(NanoclawError):
    """The record is there and cannot be understood."""


class Replaced(NanoclawError):
    """Another member writes the record now."""


@dataclass(frozen=True)
class Edition:
    """What the record says, as of a moment."""

    content: Assignments
    version: int = 0
    """The object's: what was written later has a higher one. 0 where that cannot be told."""


class Record:
    """The record as one member may write it. A term begins with `take`."""

    def __init__(self, client: KubeClient, namespace: str, node: str) -> None:
        self._client, self._namespace, self._node = client, namespace, node
        self._term: int | None = None

    async def take(self) -> Assignments:
        """Begin to write it: every earlier writer is refused from now on. Raises a KubeError or RecordInvalid."""
        found, content = await self._read()
        content = content.model_copy(update={"term": content.term + 1, "writer": self._node})
        await self._write(found, content)
        self._term = content.term
        return content

    async def look(self) -> Edition:
        """What it says now, whoever writes it. Raises RecordInvalid or a KubeError."""
        found, content = await self._read()
        return Edition(content, _version((found or {}).get("metadata", {}).get("resourceVersion", "")))

    async def read(self) -> tuple[Manifest | None, Assignments]:
        """The object to write on, and what it says. Raises Replaced, RecordInvalid or a KubeError."""
        found, content = await self._read()
        if content.term != self._term:
            raise Replaced(f"term {content.term} of {content.writer or 'nobody'}, not our {self._term}")
        return found, content

    async def write(self, found: Manifest | None, content: Assignments) -> None:
        """Raises Conflict when it was changed since it was read, or another KubeError."""
        await self._write(found, content.model_copy(update={"writer": self._node}))

    async def nodes_with_pods(self) -> set[str]:
        """Nodes that have a pod of a member, started or not; of one that has no node yet its own name."""
        found = await self._client.list(PODS, namespace=self._namespace, labels=labels.CONTROLLER_SELECTOR)
        return {pod["spec"].get("nodeName") or pod["metadata"]["name"] for pod in found}

    async def _read(self) -> tuple[Manifest | None, Assignments]:
        try:
            found = await self._client.get(CONFIG_MAPS, names.ASSIGNMENTS_CONFIG, namespace=self._namespace)
        except NotFound:
            return None, Assignments()
        return found, parsed(found.get("data"))

    async def _write(self, found: Manifest | None, content: Assignments) -> None:
        manifest: Manifest = found or {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": names.ASSIGNMENTS_CONFIG, "labels": labels.component(labels.CONTROLLER)},
        }
        manifest = manifest | {"data": {KEY: content.model_dump_json(by_alias=True, indent=1)}}
        if found is None:
            await self._client.create(CONFIG_MAPS, manifest, namespace=self._namespace)
        else:
            await replace(self._client, CONFIG_MAPS, manifest, namespace=self._namespace)


def parsed(data: dict[str, Any] | None) -> Assignments:
    """Raises RecordInvalid."""
    try:
        return Assignments.model_validate_json((data or {})[KEY])
    except (KeyError, ValidationError) as error:
        first = error.errors()[0]["msg"] if isinstance(error, ValidationError) else f"the key {KEY} is missing"
        raise RecordInvalid(
            f"ConfigMap {names.ASSIGNMENTS_CONFIG}: {first}; correct it, or delete it, and the members make it anew "
            "from what lies on their nodes"
        ) from error


def _version(text: str) -> int:
    return int(text) if text.isdecimal() else 0


async def watch_record(client: KubeClient, namespace: str) -> AsyncGenerator[Edition]:
    """The record, at once and whenever it changes. Never ends and never raises; what is not valid is logged."""
    fields = f"metadata.name={names.ASSIGNMENTS_CONFIG}"
    watch = Watch(client, CONFIG_MAPS, ConfigMap, namespace=namespace, fields=fields)
    async with contextlib.aclosing(watch.batches()) as batches:
        async for batch in batches:
            for change in batch.changes:
                if change.object is None:
                    _log.error("assignments gone", config_map=names.ASSIGNMENTS_CONFIG)
                    continue
                try:
                    yield Edition(parsed(change.object.data), _version(change.object.metadata.resource_version))
                except RecordInvalid as error:
                    _log.error("assignments invalid", problem=str(error))
