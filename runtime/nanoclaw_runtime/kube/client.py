"""Calls to the API server: plain dicts in, plain dicts out, errors of one tree.

Bodies go out as they are, the server checks them strictly; statuses become errors in one place;
calls that may be repeated are, within a budget. How a request is sent is `http`. Watches (`watch`),
attach (`attach`), calls of Services (`services`) and what things mean (`diagnose`) are not here.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
import msgspec

from nanoclaw_runtime.kube.connection import Connection, connect
from nanoclaw_runtime.kube.deadline import Deadline
from nanoclaw_runtime.kube.errors import (
    AlreadyExists,
    KubeError,
    Target,
    Unavailable,
    error_of,
)
from nanoclaw_runtime.kube.http import (
    CONNECT_TIMEOUT,
    TRANSPORT,
    Request,
    read_body,
    read_chunk,
    sent,
    serialized,
    unreachable,
)
from nanoclaw_runtime.kube.resources import EVENTS, PODS, Event, Resource, slim
from nanoclaw_runtime.kube.retry import ATTEMPTS, RetryBudget, pause, worth_it

Manifest = dict[str, Any]

FIELD_MANAGER: Final = "nanoclaw"

CALL_TIMEOUT: Final = 10.0
"""Seconds for one try of a call; the API server's own objective is one second."""
CALL_BUDGET: Final = 30.0
"""Seconds for a call with its retries, unless the caller's deadline is nearer."""
PAGE: Final = 500
"""Objects of one answer to a list, as kubectl has it."""

_APPLY: Final = {"Content-Type": "application/apply-patch+yaml"}  # JSON is YAML
_MERGE: Final = {"Content-Type": "application/merge-patch+json"}


class KubeClient:
    """One API server, as one user. Use it as an async context manager, or `close` it."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        """For the rest of `kube`."""
        self._budget = RetryBudget()
        self.namespace = connection.namespace
        """Of the kubeconfig's context, or of the pod we run in; meant wherever none is named."""

    @classmethod
    async def connect(cls, kubeconfig: Path | None = None, context: str | None = None) -> Self:
        """A client for `kubeconfig`, for the cluster we run in, or for the user's default, in this order.

        Asks nothing of the API server yet. Raises NotConfigured.
        """
        return cls(await connect(kubeconfig, context))

    async def close(self) -> None:
        await self.connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # Objects of any kind.

    async def create(
        self,
        resource: Resource,
        manifest: Manifest,
        *,
        namespace: str = "",
        identity: str = "",
        deadline: Deadline | None = None,
    ) -> Manifest:
        """The object as the API server made it; an unknown or misspelt field is refused.

        `identity` names a label that tells our object from another one of the same name: the
        object that exists with the same value is returned, so a create that was sent twice, or
        whose answer got lost, is harmless. Raises AlreadyExists for any other object.
        """
        metadata = manifest["metadata"]
        name = metadata.get("name", "")
        target = Target("create", resource.plural, self._place(resource, namespace), name)
        query = [("fieldManager", FIELD_MANAGER), ("fieldValidation", "Strict")]
        path = resource.path(target.namespace)
        try:
            # Without a name the server invents one for each try, and a repetition makes a second object.
            return await self.request(
                "POST", path, target, query=query, body=manifest, deadline=deadline, repeat=bool(name)
            )
        except AlreadyExists as error:
            wanted = metadata.get("labels", {}).get(identity)
            if wanted is None:
                raise
            existing = await self.get(resource, name, namespace=namespace, deadline=deadline)
            if existing["metadata"].get("labels", {}).get(identity) != wanted:
                raise error from None
            return existing

    async def get(
        self, resource: Resource, name: str, *, namespace: str = "", deadline: Deadline | None = None
    ) -> Manifest:
        target = Target("get", resource.plural, self._place(resource, namespace), name)
        return await self.request("GET", resource.path(target.namespace, name), target, deadline=deadline)

    async def list(
        self,
        resource: Resource,
        *,
        namespace: str = "",
        labels: str = "",
        fields: str = "",
        deadline: Deadline | None = None,
    ) -> list[Manifest]:
        """Every object that matches both selectors, as it is now (never from a stale cache)."""
        target = Target("list", resource.plural, self._place(resource, namespace))
        path = resource.path(target.namespace)
        items: list[Manifest] = []
        query = selectors(labels, fields)
        while True:
            page = await self.request("GET", path, target, query=[*query, ("limit", str(PAGE))], deadline=deadline)
            items += page.get("items") or []
            following = page["metadata"].get("continue")
            if not following:
                return items
            query = [*selectors(labels, fields), ("continue", following)]

    async def apply(
        self,
        resource: Resource,
        manifest: Manifest,
        *,
        manager: str,
        force: bool = False,
        namespace: str = "",
        deadline: Deadline | None = None,
    ) -> Manifest:
        """Have exactly these fields as `manager`; what it had before and does not name any more goes.

        Fields of others stay. Raises Conflict when another manager keeps one at another value, unless by `force`.
        """
        name = manifest["metadata"]["name"]
        target = Target("patch", resource.plural, self._place(resource, namespace), name)
        query = [("fieldManager", manager), ("fieldValidation", "Strict"), ("force", "true" if force else "false")]
        path = resource.path(target.namespace, name)
        content = await self.fetch("PATCH", path, target, query=query, body=manifest, headers=_APPLY, deadline=deadline)
        return _decoded(target, content)

    async def merge(
        self, resource: Resource, name: str, change: Manifest, *, namespace: str = "", deadline: Deadline | None = None
    ) -> Manifest:
        """Change these fields of an object. With `metadata.resourceVersion` in `change` exactly as it was read.

        Raises NotFound, and Conflict when it was changed meanwhile.
        """
        target = Target("patch", resource.plural, self._place(resource, namespace), name)
        path, query = resource.path(target.namespace, name), [("fieldValidation", "Strict")]
        content = await self.fetch("PATCH", path, target, query=query, body=change, headers=_MERGE, deadline=deadline)
        return _decoded(target, content)

    async def delete(
        self,
        resource: Resource,
        name: str,
        *,
        namespace: str = "",
        uid: str = "",
        propagation: str = "Background",
        deadline: Deadline | None = None,
    ) -> None:
        """Ask for deletion; `Foreground` keeps the object until everything it owns is gone.

        With `uid` exactly that object: raises Conflict when another one has taken the name.
        Raises NotFound when there is none.
        """
        target = Target("delete", resource.plural, self._place(resource, namespace), name)
        options: Manifest = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        if uid:
            options["preconditions"] = {"uid": uid}
        await self.request("DELETE", resource.path(target.namespace, name), target, body=options, deadline=deadline)

    async def request(
        self,
        method: str,
        path: str,
        target: Target,
        *,
        query: Iterable[tuple[str, str]] = (),
        body: Manifest | None = None,
        deadline: Deadline | None = None,
        repeat: bool = True,
    ) -> Manifest:
        """One call with its retries; the door for everything the verbs above do not cover.

        Raises a KubeError. `repeat=False` for calls that must not reach the server twice.
        """
        content = await self.fetch(method, path, target, query=query, body=body, deadline=deadline, repeat=repeat)
        return _decoded(target, content)

    async def fetch(
        self,
        method: str,
        path: str,
        target: Target,
        *,
        query: Iterable[tuple[str, str]] = (),
        body: Manifest | None = None,
        headers: Mapping[str, str] | None = None,
        deadline: Deadline | None = None,
        repeat: bool = True,
    ) -> bytes:
        """As `request`, for callers that decode the answer themselves."""
        request = Request(method, path, target, tuple(query), body, headers)
        deadline = (deadline or Deadline.never()).within(CALL_BUDGET)
        async with deadline.enforce(target):
            attempt = 0
            while True:
                try:
                    return await self._once(request)
                except KubeError as error:
                    wait, attempt = pause(attempt, error), attempt + 1
                    if not (repeat and worth_it(error)) or attempt == ATTEMPTS:
                        raise
                    if wait > deadline.remaining() or not self._budget.take():
                        raise
                    await asyncio.sleep(wait)

    # A pod's log and an object's events.

    async def pod_log(
        self,
        name: str,
        *,
        container: str,
        namespace: str = "",
        follow: bool = False,
        previous: bool = False,
    ) -> AsyncGenerator[bytes]:
        """The log of a container in chunks, stdout and stderr merged; ends at its end.

        `previous` is the run before its last one.

        With `follow` that is when the container ends, or when the kubelet rotates the file: look
        at the pod to know which. Raises StreamLost when the connection breaks, NotFound and
        Invalid (not started yet) before anything was read.
        """
        target = Target("get", "pods/log", namespace or self.namespace, name)
        query = [("container", container)]
        if follow:
            query.append(("follow", "true"))
        if previous:
            query.append(("previous", "true"))
        async with self.stream("GET", PODS.path(target.namespace, name, "log"), target, query=query) as response:
            while chunk := await read_chunk(response, target):
                yield chunk

    async def events(self, uid: str, *, namespace: str = "", deadline: Deadline | None = None) -> Sequence[Event]:
        """What was reported about the object with this uid, the oldest first."""
        found = await self.list(EVENTS, namespace=namespace, fields=f"involvedObject.uid={uid}", deadline=deadline)
        found.sort(key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "")
        return [slim(event, Event) for event in found]

    # For the command line.

    async def version(self) -> str:
        """The API server's version, such as `v1.36.3`."""
        answer = await self.request("GET", "/version", Target("get", "version"))
        return str(answer["gitVersion"])

    async def allowed(
        self, verb: str, resource: str, *, group: str = "", subresource: str = "", namespace: str = "", name: str = ""
    ) -> bool:
        """Whether this user may do it, as the API server says (a SelfSubjectAccessReview)."""
        attributes = {
            "namespace": namespace or self.namespace,
            "verb": verb,
            "group": group,
            "resource": resource,
            "subresource": subresource,
            "name": name,
        }
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {key: value for key, value in attributes.items() if value}},
        }
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        answer = await self.request("POST", path, Target("create", "selfsubjectaccessreviews"), body=review)
        return bool(answer["status"].get("allowed"))

    # For the rest of `kube`.

    @contextlib.asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        target: Target,
        *,
        query: Iterable[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
        read_timeout: float | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer that is read piece by piece, on a connection of its own. Not repeated.

        `read_timeout` is in seconds between two pieces. Raises a KubeError for a refusal.
        """
        limits = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT, sock_read=read_timeout)
        request = Request(method, path, target, tuple(query), headers=headers)
        async with sent(self.connection.streams, request, limits) as response:
            if response.status >= 400:
                raise error_of(target, response.status, response.headers, await read_body(response, target))
            yield response

    async def websocket(
        self, path: str, target: Target, *, query: Iterable[tuple[str, str]], protocols: tuple[str, ...]
    ) -> aiohttp.ClientWebSocketResponse:
        """An open WebSocket. The caller answers pings by receiving, and closes it.

        Raises a KubeError when the upgrade is refused.
        """
        client = self.connection.streams
        _, url, headers, *_ = await serialized(client, Request("GET", path, target, tuple(query)))
        rest = client.rest_client
        assert rest.pool_manager is not None
        try:
            return await rest.pool_manager.ws_connect(
                url,
                headers=headers,
                protocols=protocols,
                proxy=rest.proxy,
                proxy_headers=rest.proxy_headers,
                server_hostname=client.configuration.tls_server_name or None,
                max_msg_size=0,
                autoping=False,  # pings are answered, and pongs counted, by who receives
                timeout=aiohttp.ClientWSTimeout(ws_close=5),
            )
        except aiohttp.WSServerHandshakeError as error:
            refusal = f"the upgrade to a WebSocket was refused with status {error.status}"
            raise error_of(target, error.status, error.headers or {}, refusal.encode()) from error
        except TRANSPORT as error:
            raise unreachable(target, error) from error

    def _place(self, resource: Resource, namespace: str) -> str:
        return (namespace or self.namespace) if resource.namespaced else ""

    async def _once(self, request: Request) -> bytes:
        limits = aiohttp.ClientTimeout(total=CALL_TIMEOUT, sock_connect=CONNECT_TIMEOUT)
        async with sent(self.connection.calls, request, limits) as response:
            content = await read_body(response, request.target)
        if response.status >= 400:
            raise error_of(request.target, response.status, response.headers, content)
        return content


def selectors(labels: str, fields: str) -> list[tuple[str, str]]:
    """The query of a label and a field selector, without those that are empty."""
    return [(key, value) for key, value in (("labelSelector", labels), ("fieldSelector", fields)) if value]


def _decoded(target: Target, content: bytes) -> Manifest:
    try:
        document = msgspec.json.decode(content)
    except msgspec.DecodeError as error:
        raise Unavailable(target, "the answer is not JSON; is this a Kubernetes API server?") from error
    if not isinstance(document, dict):
        raise Unavailable(target, "the answer is not an object")
    return document
