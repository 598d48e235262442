"""What makes the pod of a session on a cluster, as a protocol: a Job of its own, or the StatefulSet of its group.

A vehicle knows its kind of object and nothing of input, output or time. Everything that is alike for both is
`cluster` and `pod_session`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from nanoclaw_runtime.contract import labels
from nanoclaw_runtime.contract.config import Transport
from nanoclaw_runtime.domain.model import SessionKind, SessionPlan, SessionRef
from nanoclaw_runtime.kube.deadline import Deadline
from nanoclaw_runtime.kube.resources import Metadata

GONE_WITHIN: Final = 60.0
"""Seconds from asking for a pod's end to its being gone; its own grace is two."""


@dataclass(frozen=True)
class Holder:
    """The object behind a session's pod, as it was when it was looked at."""

    ref: SessionRef
    name: str
    uid: str
    parked: str | None = None
    """The fingerprint of the plan, where it was made before its message."""
    transport: Transport = Transport.VOLUME
    node: str | None = None
    """The node it belongs to, with the pattern `nodelocal`."""
    pod: str | None = None
    """The uid of the pod that has the session's input, where that is known; any other has none."""
    container: str | None = None
    """The id of the container in it that has."""


class Vehicle(Protocol):
    """One way to have a pod for a session. Everything raises KubeError."""

    async def emptied(self, ref: SessionRef, deadline: Deadline) -> None:
        """Return when a pod can be asked for. Raises SessionFailed; may be cancelled at any moment."""
        ...

    async def make(self, plan: SessionPlan, deadline: Deadline) -> Holder:
        """Ask for the session's pod, once it is `emptied`; nobody else of the group may have one."""
        ...

    async def find(self, ref: SessionRef) -> Holder | None:
        """What holds this session, if anything does."""
        ...

    async def all(self) -> list[Holder]:
        """Every session that has, or will get, or had a pod until lately; not those that are being removed."""
        ...

    async def given(self, holder: Holder) -> None:
        """The pod `holder.pod` has the session's input: let later processes tell it from one made in its place.

        Raises nothing: what fails is logged.
        """
        ...

    async def remove(self, holder: Holder) -> None:
        """Take the pod away and return when the session has none that could run.

        Raises SessionFailed when it does not go away; it is never forced, because on a node that is
        merely unreachable its agent still writes.
        """
        ...

    async def release(self, holder: Holder) -> None:
        """The session is over and everything it said is known: do what has to be done before the group's next one.

        Returns at once; the next `emptied` waits for what was begun.
        """
        ...

    async def is_over(self, holder: Holder) -> bool:
        """Whether the session gets no further pod."""
        ...


def holder_of(found: Metadata) -> Holder | None:
    """The session an object of ours was made for; None when it does not say."""
    annotations = found.annotations or {}
    folder, session, kind = annotations.get(labels.FOLDER, ""), found.label(labels.SESSION), found.label(labels.KIND)
    if not folder or not session or kind not in {*SessionKind, labels.PARKED}:
        return None
    transport = annotations.get(labels.TRANSPORT, Transport.VOLUME)
    pod, container = _given(annotations.get(labels.GIVEN, ""), session)
    return Holder(
        SessionRef(folder, session, SessionKind.MESSAGES if kind == labels.PARKED else SessionKind(kind)),
        found.name,
        found.uid,
        parked=annotations.get(labels.FINGERPRINT) if kind == labels.PARKED else None,
        transport=Transport(transport) if transport in set(Transport) else Transport.VOLUME,
        node=annotations.get(labels.NODE),
        pod=pod,
        container=container,
    )


def given_to(holder: Holder) -> str:
    """As the annotation has it; with the session, because it stays on a set when the next one begins."""
    return f"{holder.ref.session}/{holder.pod}/{holder.container or ''}"


def _given(annotation: str, session: str) -> tuple[str | None, str | None]:
    """Pod and container; earlier versions wrote no container."""
    known, _, rest = annotation.partition("/")
    pod, _, container = rest.partition("/")
    return (pod or None, container or None) if known == session else (None, None)
