"""Session plans in one line."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from nanoclaw_runtime.contract.bridge import BridgeFacts
from nanoclaw_runtime.contract.claims import Layout
from nanoclaw_runtime.contract.config import AgentSettings, ControllerConfig, Pattern, Platform, Resources, Transport
from nanoclaw_runtime.contract.mounts import ExtraMount
from nanoclaw_runtime.domain.model import SessionKind, SessionPlan, SessionRef
from nanoclaw_runtime.manifests.job import agent_job
from nanoclaw_runtime.manifests.statefulset import agent_set


def plan(
    folder: str,
    session: str,
    *,
    kind: SessionKind = SessionKind.MESSAGES,
    platform: Platform = Platform.KUBERNETES,
    layout: Layout = Layout.PER_TYPE,
    image: str = "registry.example/agent:1",
    resources: Resources | None = None,
    env: dict[str, str] | None = None,
    extra: tuple[ExtraMount, ...] = (),
    **settings: Any,
) -> SessionPlan:
    """A session of `folder`; whatever is not named is as in a stack that says nothing."""
    agent = AgentSettings(image=image, resources=resources or Resources(), env=env or {})
    config = ControllerConfig(agent=agent, platform=platform, layout=layout, **settings)
    return SessionPlan(SessionRef(folder, session, kind), config, extra)


def ready(stdin: bytes) -> asyncio.Future[bytes]:
    """An input that an agent may have at once."""
    done = asyncio.get_running_loop().create_future()
    done.set_result(stdin)
    return done


def bridged(folder: str, **settings: Any) -> SessionPlan:
    """A session beside whose agent a container carries its files."""
    image = "registry.example/nanoclaw/runtime:1"
    given = plan(folder, "20260101-abcd", transport=Transport.BRIDGE, bridge_image=image, **settings)
    certificate = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
    return replace(given, bridge=BridgeFacts("nanoclaw-controller.chat.svc:8443", certificate))


EXTRA = (
    ExtraMount("/workspace/extra/library", claim="library.docs"),
    ExtraMount(
        "/workspace/extra/drafts/may",
        read_only=False,
        claim="drafts",
        sub_path="2026/may",
    ),
    ExtraMount("/workspace/extra/drafts/june", claim="drafts", sub_path="2026/june"),
    ExtraMount("/workspace/extra/prompts", config_map="prompts"),
)
"""Additional mounts of every kind that Pod Security `restricted` permits."""


SHAPES = (
    {
        f"{role}-{layout.value}-{platform.value}": plan(
            folder, "20260101-abcd", platform=platform, layout=layout, timezone="Europe/Berlin"
        )
        for role, folder in (("main", "main"), ("group", "Team_42"))
        for layout in Layout
        for platform in Platform
    }
    | {
        "task": plan("team", "20260101-abcd", kind=SessionKind.TASK, env={"LOG_LEVEL": "debug"}),
        "extra": plan("team", "20260101-abcd", extra=EXTRA),
        "parked": replace(plan("team", "20260101-abcd", layout=Layout.PER_GROUP), parked=True, near="worker-1"),
        "statefulset": replace(plan("team", "20260101-abcd", pattern=Pattern.STATEFULSET), parked=True),
        "nodelocal": replace(
            plan("Team_42", "20260101-abcd", pattern=Pattern.NODELOCAL, node_root="/srv/nanoclaw"), node="worker-1"
        ),
    }
    | {
        f"bridge-{folder.lower()}-{cut.value}": bridged(folder, layout=cut)
        for folder, cut in (("main", Layout.PER_TYPE), ("Team_42", Layout.PER_GROUP))
    }
)
"""Every shape a session's objects can take, by name."""


def holder(given: SessionPlan) -> dict[str, Any]:
    """What the runtime makes for the plan: a Job, or the StatefulSet of its group."""
    return agent_set(given) if given.config.pattern is Pattern.STATEFULSET else agent_job(given)
