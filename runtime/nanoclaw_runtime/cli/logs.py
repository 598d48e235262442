"""Which pod's log a person means, and its text."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from nanoclaw_runtime.backends.docker_client import DockerClient, DockerFailed
from nanoclaw_runtime.cli.direct import Direct
from nanoclaw_runtime.cli.errors import CommandFailed, NotReachable
from nanoclaw_runtime.cli.remote import Remote
from nanoclaw_runtime.contract import labels, names
from nanoclaw_runtime.kube.errors import Invalid, KubeError
from nanoclaw_runtime.kube.resources import PODS


def selector(group: str | None, session: str | None) -> str:
    """Label selector of the pods whose log is meant: a session's, a group's, or the controller's."""
    if session is not None:
        return f"{labels.AGENT_SELECTOR},{labels.SESSION}={session}"
    if group is not None:
        return f"{labels.AGENT_SELECTOR},{labels.GROUP}={names.slug(group)}"
    return labels.CONTROLLER_SELECTOR


def newest(pods: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    return max(pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"]), default=None)


async def read(remote: Remote, *, group: str | None, session: str | None, follow: bool) -> AsyncGenerator[bytes]:
    """The log of the newest pod or container that is meant, in chunks. Raises CommandFailed when there is none."""
    if isinstance(remote.transport, Direct):
        async with contextlib.aclosing(_of_container(remote.transport, group, session, follow=follow)) as chunks:
            async for chunk in chunks:
                yield chunk
        return
    try:
        found = newest(
            await remote.cluster.client.list(PODS, namespace=remote.cluster.namespace, labels=selector(group, session))
        )
        if found is None:
            raise CommandFailed(_nothing(remote.cluster.namespace, group, session))
        container = found["spec"]["containers"][0]["name"]
        name = found["metadata"]["name"]
        log = remote.cluster.client.pod_log(
            name, container=container, namespace=remote.cluster.namespace, follow=follow
        )
        async with contextlib.aclosing(log) as chunks:
            async for chunk in chunks:
                yield chunk
    except Invalid as error:
        raise CommandFailed(f"there is no log yet: {error.message}; try again in a moment") from error
    except KubeError as error:
        raise NotReachable(f"the log cannot be read: {error.message}; `nanoclaw doctor` checks your rights") from error


async def _of_container(way: Direct, group: str | None, session: str | None, *, follow: bool) -> AsyncGenerator[bytes]:
    """The same on a Docker host; its controller has no log of its own."""
    if group is None and session is None:
        raise CommandFailed(
            "the controller of a Docker host logs where `nanoclaw host` runs: its terminal, or its unit"
        )
    if not way.local:
        raise CommandFailed(f"the agents' logs are on the host of {way.url}; run this command there")
    wanted = {labels.SESSION: session} if session is not None else {labels.GROUP: names.slug(group or "")}
    try:
        docker = DockerClient()
        found = await docker.containers({labels.COMPONENT: labels.AGENT} | wanted)
        if not found:
            raise CommandFailed("there is no container of that session or group any more")
        client = await docker.open("logs", *(["--follow"] if follow else []), found[0].name)
    except DockerFailed as error:
        raise NotReachable(f"the log cannot be read: {error}") from error
    try:
        async for chunk in client.stdout():
            yield chunk
    finally:
        await client.close()


def _nothing(namespace: str, group: str | None, session: str | None) -> str:
    if session is not None:
        return f"session {session!r} has no pod any more; `nanoclaw sessions` lists those that are alive"
    if group is not None:
        return f"no session of group {group!r} has a pod; `nanoclaw groups` shows what the groups do"
    return f"there is no controller in namespace {namespace!r}; name another one with --namespace"
