"""A session as a `docker run`: the pod of `pod`, said in Docker's words.

It takes away what the pod takes away, mounts what the pod mounts, and says as little about the
session's content. Where the agent's folders lie on the host is the tree's layout, which is that
of one shared volume.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from nanoclaw_runtime.contract import labels, layout, names, quantities, wire
from nanoclaw_runtime.contract.claims import Layout
from nanoclaw_runtime.contract.config import AgentSettings
from nanoclaw_runtime.domain.model import SessionPlan
from nanoclaw_runtime.manifests.pod import GRACE, HOME_SIZE, TMP_SIZE

PULL: Final = {"Always": "always", "IfNotPresent": "missing", "Never": "never"}
"""Kubernetes' pull policies in Docker's words."""

LOG_SIZE: Final = "256m"
"""Bytes of a container's log; an engine's own, smaller limit could take outputs away before they are read."""

MOST_PROCESSES: Final = 4096
"""Processes and threads of an agent; a browser has a few hundred. On a cluster the kubelet has such a limit."""


@dataclass(frozen=True)
class DockerHost:
    """What every session on one Docker host shares."""

    tree: PurePosixPath
    """Absolute path of the NanoClaw-shaped tree, without links."""
    uid: int
    gid: int
    """Of the agents: never root's, and the same as whoever owns the tree."""
    network: str | None = None
    """The engine's default when it is None."""

    @property
    def installation(self) -> str:
        """Keeps the containers of different trees on one engine apart."""
        return hashlib.sha256(str(self.tree).encode()).hexdigest()[:16]

    @property
    def selector(self) -> dict[str, str]:
        """Labels that all agents of this host have, and nothing else has."""
        return {labels.INSTALLATION: self.installation, labels.COMPONENT: labels.AGENT}


def bind_mounts(plan: SessionPlan) -> tuple[layout.Mount, ...]:
    """What the agent sees of the tree; each mount's `sub_path` is the folder, relative to the tree."""
    return layout.agent_mounts(Layout.SHARED, plan.ref.folder, plan.ref.session)


def container_name(plan: SessionPlan) -> str:
    return names.job(plan.ref.folder, plan.ref.session)


def agent_run(plan: SessionPlan, host: DockerHost) -> list[str]:
    """The arguments of `docker` that start the session; its input and secrets come over stdin."""
    return ["run", *_options(plan, host), plan.config.agent.image]


def _options(plan: SessionPlan, host: DockerHost) -> Iterator[str]:
    ref, agent = plan.ref, plan.config.agent
    yield from ("--interactive", "--sig-proxy=false", "--name", container_name(plan))
    marks = labels.session(ref.folder, ref.session, ref.kind.value) | host.selector | {labels.FOLDER: ref.folder}
    for key, value in sorted(marks.items()):
        yield from ("--label", f"{key}={value}")
    yield from ("--pull", PULL[agent.image_pull_policy], "--stop-timeout", str(GRACE))
    yield from ("--log-driver", "json-file", "--log-opt", f"max-size={LOG_SIZE}")
    yield from _restrictions(host)
    yield from _limits(agent)
    environment = agent.env | {"HOME": wire.AGENT_HOME, "TZ": plan.config.timezone}
    for key, value in sorted(environment.items()):
        yield from ("--env", f"{key}={value}")
    yield from _mounts(plan, host)


def _restrictions(host: DockerHost) -> Iterator[str]:
    yield from ("--user", f"{host.uid}:{host.gid}", "--read-only")
    yield from ("--cap-drop", "ALL", "--security-opt", "no-new-privileges")
    if host.network is not None:
        yield from ("--network", host.network)


def _limits(agent: AgentSettings) -> Iterator[str]:
    memory = str(int(quantities.parse(agent.resources.memory_limit)))
    # As much swap as memory means none at all.
    yield from ("--memory", memory, "--memory-swap", memory)
    yield from ("--cpus", f"{quantities.parse(agent.resources.cpu_limit):f}", "--pids-limit", str(MOST_PROCESSES))


def _mounts(plan: SessionPlan, host: DockerHost) -> Iterator[str]:
    # The agent compiles into /tmp and runs the result; Docker forbids that unless it is told otherwise.
    yield from ("--tmpfs", f"/tmp:{_scratch(TMP_SIZE)},mode=1777")  # noqa: S108
    yield from ("--tmpfs", f"{wire.AGENT_HOME}:{_scratch(HOME_SIZE)},mode=0755,uid={host.uid},gid={host.gid}")
    for mount in bind_mounts(plan):
        yield from ("--mount", _bind(str(host.tree / (mount.sub_path or "")), mount.path, read_only=mount.read_only))
    for extra in plan.extra:
        assert extra.host_path is not None, "on a Docker host only folders of the host are accepted"
        yield from ("--mount", _bind(extra.host_path, extra.path, read_only=extra.read_only))


def _scratch(size: str) -> str:
    return f"rw,exec,nosuid,nodev,size={int(quantities.parse(size))}"


def _bind(source: str, target: str, *, read_only: bool) -> str:
    """One bind mount, as the list of comma-separated values that Docker reads."""
    fields = ["type=bind", f"source={source}", f"target={target}", *(["readonly"] if read_only else [])]
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(fields)
    return line.getvalue()
