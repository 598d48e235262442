"""One request to the API server and its answer, on the official package's HTTP client.

Authentication, TLS and proxies are that package's. Not here: which statuses are errors and what is repeated
(`client`).
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import aiohttp
from kubernetes.aio.client import ApiClient

from nanoclaw_runtime.kube.errors import StreamLost, Target, Unavailable

CONNECT_TIMEOUT: Final = 10.0
"""Seconds."""
TRANSPORT: Final = (aiohttp.ClientError, TimeoutError, OSError)
"""What a connection raises that does not come about, or breaks."""


class Answer(aiohttp.ClientResponse):
    """One that is given up at once, be it that nothing of it has come yet.

    A farewell over TLS would keep the socket until the server answers it, maybe longer than we run. A connection
    whose answer was read to its end went back to the pool before. What was sent over a WebSocket may still be on its
    way: that one is `attach`'s to give up.
    """

    def close(self) -> None:
        connection = None if self.status == HTTPStatus.SWITCHING_PROTOCOLS else self.connection
        if connection is not None and connection.transport is not None:
            connection.transport.abort()
        super().close()


@dataclass(frozen=True)
class Request:
    """What is asked, and of what: `target` is for errors."""

    method: str
    path: str
    target: Target
    query: tuple[tuple[str, str], ...] = ()
    body: Any = None
    headers: Mapping[str, str] | None = None


@contextlib.asynccontextmanager
async def sent(
    client: ApiClient, request: Request, limits: aiohttp.ClientTimeout
) -> AsyncIterator[aiohttp.ClientResponse]:
    """The answer, whatever its status; left at once when the body is. Raises Unavailable."""
    method, url, headers, body, _ = await serialized(client, request)
    try:
        answer = await client.call_api(method, url, headers, body, _request_timeout=limits)
    except TRANSPORT as error:
        raise unreachable(request.target, error) from error
    response: aiohttp.ClientResponse = answer.response
    try:
        yield response
    finally:
        response.close()


async def serialized(client: ApiClient, request: Request) -> tuple[Any, ...]:
    """Method, address, headers and body as they are sent, with who we are."""
    headers = {"Accept": "application/json, */*", "Content-Type": "application/json"} | dict(request.headers or {})
    # Reads the service account's token anew when it has rotated, and runs kubeconfig plug-ins.
    return await client.param_serialize(
        request.method, request.path, None, list(request.query), headers, request.body, auth_settings=["BearerToken"]
    )


async def read_chunk(response: aiohttp.ClientResponse, target: Target) -> bytes:
    """The next piece of a stream, empty at its end. Raises StreamLost."""
    try:
        return await response.content.readany()
    except TRANSPORT as error:
        raise StreamLost(target, f"the stream broke off ({_told(error)})") from error


async def read_body(response: aiohttp.ClientResponse, target: Target) -> bytes:
    """The whole answer. Raises Unavailable when it breaks off."""
    try:
        return await response.read()
    except TRANSPORT as error:
        raise unreachable(target, error) from error


def unreachable(target: Target, error: BaseException) -> Unavailable:
    """What a broken connection means."""
    return Unavailable(target, f"the API server cannot be reached ({_told(error)}); check network and address")


def _told(error: BaseException) -> str:
    return str(error) or type(error).__name__
