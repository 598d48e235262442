"""Calls of agents, passed on to the model's API and back, piece by piece as they come.

Only calls that are counted, or show no group anything of another: files and batches of one key are
everybody's, so they do not pass. An agent that goes away ends its call to the model; a model that
breaks off in mid-answer breaks off the agent's, as it would without us.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

import structlog
from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout, DummyCookieJar, TCPConnector, web
from aiohttp.typedefs import Handler
from yarl import URL

from nanoclaw_runtime.contract.gateway import PlaceholderRefused, folder_of
from nanoclaw_runtime.domain.errors import SettingsInvalid
from nanoclaw_runtime.gateway.headers import downwards, upwards
from nanoclaw_runtime.gateway.meter import Call, Meter
from nanoclaw_runtime.gateway.problems import limited, refusal
from nanoclaw_runtime.gateway.settings import Credential, GatewaySettings
from nanoclaw_runtime.gateway.usage import UsageReader

ROUTES: Final = (
    ("POST", "/v1/messages"),
    ("POST", "/v1/messages/count_tokens"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/{model:[A-Za-z0-9][A-Za-z0-9._:-]*}"),
)
BODY_LIMIT: Final = 64 * 1024 * 1024
"""Bytes of a call; the API itself takes 32 MB."""
PATIENCE: Final = ClientTimeout(total=None, sock_connect=10, sock_read=600)
"""Seconds. A stream says something all the time; an answer in one piece may take ten minutes."""

_AUTOMATIC: Final = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
# Headers the client adds where the agent sent none.
_log = structlog.get_logger(__name__)


class TooLarge(Exception):
    """A body that does not say how long it is turned out to be too long."""


def upstream_session() -> ClientSession:
    """For `Proxy`: nothing of one call stays for the next but connections."""
    return ClientSession(
        connector=TCPConnector(limit=0),  # each group's calls are bounded already
        cookie_jar=DummyCookieJar(),
        auto_decompress=False,
        timeout=PATIENCE,
        skip_auto_headers=_AUTOMATIC,
    )


class Proxy:
    """The agents' port."""

    def __init__(self, settings: GatewaySettings, meter: Meter, session: ClientSession) -> None:
        self._settings, self._meter, self._session = settings, meter, session

    def app(self) -> web.Application:
        app = web.Application(middlewares=[_not_found])
        for method, path in ROUTES:
            app.router.add_route(method, path, self._serve)
        app.router.add_route("HEAD", "/", _here)
        return app

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        try:
            folder = self._folder(request)
            credential = self._settings.credential()
        except PlaceholderRefused as error:
            self._meter.answered("", 401)
            return refusal(401, "authentication_error", str(error))
        except SettingsInvalid as error:
            _log.error("gateway cannot serve", reason=str(error))
            self._meter.answered("", 503)
            return refusal(503, "api_error", "it is not set up to serve; its log says why")
        if (exceeded := self._meter.exceeded(folder)) is not None:
            return limited(exceeded)
        if (request.content_length or 0) > BODY_LIMIT:
            self._meter.answered(folder, 413)
            return _too_large()
        with self._meter.call(folder, uses_tokens=request.path == "/v1/messages") as call:
            return await self._pass_on(request, credential, call)

    def _folder(self, request: web.Request) -> str:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        shown = request.headers.get("x-api-key") or (token.strip() if scheme.lower() == "bearer" else "")
        return folder_of(self._settings.signing_key(), shown, self._meter.now().timestamp())

    async def _pass_on(self, request: web.Request, credential: Credential, call: Call) -> web.StreamResponse:
        try:
            begun = asyncio.get_running_loop().time()
            async with self._session.request(
                request.method,
                self._url(request),
                headers=upwards(request.headers, credential, request.content_length),
                data=_body(request) if request.can_read_body else None,
                allow_redirects=False,
            ) as upstream:
                self._meter.first_byte(asyncio.get_running_loop().time() - begun)
                return await _hand_back(request, upstream, call)
        except (ClientError, TimeoutError, OSError) as error:
            if isinstance(error.__cause__, TooLarge):  # the client wraps what a body raises
                call.status = 413
                return _too_large()
            # What was raised says host and port at most; a call's headers are in none of its texts.
            _log.warning("model's API failed", error=type(error).__name__, path=request.path)
            call.status = 502
            return refusal(502, "api_error", f"the model's API cannot be reached or broke off ({type(error).__name__})")

    def _url(self, request: web.Request) -> URL:
        """Of the route that matched: no dots, no escapes. What is behind the `?` goes as it came."""
        query = request.rel_url.raw_query_string
        return URL(f"{self._settings.config.upstream}{request.path}{'?' if query else ''}{query}", encoded=True)


async def _hand_back(request: web.Request, upstream: ClientResponse, call: Call) -> web.StreamResponse:
    response = web.StreamResponse(status=upstream.status, reason=upstream.reason, headers=downwards(upstream.headers))
    response.content_length = upstream.content_length
    call.status = upstream.status
    call.reader = UsageReader(upstream.headers.get("Content-Type", ""))
    await response.prepare(request)
    try:
        async for chunk in upstream.content.iter_any():
            call.reader.feed(chunk)
            await response.write(chunk)
    except (ClientError, TimeoutError, OSError) as error:
        _log.warning("answer broke off", error=type(error).__name__, path=request.path)
        if request.transport is not None:
            request.transport.close()  # without the mark of an end, so that nobody takes it for a whole answer
    return response


async def _body(request: web.Request) -> AsyncIterator[bytes]:
    size = 0
    async for chunk in request.content.iter_any():
        size += len(chunk)
        if size > BODY_LIMIT:
            raise TooLarge
        yield chunk


@web.middleware
async def _not_found(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The API's shape for what the router refuses, too."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        offered = ", ".join(f"{method} {path.partition('{')[0]}" for method, path in ROUTES)
        return refusal(error.status, "not_found_error", f"only these calls pass: {offered}")


def _too_large() -> web.Response:
    return refusal(413, "request_too_large", f"the call has more than {BODY_LIMIT} bytes; send less at once")


async def _here(_request: web.Request) -> web.Response:
    """Clients ask it before their first call."""
    return web.Response()
