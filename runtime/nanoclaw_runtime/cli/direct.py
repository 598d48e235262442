"""To a controller whose address is known, such as `nanoclaw host` on this machine."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import AsyncGenerator, AsyncIterable, Iterator
from pathlib import Path
from typing import Any, Final

import httpx

from nanoclaw_runtime.cli.errors import UNAVAILABLE, Away, CommandFailed, NotReachable
from nanoclaw_runtime.cli.transport import Headers

CONNECT: Final = 10.0
ANSWER: Final = 60.0
"""Seconds for a connection, and for the answer to a call."""


class Direct:
    """See `Transport`."""

    def __init__(self, url: str, token_file: Path | None) -> None:
        """Raises NotReachable for an address that is none."""
        self.url = url.rstrip("/")
        self._token_file = token_file
        self._host = _host(url)
        self._client = httpx.AsyncClient(
            base_url=self.url,
            timeout=httpx.Timeout(ANSWER, connect=CONNECT),
            # As every other client does, never through a proxy to this machine itself.
            trust_env=not self.local,
        )

    @property
    def local(self) -> bool:
        """Whether the controller is on this machine."""
        try:
            return ipaddress.ip_address(self._host).is_loopback
        except ValueError:
            return self._host == "localhost"

    async def request(self, method: str, path: str, *, body: Any, headers: Headers) -> tuple[int, bytes]:
        with self._told():
            answer = await self._client.request(method, path, json=body, headers=dict(headers))
        return answer.status_code, answer.content

    async def upload(self, path: str, *, content: AsyncIterable[bytes], headers: Headers) -> tuple[int, bytes]:
        patient = httpx.Timeout(None, connect=CONNECT)
        with self._told():
            answer = await self._client.put(path, content=content, headers=dict(headers), timeout=patient)
        return answer.status_code, answer.content

    async def stream(self, path: str, headers: Headers) -> AsyncGenerator[bytes]:
        patient = httpx.Timeout(None, connect=CONNECT)
        with self._told():
            async with self._client.stream("GET", path, headers=dict(headers), timeout=patient) as answer:
                if answer.status_code >= 400:
                    kind = Away if answer.status_code == UNAVAILABLE else NotReachable
                    raise kind(f"the controller answered with status {answer.status_code}")
                async for chunk in answer.aiter_raw():
                    yield chunk

    async def token(self) -> str:
        if self._token_file is None:
            raise CommandFailed(
                "the controller wants a token; set NANOCLAW_TOKEN_FILE to `store/api-token` of its tree"
            )
        try:
            return self._token_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise CommandFailed(
                f"the token cannot be read ({error}); name its file with NANOCLAW_TOKEN_FILE"
            ) from error

    async def close(self) -> None:
        await self._client.aclose()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except httpx.TransportError as error:
            reason = str(error) or type(error).__name__
            raise Away(
                f"the controller at {self.url} cannot be reached: {reason}; see whether `nanoclaw host` runs there"
            ) from error


def _host(url: str) -> str:
    with contextlib.suppress(httpx.InvalidURL):
        parts = httpx.URL(url)
        if parts.scheme in {"http", "https"} and parts.host:
            return parts.host
    raise NotReachable(f"{url!r} is no address; write one like http://127.0.0.1:8080")
