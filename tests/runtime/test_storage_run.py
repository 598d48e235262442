"""What `nanoclaw bench storage` hears of the pod that measures, whenever its log breaks off and its pod ends.

On real nodes: `tests/cluster/test_storage_bench.py`.
"""

import asyncio
import contextlib

import pytest

from nanoclaw_runtime.cli import bench_run
from nanoclaw_runtime.cli.bench_run import Outcome, made_claim
from nanoclaw_runtime.cli.errors import CommandFailed
from nanoclaw_runtime.kube.errors import NotFound, StreamLost, Target

LOG = Target("get", "pods/log", "here", "bench")
STEPS = [b'{"step": "one"}\n', b'{"step": "two"}\n']
LAST = b'{"done": true}\n'


class Cluster:
    """An API server with one pod: each look at its log brings the next of `logs`, None is a connection that broke."""

    def __init__(self, *logs, ended_at=0) -> None:
        self._logs = list(logs)
        self._ended_at = ended_at
        self.looks = 0
        self.claims: set[str] = set()
        self.asked = asyncio.Event()

    async def pod_log(self, name, *, container, namespace, follow):
        for chunk in self._logs.pop(0):
            if chunk is None:
                raise StreamLost(LOG, "broken off")
            yield chunk

    async def get(self, resource, name, *, namespace):
        self.looks += 1
        return {"status": {"phase": "Succeeded" if self.looks > self._ended_at else "Running"}}

    async def create(self, resource, manifest, *, namespace):
        self.claims.add(manifest["metadata"]["name"])
        self.asked.set()
        await asyncio.Event().wait()  # it is made, and its answer does not come

    async def delete(self, resource, name, *, namespace):
        if name not in self.claims:
            raise NotFound(LOG, "gone")
        self.claims.remove(name)


async def heard(cluster):
    steps = []
    await bench_run._listen(cluster, "here", "bench", Outcome([]), steps.append)
    return steps


async def test_a_pod_that_ends_while_its_log_is_lost_is_heard_to_its_end():
    assert await heard(Cluster([STEPS[0], None], [*STEPS, LAST])) == ["one", "two"]


async def test_a_pod_that_ends_behind_a_log_that_was_rotated_is_heard_to_its_end():
    assert await heard(Cluster([STEPS[0]], [*STEPS, LAST])) == ["one", "two"]
    assert await heard(Cluster([STEPS[0]], STEPS, [*STEPS, LAST], ended_at=1)) == ["one", "two"]


async def test_a_pod_that_ended_without_its_last_line_ended_early():
    with pytest.raises(CommandFailed, match="ended early: no space"):
        await heard(Cluster(STEPS, [*STEPS, None], [*STEPS, b"no space"]))


async def test_a_claim_whose_making_was_not_waited_for_is_removed():
    cluster = Cluster()

    async def making():
        async with made_claim(cluster, "here", {"metadata": {"name": "bench"}}):
            raise AssertionError("there was no answer")

    task = asyncio.create_task(making())
    await cluster.asked.wait()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert cluster.claims == set()


class Pods:
    """An API server with pods that takes its time to delete one."""

    def __init__(self, *names) -> None:
        self.names = set(names)
        self.asked, self.go = asyncio.Event(), asyncio.Event()

    async def delete(self, resource, name, *, namespace):
        self.asked.set()
        await self.go.wait()
        self.names.remove(name)

    async def get(self, resource, name, *, namespace):
        raise NotFound(LOG, "gone")


async def test_ctrl_c_while_it_cleans_up_already_leaves_no_pod():
    cluster = Pods("measure", "near", "far")

    async def measuring():
        async with bench_run._removed(cluster, "here", lambda _: None) as pods:
            pods.made += ["near", "far", "measure"]

    task = asyncio.create_task(measuring())
    await cluster.asked.wait()
    task.cancel()
    await asyncio.sleep(0)
    cluster.go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cluster.names == set()
