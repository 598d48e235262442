"""To a controller on a cluster: through the API server's service proxy, with nothing but a kubeconfig.

How the API server is asked is `kube.services`; here is whom, and what its refusals mean to a person.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterable, Iterator
from typing import Any, Self

from nanoclaw_runtime.cli.errors import Away, NotReachable
from nanoclaw_runtime.cli.installation import Target, find_namespace, find_token
from nanoclaw_runtime.cli.transport import Headers
from nanoclaw_runtime.contract import names
from nanoclaw_runtime.kube.client import KubeClient
from nanoclaw_runtime.kube.errors import Forbidden, KubeError, NotFound, StreamLost, Unavailable
from nanoclaw_runtime.kube.services import ServicePort


class ServiceProxy:
    """See `Transport`. `client` and `namespace` are for what is asked of the cluster itself."""

    def __init__(self, client: KubeClient, namespace: str) -> None:
        self.client = client
        self.namespace = namespace
        self._service = ServicePort(client, namespace, names.CONTROLLER, names.API_PORT_NAME)

    @classmethod
    async def connect(cls, target: Target) -> Self:
        """Raises NotConfigured without a cluster, NotReachable, or CommandFailed for an unclear namespace."""
        client = await KubeClient.connect(target.kubeconfig, target.context)
        try:
            return cls(client, target.namespace or await find_namespace(client))
        except KubeError as error:
            await client.close()
            raise NotReachable(f"{error}; check --kubeconfig and --context") from error
        except BaseException:
            await client.close()
            raise

    async def request(self, method: str, path: str, *, body: Any, headers: Headers) -> tuple[int, bytes]:
        with _told():
            return await self._service.request(method, path, json=body, headers=headers)

    async def upload(self, path: str, *, content: AsyncIterable[bytes], headers: Headers) -> tuple[int, bytes]:
        with _told():
            return await self._service.upload(path, content=content, headers=headers)

    async def stream(self, path: str, headers: Headers) -> AsyncGenerator[bytes]:
        with _told():
            async with contextlib.aclosing(self._service.stream(path, headers)) as chunks:
                async for chunk in chunks:
                    yield chunk

    async def token(self) -> str:
        return await find_token(self.client, self.namespace)

    async def close(self) -> None:
        await self.client.close()


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except Forbidden as error:
        raise NotReachable(f"you may not use the controller's service proxy: {error.message}") from error
    except NotFound as error:
        raise NotReachable(
            f"there is no controller in namespace {error.target.namespace!r}; name another one with --namespace"
        ) from error
    except KubeError as error:
        kind = Away if isinstance(error, Unavailable | StreamLost) else NotReachable
        told = f"the controller cannot be reached: {error.message}; `nanoclaw doctor` looks for the reason"
        raise kind(told) from error
