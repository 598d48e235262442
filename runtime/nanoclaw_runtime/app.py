"""The controller's process: put the parts together, run them in the right order, stop them in the reverse one.

Everything that serves messages lives in an inner task group, what it needs of the cluster in an
outer one: at a SIGTERM the API drains and half-started sessions are cleaned up while the cluster
can still be talked to. Agents that work are left alone; the next process adopts them.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AsyncExitStack, aclosing, suppress
from typing import Any, Final

import structlog

from nanoclaw_runtime.api.app import Between, create_app
from nanoclaw_runtime.api.host import host_routers
from nanoclaw_runtime.api.server import serve
from nanoclaw_runtime.backends.cluster import ClusterBackend
from nanoclaw_runtime.backends.pod_trouble import PodTrouble
from nanoclaw_runtime.bridge.callers import PodCallers
from nanoclaw_runtime.bridge.certificate import own_certificate
from nanoclaw_runtime.bridge.server import BridgeServer
from nanoclaw_runtime.channels.configured import configured
from nanoclaw_runtime.contract import bridge as contract_bridge
from nanoclaw_runtime.contract import names
from nanoclaw_runtime.contract.bridge import BridgeFacts
from nanoclaw_runtime.contract.claims import Layout
from nanoclaw_runtime.contract.config import Groups, Pattern
from nanoclaw_runtime.controller.host import Host, Means
from nanoclaw_runtime.controller.status import Check
from nanoclaw_runtime.controller.volumes import GroupVolumes, OneTree
from nanoclaw_runtime.domain.errors import NanoclawError, SettingsInvalid
from nanoclaw_runtime.ipc.mailbox import Nearby
from nanoclaw_runtime.kube.client import KubeClient
from nanoclaw_runtime.kube.errors import KubeError
from nanoclaw_runtime.kube.groups import watch_groups
from nanoclaw_runtime.kube.registration import ClaimVolumes
from nanoclaw_runtime.members.app import run as run_member
from nanoclaw_runtime.settings import RuntimeSettings
from nanoclaw_runtime.store.store import Store
from nanoclaw_runtime.telemetry import Metrics, configure_logging

STALE_WATCH: Final = 120.0
"""Seconds without a sign of life from the API server after which we are not ready; the watch itself
gives up on a connection long before."""

_EVERYWHERE: Final = "0.0.0.0"  # noqa: S104 - of the pod; who may come is for the network policies

_log = structlog.get_logger(__name__)


async def serve_host(
    means: Means,
    groups: AsyncGenerator[Groups],
    token: Callable[[], str],
    *,
    address: str,
    port: int,
    between: Between | None = None,
) -> None:
    """Be a host with its API on `address` until cancelled; `groups` are those declared, whenever they change.

    `between` is that of `create_app`.
    """
    host = Host(means)
    api = create_app(host.controller, token, means.metrics, host_routers(host), between=between)
    async with asyncio.TaskGroup() as serving:
        serving.create_task(_declare_groups(host, groups), name="declared groups")
        serving.create_task(host.run(), name="host")
        serving.create_task(serve(api, address, port), name="api")


async def run(settings: RuntimeSettings) -> None:
    """Be the controller in its pod until cancelled."""
    if settings.config.pattern is Pattern.DOCKER:
        raise SettingsInvalid(
            "the pattern 'docker' runs on a Docker host with `nanoclaw host`, not on a cluster; "
            "change runtime.pattern and run `pulumi up`"
        )
    if settings.config.pattern is Pattern.NODELOCAL:
        await run_member(settings, serve_host, _watch_check)
        return
    metrics = Metrics()
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(await KubeClient.connect())
        store = await Store.open(settings.database_url, on_error=metrics.database_errors.inc)
        stack.push_async_callback(store.close)
        backend = ClusterBackend(client, settings.namespace, pattern=settings.config.pattern)
        metrics.watch_age_seconds.labels("pods").set_function(lambda: backend.pods.age)
        bridge, facts = await _bridge(client, settings, backend, metrics)
        means = Means(
            config=settings.config,
            backend=backend,
            store=store,
            tree=settings.tree,
            credentials=settings.agent_secrets,
            metrics=metrics,
            volumes=_volumes(client, settings),
            channels=configured(
                settings.config.channels, settings.channel_secret, assistant_name=settings.config.assistant_name
            ),
            checks=[lambda: _watch_check(backend)],
            carrier=bridge or Nearby(),
            bridge=facts,
            reach=bridge,
            pod_trouble=PodTrouble(client, settings.namespace, backend.pods, settings.config.layout),
        )
        groups = watch_groups(client, settings.namespace)
        async with asyncio.TaskGroup() as cluster:
            cluster.create_task(backend.run(), name="watch of the agents' pods")
            if bridge is not None:
                cluster.create_task(bridge.run(_EVERYWHERE, names.BRIDGE_PORT), name="bridge")
            await serve_host(means, groups, settings.api_token, address=_EVERYWHERE, port=names.API_PORT)


def main() -> None:
    """Exit status 0 after a SIGTERM or Ctrl-C, 1 when the controller cannot go on."""
    configure_logging()
    try:
        settings = RuntimeSettings.load(os.environ)
        asyncio.run(until_signalled(run(settings)))
    except (NanoclawError, KubeError) as error:
        _log.error("controller cannot start", reason=str(error))
        sys.exit(1)
    except BaseExceptionGroup:
        _log.exception("controller ends")
        sys.exit(1)


async def until_signalled(life: Coroutine[Any, Any, None]) -> None:
    """Run a controller's whole life; SIGTERM and Ctrl-C end it in good order."""
    task = asyncio.create_task(life, name="controller process")
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    with suppress(asyncio.CancelledError):
        await task
    _log.info("controller stopped")


async def _declare_groups(host: Host, groups: AsyncGenerator[Groups]) -> None:
    async with aclosing(groups) as declared:
        async for each in declared:
            await host.groups.declare(each)


async def _bridge(
    client: KubeClient, settings: RuntimeSettings, backend: ClusterBackend, metrics: Metrics
) -> tuple[BridgeServer, BridgeFacts] | tuple[None, None]:
    """Our end of the bridges, where agents' volumes are not mounted here."""
    if not settings.config.bridged:
        return None, None
    host = contract_bridge.host(settings.namespace)
    certificate = await asyncio.to_thread(own_certificate, settings.tree, host)
    facts = BridgeFacts(f"{host}:{names.BRIDGE_PORT}", certificate.pem)
    callers = PodCallers(client, settings.namespace, backend.pods)
    return BridgeServer(settings.tree, certificate, callers, metrics), facts


def _volumes(client: KubeClient, settings: RuntimeSettings) -> GroupVolumes:
    config = settings.config
    if config.layout is Layout.SHARED or config.registration_storage is None:
        return OneTree()
    return ClaimVolumes(
        client,
        settings.namespace,
        config.layout,
        config.registration_storage,
        settings.tree,
        carried=config.bridged,
    )


def _watch_check(backend: ClusterBackend) -> Check:
    age = backend.pods.age
    return Check("cluster watch", age < STALE_WATCH, f"last sign of life {age:.0f} s ago")


if __name__ == "__main__":
    main()
