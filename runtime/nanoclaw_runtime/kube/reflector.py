"""The present state of one kind, in memory, shared by everybody who waits for something in it.

One watch serves all sessions. A waiter's condition is evaluated when its object changes; if it
raises, that waiter gets the exception and nobody else notices. Not here: how the state is kept
true (`watch`), and anything that acts on it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from nanoclaw_runtime.kube.client import KubeClient
from nanoclaw_runtime.kube.deadline import Deadline
from nanoclaw_runtime.kube.errors import Target
from nanoclaw_runtime.kube.resources import Object, Resource
from nanoclaw_runtime.kube.watch import PACE, Change, Pace, Watch

T = TypeVar("T", bound=Object)


@dataclass(eq=False)
class _Waiter(Generic[T]):
    name: str | None
    """Of the object it waits for; None when any may do."""
    condition: Callable[[T | None], bool]
    result: asyncio.Future[T | None]


class Reflector(Generic[T]):
    """Cache and waiting room of one watch. Its owner runs `run` in a task as long as it is used."""

    def __init__(
        self,
        client: KubeClient,
        resource: Resource,
        kind: type[T],
        *,
        namespace: str = "",
        labels: str = "",
        fields: str = "",
        pace: Pace = PACE,
    ) -> None:
        self._watch = Watch(client, resource, kind, namespace=namespace, labels=labels, fields=fields, pace=pace)
        self._place = Target("wait for", resource.plural, namespace or client.namespace)
        self._synced = asyncio.Event()
        self._waiters: set[_Waiter[T]] = set()

    async def run(self) -> None:
        """Keep the cache true until cancelled."""
        async with contextlib.aclosing(self._watch.batches()) as batches:
            async for batch in batches:
                for change in batch.changes:
                    self._tell(change)
                if batch.listed:
                    self._synced.set()

    @property
    def objects(self) -> Mapping[str, T]:
        """Everything that matches the selectors, by name. Empty before the first list."""
        return self._watch.objects

    @property
    def complete(self) -> bool:
        """Whether the first list has come."""
        return self._synced.is_set()

    @property
    def age(self) -> float:
        """Seconds since the API server's last sign of life; beyond `Pace.silence` something is wrong."""
        return self._watch.age

    @property
    def relists(self) -> int:
        """How often the watch's history was lost or not trusted."""
        return max(0, self._watch.lists - 1)

    async def synced(self, deadline: Deadline) -> None:
        """Return when the cache is complete. Raises DeadlineExceeded."""
        async with deadline.enforce(self._place):
            await self._synced.wait()

    async def until(self, name: str, condition: Callable[[T | None], bool], deadline: Deadline) -> T | None:
        """The object `name`, or None if there is none, as soon as `condition` holds for it.

        Raises DeadlineExceeded, and whatever the condition raises.
        """
        await self.synced(deadline)
        if condition(found := self.objects.get(name)):
            return found
        return await self._wait(name, condition, deadline)

    async def find(self, condition: Callable[[T], bool], deadline: Deadline) -> T:
        """Some object for which `condition` holds, as soon as there is one. Raises as `until`."""
        await self.synced(deadline)
        for item in self.objects.values():
            if condition(item):
                return item
        found = await self._wait(None, lambda item: item is not None and condition(item), deadline)
        assert found is not None
        return found

    async def _wait(self, name: str | None, condition: Callable[[T | None], bool], deadline: Deadline) -> T | None:
        waiter = _Waiter(name, condition, asyncio.get_running_loop().create_future())
        self._waiters.add(waiter)
        try:
            async with deadline.enforce(
                Target(self._place.verb, self._place.resource, self._place.namespace, name or "")
            ):
                return await waiter.result
        finally:
            self._waiters.discard(waiter)

    def _tell(self, change: Change[T]) -> None:
        for waiter in tuple(self._waiters):
            if waiter.name in {None, change.name} and not waiter.result.done():
                _evaluate(waiter, change.object)


def _evaluate(waiter: _Waiter[T], item: T | None) -> None:
    try:
        holds = waiter.condition(item)
    except Exception as error:  # noqa: BLE001  # a waiter's mistake must not end the watch for all others
        waiter.result.set_exception(error)
    else:
        if holds:
            waiter.result.set_result(item)
