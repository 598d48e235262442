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
from contextlib import AsyncExitStack, aclosing, suppress
from typing import Final

import structlog

from nanoclaw_runtime.api.app import create_app
from nanoclaw_runtime.api.server import serve
from nanoclaw_runtime.backends.job import JobBackend
from nanoclaw_runtime.contract import names
from nanoclaw_runtime.controller.controller import Controller
from nanoclaw_runtime.controller.session import Surroundings
from nanoclaw_runtime.controller.status import Check
from nanoclaw_runtime.domain.errors import NanoclawError
from nanoclaw_runtime.kube.client import KubeClient
from nanoclaw_runtime.kube.errors import KubeError
from nanoclaw_runtime.kube.groups import watch_groups
from nanoclaw_runtime.settings import RuntimeSettings
from nanoclaw_runtime.store.store import Store
from nanoclaw_runtime.telemetry import Metrics, configure_logging

STALE_WATCH: Final = 120.0
"""Seconds without a sign of life from the API server after which we are not ready; the watch itself
gives up on a connection long before."""

_log = structlog.get_logger(__name__)


async def run(settings: RuntimeSettings) -> None:
    """Be the controller until cancelled."""
    metrics = Metrics()
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(await KubeClient.connect())
        store = await Store.open(settings.database_url, on_error=metrics.database_errors.inc)
        stack.push_async_callback(store.close)
        backend = JobBackend(client, settings.namespace)
        around = Surroundings(
            config=settings.config,
            backend=backend,
            store=store,
            tree=settings.tree,
            credentials=settings.credentials,
            metrics=metrics,
        )
        controller = Controller(around, checks=[lambda: _watch_check(backend)])
        metrics.watch_age_seconds.labels("pods").set_function(lambda: backend.pods.age)
        api = create_app(controller, settings.api_token, metrics)
        async with asyncio.TaskGroup() as cluster:
            cluster.create_task(backend.run(), name="watch of the agents' pods")
            async with asyncio.TaskGroup() as serving:
                serving.create_task(_declare_groups(controller, client, settings.namespace), name="watch of the groups")
                serving.create_task(controller.run(), name="controller")
                serving.create_task(serve(api, "0.0.0.0", names.API_PORT), name="api")  # noqa: S104


def main() -> None:
    """Exit status 0 after a SIGTERM or Ctrl-C, 1 when the controller cannot go on."""
    configure_logging()
    try:
        settings = RuntimeSettings.load(os.environ)
        asyncio.run(_until_signalled(settings))
    except (NanoclawError, KubeError) as error:
        _log.error("controller cannot start", reason=str(error))
        sys.exit(1)
    except BaseExceptionGroup:
        _log.exception("controller ends")
        sys.exit(1)


async def _until_signalled(settings: RuntimeSettings) -> None:
    life = asyncio.create_task(run(settings), name="controller process")
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, life.cancel)
    with suppress(asyncio.CancelledError):
        await life
    _log.info("controller stopped")


async def _declare_groups(controller: Controller, client: KubeClient, namespace: str) -> None:
    async with aclosing(watch_groups(client, namespace)) as declared:
        async for groups in declared:
            await controller.declare(groups)


def _watch_check(backend: JobBackend) -> Check:
    age = backend.pods.age
    return Check("cluster watch", age < STALE_WATCH, f"last sign of life {age:.0f} s ago")


if __name__ == "__main__":
    main()
