"""Where the API server is and who we are: in a cluster, or by kubeconfig.

Configuration, authentication plug-ins, TLS and token rotation are the official package's work;
here is which of them apply, and the HTTP sessions it sends with.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import yaml
from kubernetes.aio import config as kube_config
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config.incluster_config import SERVICE_HOST_ENV_NAME, SERVICE_TOKEN_FILENAME

from nanoclaw_runtime.kube.errors import NotConfigured
from nanoclaw_runtime.kube.http import Answer

NAMESPACE_FILE: Final = Path(SERVICE_TOKEN_FILENAME).with_name("namespace")

CALLS_IN_FLIGHT: Final = 64
"""Connections for calls. Streams have a pool of their own without a limit: each holds one for hours."""

KEEPALIVE: Final = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
"""Seconds, seconds, probes: a connection whose other end is gone dies within half a minute."""


@dataclass(frozen=True)
class Connection:
    """Two HTTP clients for one API server, and the namespace that is meant when none is named."""

    calls: ApiClient
    streams: ApiClient
    namespace: str

    async def close(self) -> None:
        await self.calls.close()  # type: ignore[no-untyped-call]
        await self.streams.close()  # type: ignore[no-untyped-call]


async def connect(kubeconfig: Path | None, context: str | None) -> Connection:
    """The connection a kubeconfig describes; without one, the cluster this process runs in.

    Raises NotConfigured when there is neither, or when it cannot be read.
    """
    configuration = Configuration()
    try:
        if kubeconfig is None and context is None and os.environ.get(SERVICE_HOST_ENV_NAME):
            kube_config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
            namespace = NAMESPACE_FILE.read_text().strip()
        else:
            files = str(kubeconfig) if kubeconfig else os.environ.get("KUBECONFIG") or "~/.kube/config"
            loader = await kube_config.load_kube_config(  # type: ignore[no-untyped-call]
                config_file=files, context=context, client_configuration=configuration
            )
            namespace = _namespace_of(loader.current_context)
    except (kube_config.ConfigException, OSError, yaml.YAMLError) as error:
        raise NotConfigured(
            f"there is no usable kubeconfig ({error}): set KUBECONFIG or name a file and a context that exist"
        ) from error
    return Connection(
        calls=_client(configuration, connections=CALLS_IN_FLIGHT),
        streams=_client(configuration, connections=0),
        namespace=namespace,
    )


def _namespace_of(context: Any) -> str:
    chosen = context["context"]
    return str(chosen["namespace"]) if "namespace" in chosen else "default"


def _client(configuration: Configuration, *, connections: int) -> ApiClient:
    client = ApiClient(configuration)
    client.user_agent = "nanoclaw"
    rest = client.rest_client
    rest.pool_manager = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=connections, ssl=rest.ssl_context, socket_factory=_socket),
        response_class=Answer,
        # As every other client does, never through a proxy to this machine itself.
        trust_env=not _is_loopback(configuration.host),
    )
    return client


def _socket(address: Any) -> socket.socket:
    family, kind, protocol, _, _ = address
    made = socket.socket(family=family, type=kind, proto=protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in KEEPALIVE.items():
        if hasattr(socket, option):  # macOS names the first one otherwise
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return made


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
