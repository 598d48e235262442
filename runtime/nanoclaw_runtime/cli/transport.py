"""The way from a command to a controller, as an interface; how it is gone is `service_proxy` and `direct`.

What the controller answers is handed on whatever its status; only a way that does not carry is an
error: `Away` when it may carry again in a moment, `NotReachable` otherwise.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Mapping
from typing import Any, Protocol

Headers = Mapping[str, str]


class Transport(Protocol):
    """Requests to one controller. Paths begin with `/`."""

    async def request(self, method: str, path: str, *, body: Any, headers: Headers) -> tuple[int, bytes]:
        """Status and body; `body` is sent as JSON unless it is None. Not repeated."""
        ...

    async def upload(self, path: str, *, content: AsyncIterable[bytes], headers: Headers) -> tuple[int, bytes]:
        """PUT content that is made while it is sent, however long that takes."""
        ...

    def stream(self, path: str, headers: Headers) -> AsyncGenerator[bytes]:
        """The body of a GET in pieces. A status of 400 or above raises NotReachable; Away when it breaks off."""
        ...

    async def token(self) -> str:
        """The token of the API, where nobody gave us one. Raises CommandFailed."""
        ...

    async def close(self) -> None: ...
