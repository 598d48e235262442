"""Calls of a Service through the API server, for who has a kubeconfig and no way into the cluster's network.

Needs `services/proxy`. The API server takes the Authorization header for itself, so the Service's own token travels in
another one. A refusal of the API server is a KubeError; what the Service itself answers is returned, whatever its
status. Nothing is repeated.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Mapping
from typing import Any

import aiohttp

from nanoclaw_runtime.kube.client import CALL_BUDGET, KubeClient
from nanoclaw_runtime.kube.errors import Target, error_of, status_document
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


class ServicePort:
    """A port of a Service, by its name. Without an endpoint the API server answers: NotFound, or Unavailable."""

    def __init__(self, client: KubeClient, namespace: str, service: str, port: str) -> None:
        self._client, self._namespace, self._service = client, namespace, service
        self._base = f"/api/v1/namespaces/{namespace}/services/{service}:{port}/proxy/"

    async def request(
        self, method: str, path: str, *, json: Any = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Status and body of the answer."""
        request = self._request(method, path, json, headers)
        limits = aiohttp.ClientTimeout(total=CALL_BUDGET, sock_connect=CONNECT_TIMEOUT)
        async with sent(self._client.connection.calls, request, limits) as response:
            return await _answer(response, request.target)

    async def upload(
        self, path: str, *, content: AsyncIterable[bytes], headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        """As `request`, for a PUT of content that is made while it is sent, however long that takes."""
        request, client = self._request("PUT", path, None, headers), self._client.connection.streams
        _, url, all_headers, *_ = await serialized(client, request)
        rest = client.rest_client
        assert rest.pool_manager is not None
        try:
            async with rest.pool_manager.request(
                "PUT",
                url,
                headers=all_headers,
                data=content,
                proxy=rest.proxy,
                proxy_headers=rest.proxy_headers,
                server_hostname=client.configuration.tls_server_name or None,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT),
            ) as response:
                return await _answer(response, request.target)
        except TRANSPORT as error:
            raise unreachable(request.target, error) from error

    async def stream(self, path: str, headers: Mapping[str, str] | None = None) -> AsyncGenerator[bytes]:
        """The body of a GET in chunks, for as long as it goes on.

        Raises a KubeError for every status of 400 or above, StreamLost when it breaks off.
        """
        request = self._request("GET", path, None, headers)
        async with self._client.stream("GET", request.path, request.target, headers=headers) as response:
            while chunk := await read_chunk(response, request.target):
                yield chunk

    def _request(self, method: str, path: str, json: Any, headers: Mapping[str, str] | None) -> Request:
        target = Target(method.lower(), "services/proxy", self._namespace, self._service)
        return Request(method, self._base + path.lstrip("/"), target, body=json, headers=headers)


async def _answer(response: aiohttp.ClientResponse, target: Target) -> tuple[int, bytes]:
    content = await read_body(response, target)
    if response.status >= 400 and status_document(content) is not None:
        raise error_of(target, response.status, response.headers, content)
    return response.status, content
