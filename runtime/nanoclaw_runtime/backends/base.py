"""The protocol every backend keeps, and nothing about any one of them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import datetime, timedelta
from typing import Protocol

from nanoclaw_runtime.contract.config import Transport
from nanoclaw_runtime.domain.model import AgentOutput, SessionPlan, SessionRef, SessionSpec


class RunningSession(Protocol):
    """An agent that has its input, or is about to have ended."""

    @property
    def ref(self) -> SessionRef:
        """Which session. Of one that was parked and found again, the kind is not known: it is `messages` then."""
        ...

    @property
    def parked(self) -> str | None:
        """The fingerprint of the plan it was parked with; None for one that was started for its message."""
        ...

    @property
    def transport(self) -> Transport:
        """How its messages reach it, which the controller's settings may have changed since."""
        ...

    @property
    def created(self) -> datetime | None:
        """When its pod was, by the cluster's clock; None while that is not known."""
        ...

    def outputs(self, skip: int = 0) -> AsyncGenerator[AgentOutput]:
        """The outputs in order, from ordinal `skip` on; ends when the agent has exited with 0.

        A lost stream is repaired inside, without a gap and without a repetition. Raises
        SessionFailed, with a diagnosis, when the agent ended in any other way. Iterate once.
        """
        ...

    async def stop(self, *, grace: timedelta) -> None:
        """End the agent and return when it is gone. Idempotent.

        `grace` is how long an agent that is already on its way out may still take (it was asked
        through the mailbox); zero ends it at once.
        """
        ...


async def no_room(_folder: str) -> bool:
    """There is nothing that could be taken away."""
    return False


class Backend(Protocol):
    """Starts sessions and finds those that run."""

    make_room: Callable[[str], Awaitable[bool]]
    """Asked, with the folder of a group whose agent finds no room, to take something away: whether that was done."""

    async def start(self, spec: SessionSpec) -> RunningSession:
        """Start a session; returns when its agent has the whole input and stdin is closed.

        The pod that was prepared for this very session is used when it is made of the same plan and
        can still be reached, which is tried while the input becomes ready, and replaced otherwise. Nothing is
        made before the input is ready. Waits for a predecessor of the same group to be gone. Leaves nothing
        behind when it raises SessionFailed, or what the input raises, or is cancelled.
        """
        ...

    async def prepare(self, plan: SessionPlan) -> RunningSession | None:
        """Park an agent: make its pod, without any input, for a later `start` of the same session.

        Returns when the pod is asked for, not when it waits; `stop` takes it away again. None where
        there is nothing to prepare. Only when the group has no session. Leaves nothing behind when it raises
        SessionFailed or is cancelled.
        """
        ...

    def waits(self, session: str) -> bool | None:
        """Whether the parked agent of the session has compiled and waits for its input, as far as is known.

        None when there is no such pod, or it will not wait any more: it ended, or is being deleted.
        """
        ...

    async def once_parked(self) -> set[str]:
        """Sessions that were parked and are not over, those that are on their way out among them."""
        ...

    def never_fed(self, session: str) -> None:
        """The caller's records say of one of these that it never had an input.

        So it bars no other one of its group, even if its node does not say that it is gone.
        """
        ...

    async def running(self) -> list[RunningSession]:
        """Every session that is alive or has ended a short while ago, whoever started it; parked ones, too.

        Used to adopt after a restart. Whether an agent ever got its input cannot be seen from
        outside: the caller knows from its own records, and stops (with no grace) those that
        never did, and those it knows to be over may be left alone.
        """
        ...
