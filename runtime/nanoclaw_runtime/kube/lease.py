"""Leases: who of several processes does something, and which of them live.

A holder is believed dead when its lease has not changed for as long as we have been looking at it
without a change: by our own monotonic clock, never by the times in the lease, which are another
machine's. A holder stops believing in itself earlier than others may stop believing in it. That
does not stop a process that is frozen in the middle of a write: whoever writes under a lease
writes with a precondition as well (`replace`, and a term of its own).

The official client's election is not used: a call that hangs keeps an old leader for minutes there,
and the work of one that lost goes on while it is told so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import structlog

from nanoclaw_runtime.kube.client import KubeClient, Manifest
from nanoclaw_runtime.kube.deadline import Deadline
from nanoclaw_runtime.kube.errors import AlreadyExists, Conflict, KubeError, NotFound, Target
from nanoclaw_runtime.kube.resources import Object, Resource, Slim, slim

LEASES: Final = Resource("Lease", "leases", "/apis/coordination.k8s.io/v1")

_NOBODY: Final = ""

_log = structlog.get_logger(__name__)


class LeaseSpec(Slim, frozen=True):
    holder_identity: str | None = None
    renew_time: str | None = None
    lease_transitions: int | None = None
    lease_duration_seconds: int | None = None


class Lease(Object, frozen=True):
    spec: LeaseSpec = LeaseSpec()

    @property
    def beat(self) -> tuple[str | None, str | None, int | None]:
        """What its holder changes with each sign of life, and nobody else does."""
        return self.spec.holder_identity, self.spec.renew_time, self.spec.lease_transitions


@dataclass(frozen=True)
class Timing:
    """Of a lease, in seconds."""

    duration: float = 15.0
    """Without a change for so long it is free for others."""
    renew: float = 4.0
    """From one renewal, or one look, to the next."""
    margin: float = 5.0
    """The holder stops so much earlier than others may begin."""

    @property
    def call(self) -> Deadline:
        """For one renewal, so that one that hangs leaves time for another."""
        return Deadline.after(self.renew)


class Election:
    """Holds one lease whenever it can. `run` is its life, `held` whether it is ours right now."""

    def __init__(
        self, client: KubeClient, name: str, identity: str, *, namespace: str, timing: Timing | None = None
    ) -> None:
        """`identity` is of this process and no other, not even of the same pod's last one."""
        self._client, self._name, self._identity, self._namespace = client, name, identity, namespace
        self._timing = timing or Timing()
        self._until = float("-inf")
        self._claimed = False
        """It may be ours as the API server has it, be it that we never heard so."""
        self._seen: tuple[str | None, str | None, int | None] | None = None
        self._seen_at = 0.0
        self._told = False

    @property
    def held(self) -> bool:
        """By our clock; ask right before each write."""
        return _now() < self._until

    async def run(self) -> None:
        """Hold it, or wait for it, until cancelled; then give it up, so that another need not wait."""
        try:
            while True:
                try:
                    await self._turn()
                except KubeError as error:
                    _log.warning("lease.not-reached", lease=self._name, held=self.held, error=error.message)
                if self._told != self.held:
                    self._told = self.held
                    _log.info("lease.taken" if self.held else "lease.lost", lease=self._name, holder=self._identity)
                await asyncio.sleep(self._timing.renew)
        finally:
            await self._give_up()

    async def _turn(self) -> None:
        begun, deadline = _now(), self._timing.call
        try:
            found = await self._client.get(LEASES, self._name, namespace=self._namespace, deadline=deadline)
            lease = slim(found, Lease)
            self._claimed = self._may_take(lease)
            if not self._claimed:
                return
            taken = lease.spec.holder_identity != self._identity
            spec = self._spec((lease.spec.lease_transitions or 0) + taken)
            await replace(self._client, LEASES, found | {"spec": spec}, namespace=self._namespace, deadline=deadline)
        except NotFound:
            self._claimed = True
            await create_lease(self._client, self._name, self._spec(0), namespace=self._namespace, deadline=deadline)
        except (Conflict, AlreadyExists):
            return  # somebody was quicker: look again, in a moment
        # From before the call: when the server wrote it down, we cannot know.
        self._until = begun + self._timing.duration - self._timing.margin

    def _may_take(self, lease: Lease) -> bool:
        now = _now()
        if lease.beat != self._seen:
            self._seen, self._seen_at = lease.beat, now
        if (lease.spec.holder_identity or _NOBODY) in {_NOBODY, self._identity}:
            return True
        self._until = float("-inf")
        # What it promised itself may be longer than what we would: settings change while processes live.
        patience = max(self._timing.duration, lease.spec.lease_duration_seconds or 0)
        return now - self._seen_at >= patience

    def _spec(self, transitions: int) -> Manifest:
        return lease_spec(self._identity, self._timing.duration, transitions)

    async def _give_up(self) -> None:
        if not self._claimed:
            return
        self._until = float("-inf")
        try:
            found = await self._client.get(
                LEASES, self._name, namespace=self._namespace, deadline=Deadline.after(self._timing.renew)
            )
            if found["spec"].get("holderIdentity") == self._identity:
                await replace(
                    self._client,
                    LEASES,
                    found | {"spec": found["spec"] | {"holderIdentity": _NOBODY}},
                    namespace=self._namespace,
                    deadline=Deadline.after(self._timing.renew),
                )
        except KubeError as error:
            _log.info("lease.not-released", lease=self._name, error=error.message)


def lease_spec(holder: str, duration: float, transitions: int = 0) -> Manifest:
    """The spec of a lease that is renewed now; its times are for people to read."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return {
        "holderIdentity": holder,
        "leaseDurationSeconds": max(1, round(duration)),
        "renewTime": now,
        "leaseTransitions": transitions,
    }


async def create_lease(
    client: KubeClient,
    name: str,
    spec: Manifest,
    *,
    namespace: str,
    deadline: Deadline | None = None,
    **metadata: Mapping[str, Any],
) -> Manifest:
    """Raises AlreadyExists, or another KubeError."""
    manifest = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name, **metadata},
        "spec": spec,
    }
    return await client.create(LEASES, manifest, namespace=namespace, deadline=deadline)


async def replace(
    client: KubeClient, resource: Resource, manifest: Manifest, *, namespace: str, deadline: Deadline | None = None
) -> Manifest:
    """Write an object as a whole, if it still is of the `resourceVersion` it was read with. Raises Conflict.

    Not repeated: a second try of one that succeeded unheard would find another version.
    """
    name = manifest["metadata"]["name"]
    target = Target("update", resource.plural, namespace, name)
    path, query = resource.path(namespace, name), [("fieldValidation", "Strict")]
    return await client.request("PUT", path, target, query=query, body=manifest, deadline=deadline, repeat=False)


def _now() -> float:
    return asyncio.get_running_loop().time()
