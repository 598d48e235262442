"""Session plans in one line."""

from __future__ import annotations

from typing import Any

from nanoclaw_runtime.contract.claims import Layout
from nanoclaw_runtime.contract.config import AgentSettings, ControllerConfig, Platform, Resources
from nanoclaw_runtime.domain.model import SessionKind, SessionPlan, SessionRef


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
    **settings: Any,
) -> SessionPlan:
    """A session of `folder`; whatever is not named is as in a stack that says nothing."""
    agent = AgentSettings(image=image, resources=resources or Resources(), env=env or {})
    config = ControllerConfig(agent=agent, platform=platform, layout=layout, **settings)
    return SessionPlan(SessionRef(folder, session, kind), config)
