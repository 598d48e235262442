"""Questions about a cluster that the client has no verb for: who may what, what is served, what would be admitted.

Nothing is changed by any of them: objects are tried with `dryRun`, and of a Secret only its metadata is read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Final

from nanoclaw_runtime.cli.prerequisites_rights import Right
from nanoclaw_runtime.kube.client import KubeClient, Manifest
from nanoclaw_runtime.kube.errors import AlreadyExists, Forbidden, Invalid, KubeError, NotFound, Target
from nanoclaw_runtime.kube.resources import Resource

ENDPOINT_SLICES: Final = Resource("EndpointSlice", "endpointslices", "/apis/discovery.k8s.io/v1")

_ONLY_METADATA: Final = {"Accept": "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"}
_AT_ONCE: Final = 16
# Questions under way at the same time.
_TRIED: Final = (("dryRun", "All"), ("fieldValidation", "Strict"))


async def tried(client: KubeClient, namespace: str, resource: Resource, manifest: Manifest) -> KubeError | None:
    """What the API server has against making this; None when it would."""
    target = Target("create", resource.plural, namespace, manifest["metadata"]["name"])
    try:
        await client.request("POST", resource.path(namespace), target, query=_TRIED, body=manifest)
    except (Forbidden, Invalid, AlreadyExists) as error:
        return error
    return None


async def exists(client: KubeClient, resource: Resource, name: str, namespace: str) -> bool:
    target = Target("get", resource.plural, namespace, name)
    try:
        await client.fetch("GET", resource.path(namespace, name), target, headers=_ONLY_METADATA)
    except NotFound:
        return False
    return True


async def which(client: KubeClient, rights: Collection[Right]) -> dict[Right, bool]:
    """Whether each is ours. Raises a KubeError when one cannot be asked for."""
    turns = asyncio.Semaphore(_AT_ONCE)

    async def ask(right: Right) -> bool:
        async with turns:
            return await allowed(client, right)

    answers = await asyncio.gather(*map(ask, rights), return_exceptions=True)
    found: dict[Right, bool] = {}
    for right, answer in zip(rights, answers, strict=True):
        if isinstance(answer, BaseException):
            raise answer
        found[right] = answer
    return found


async def served(client: KubeClient, group: str, versions: Sequence[str]) -> dict[str, list[str]]:
    """The plurals of each version of an API group; of versions that are not asked for only that they are served."""
    try:
        found = await client.request("GET", f"/apis/{group}", Target("get", "apis", name=group))
    except NotFound:
        return {}
    return {
        each["version"]: await _plurals(client, each["groupVersion"]) if each["version"] in versions else []
        for each in found["versions"]
    }


async def _plurals(client: KubeClient, version: str) -> list[str]:
    found = await client.request("GET", f"/apis/{version}", Target("get", "apis", name=version))
    return [each["name"] for each in found["resources"]]


async def ready(client: KubeClient, namespace: str, service: str) -> int:
    """How many addresses answer behind a Service."""
    slices = await client.list(ENDPOINT_SLICES, namespace=namespace, labels=f"kubernetes.io/service-name={service}")
    return sum(
        len(endpoint["addresses"])
        for each in slices
        for endpoint in each.get("endpoints") or ()
        if endpoint.get("conditions", {}).get("ready", True)
    )


async def behind(client: KubeClient, namespace: str, service: str) -> list[tuple[str, int]]:
    """Address and port of everything behind a Service."""
    slices = await client.list(ENDPOINT_SLICES, namespace=namespace, labels=f"kubernetes.io/service-name={service}")
    return [
        (address, port["port"])
        for each in slices
        for endpoint in each.get("endpoints") or ()
        for address in endpoint["addresses"]
        for port in each.get("ports") or ()
    ]


async def served_at(client: KubeClient) -> datetime | None:
    """The API server's time, in whole seconds; None when something in between leaves it out."""
    async with client.stream("GET", "/version", Target("get", "version")) as response:
        date = response.headers.get("Date")
    return None if date is None else parsedate_to_datetime(date)


async def allowed(client: KubeClient, right: Right) -> bool:
    """As the API server says; the client's own question is always about a namespace."""
    resource, _, subresource = right.resource.partition("/")
    attributes = {
        "namespace": right.namespace,
        "verb": right.verb,
        "group": right.group,
        "resource": resource,
        "subresource": subresource,
        "name": right.name,
    }
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {key: value for key, value in attributes.items() if value}},
    }
    target = Target("create", "selfsubjectaccessreviews")
    answer = await client.request("POST", f"/apis/{review['apiVersion']}/{target.resource}", target, body=review)
    return bool(answer["status"].get("allowed"))
