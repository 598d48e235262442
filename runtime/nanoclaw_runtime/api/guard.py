"""What a request has to pass before anything reads it: the token, and being JSON of a bearable size.

Plain ASGI: a stream is not touched, and a body is not read for somebody who may not send one.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Final

from fastapi import HTTPException
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nanoclaw_runtime.api.problems import problem
from nanoclaw_runtime.api.schemas import TOKEN_HEADER
from nanoclaw_runtime.domain.errors import SettingsInvalid

PREFIX: Final = "/v1"
BODY_LIMIT: Final = 1024 * 1024
# Bytes of a request's body; far above any chat message.
TAR: Final = "application/x-tar"
"""Of the one kind of body that may be longer: it is read piece by piece, straight to a volume that has the room."""

_TOO_LARGE: Final = f"the body has more than {BODY_LIMIT} bytes; send less at once"


class Guard:
    """Lets through what carries the token; the paths outside `PREFIX` (probes, metrics) need none."""

    def __init__(self, app: ASGIApp, token: Callable[[], str]) -> None:
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        await (refusal or self._app)(scope, receive if _is_upload(scope) else _limited(receive), send)

    def _refusal(self, scope: Scope) -> Response | None:
        if not (scope["path"] + "/").startswith(f"{PREFIX}/"):
            return None
        headers = Headers(scope=scope)
        try:
            allowed = hmac.compare_digest(_presented(headers), self._token().encode())
        except SettingsInvalid as error:
            return problem(503, str(error))
        if not allowed:
            return problem(
                401,
                f"the token is missing or wrong; send it as `Authorization: Bearer …` or in {TOKEN_HEADER}",
                headers={"WWW-Authenticate": "Bearer"},
            )
        if scope["method"] in {"POST", "PATCH"} and _has_body(headers) and not _is_json(headers):
            return problem(415, "the body is not declared as JSON; send it with `Content-Type: application/json`")
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > BODY_LIMIT and not _is_upload(scope):
            return problem(413, _TOO_LARGE)
        return None


def _limited(receive: Receive) -> Receive:
    """For bodies that do not say how long they are."""
    size = 0

    async def counted() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > BODY_LIMIT:
            raise HTTPException(413, _TOO_LARGE)  # FastAPI lets this kind through while it reads a body
        return message

    return counted


def _is_upload(scope: Scope) -> bool:
    """Whether this is an archive for a route that takes archives."""
    if scope["type"] != "http" or scope["method"] != "PUT" or not scope["path"].startswith(f"{PREFIX}/transfer/"):
        return False
    return _media_type(Headers(scope=scope)) == TAR


def _presented(headers: Headers) -> bytes:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token:
        return token.strip().encode()
    return headers.get(TOKEN_HEADER, "").encode()


def _has_body(headers: Headers) -> bool:
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


def _is_json(headers: Headers) -> bool:
    return _media_type(headers) == "application/json"


def _media_type(headers: Headers) -> str:
    return headers.get("content-type", "").partition(";")[0].strip().lower()
