"""The controller's process on a Docker host; on a cluster it is `app`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from nanoclaw_runtime.app import serve_host
from nanoclaw_runtime.backends.docker import DockerBackend
from nanoclaw_runtime.backends.docker_client import DockerClient, DockerFailed
from nanoclaw_runtime.channels.configured import configured
from nanoclaw_runtime.contract.config import ControllerConfig
from nanoclaw_runtime.controller.host import Means
from nanoclaw_runtime.controller.volumes import OneTree
from nanoclaw_runtime.domain.errors import SettingsInvalid
from nanoclaw_runtime.domain.mounts import load_allowlist
from nanoclaw_runtime.host.health import Health
from nanoclaw_runtime.host.place import HostPlace
from nanoclaw_runtime.host.stack_file import StackFile, watch_groups
from nanoclaw_runtime.store.store import Store
from nanoclaw_runtime.telemetry import Metrics

ALLOWLIST: Final = Path("~/.config/nanoclaw/mount-allowlist.json")
"""NanoClaw's own file; the stack's `mountAllowlist` comes first."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class HostSettings:
    """What the command line says."""

    stack_file: Path
    place: HostPlace
    address: str
    port: int
    docker_host: str | None = None
    network: str | None = None


async def run(settings: HostSettings, ready: Callable[[], None]) -> None:
    """Be the controller of a Docker host until cancelled; `ready` is called when nothing speaks against it.

    Raises SettingsInvalid at once when file, tree or engine cannot be used, PortTaken for the API.
    """
    place = settings.place
    config = _allowing(StackFile.read(settings.stack_file, place.environ).config)
    docker = DockerClient(settings.docker_host)
    await _check_engine(docker)
    metrics = Metrics()
    async with AsyncExitStack() as stack:
        stack.enter_context(place.taken())
        store = await Store.open(place.database_url, on_error=metrics.database_errors.inc)
        stack.push_async_callback(store.close)
        backend = DockerBackend(docker, place.tree, keep=config.keep_finished, network=settings.network)
        health = Health(docker, config.agent, place.tree)
        means = Means(
            config=config,
            backend=backend,
            store=store,
            tree=place.tree,
            credentials=lambda _folder: place.credentials(),
            metrics=metrics,
            volumes=OneTree(),
            channels=configured(config.channels, place.channel_secret, assistant_name=config.assistant_name),
            checks=health.checks,
        )
        groups = watch_groups(settings.stack_file, place.environ)
        async with asyncio.TaskGroup() as engine:
            engine.create_task(backend.run(), name="ended containers")
            engine.create_task(health.run(), name="health of the host")
            ready()
            await serve_host(means, groups, place.api_token, address=settings.address, port=settings.port)


async def _check_engine(docker: DockerClient) -> None:
    try:
        version = await docker.ready()
    except DockerFailed as error:
        raise SettingsInvalid(f"the Docker engine cannot be used: {error}") from error
    _log.info("docker engine found", version=version)


def _allowing(config: ControllerConfig) -> ControllerConfig:
    """`config` with NanoClaw's own allowlist, where the stack has none and the file is there."""
    if config.mount_allowlist is not None:
        return config
    try:
        text = ALLOWLIST.expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return config
    try:
        return config.model_copy(update={"mount_allowlist": load_allowlist(text)})
    except SettingsInvalid as error:
        _log.warning("mount allowlist not used", file=str(ALLOWLIST), problem=str(error))
        return config
