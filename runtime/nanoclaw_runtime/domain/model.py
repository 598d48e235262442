"""The things the controller talks about: a session, its plan, its outputs."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass, field
from enum import StrEnum

from nanoclaw_runtime.contract.bridge import BridgeFacts
from nanoclaw_runtime.contract.config import ControllerConfig
from nanoclaw_runtime.contract.mounts import ExtraMount
from nanoclaw_runtime.contract.wire import ContainerOutput


class SessionKind(StrEnum):
    MESSAGES = "messages"
    TASK = "task"


@dataclass(frozen=True)
class SessionRef:
    """Which session: the group's folder and the id that every object of it carries."""

    folder: str
    session: str
    kind: SessionKind = SessionKind.MESSAGES


@dataclass(frozen=True)
class SessionPlan:
    """Everything a manifest may know about a session; there is no secret in it."""

    ref: SessionRef
    config: ControllerConfig
    extra: tuple[ExtraMount, ...] = ()
    """The additional mounts its group may have, as `contract.mounts` judged them."""
    parked: bool = False
    """Whether its pod is made before there is a message: it says so on itself, and when its agent waits for input."""
    node: str | None = None
    """The one node it has to run on; wherever the scheduler likes when it is None."""
    near: str | None = None
    """The node of its group's last pod: a wish, because its volumes may still be attached there."""
    bridge: BridgeFacts | None = None
    """Where its pod finds the controller, with the transport `bridge`."""


@dataclass(frozen=True)
class SessionSpec:
    """A session to start: the plan, and what its agent reads from stdin."""

    plan: SessionPlan
    stdin: Awaitable[bytes] = field(repr=False)
    """The encoded ContainerInput, secrets included. Never logged, never part of a manifest.

    There when the agent may have it: the session is recorded and the folders it mounts are there. May be awaited again,
    as a Future. Raises OSError where the folders cannot be, and StoreFailed.
    """


@dataclass(frozen=True)
class AgentOutput:
    """One marker of a session, counted from 0 in the order the agent printed them."""

    ordinal: int
    output: ContainerOutput
