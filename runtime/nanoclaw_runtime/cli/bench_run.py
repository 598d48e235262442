"""Runs a measurement in a cluster: makes its pods, listens to them, and removes everything again whatever happens.

What the pods look like is `bench_pods`, what they do `storage_probe`, and what it means `domain.storage_advice`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from nanoclaw_runtime.backends.to_the_end import to_the_end
from nanoclaw_runtime.cli import bench_pods, doctor
from nanoclaw_runtime.cli.bench_pods import BENCH, Manifest, Place
from nanoclaw_runtime.cli.errors import CommandFailed
from nanoclaw_runtime.domain.storage_advice import RWO, RWOP, RWX, Measured
from nanoclaw_runtime.kube.client import KubeClient
from nanoclaw_runtime.kube.errors import KubeError, NotFound, StreamLost
from nanoclaw_runtime.kube.resources import CLAIMS, PODS

START: Final = 300.0
"""Seconds for a pod to run: the claim may have to be made, and the image pulled."""
NO_NODE: Final = 20.0
"""Seconds the scheduler may find no second node before we go on without it: the claim is bound by then."""
LOOK: Final = 0.5

Tell = Callable[[str], None]


@dataclass
class Outcome:
    """What came of it."""

    modes: list[str]
    measured: list[Measured] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    """What was left out, and why."""
    nodes: list[str] = field(default_factory=list)


class NoNode(CommandFailed):
    """The scheduler finds no node for a pod."""


@contextlib.asynccontextmanager
async def made_claim(client: KubeClient, namespace: str, manifest: Manifest) -> AsyncIterator[Manifest]:
    """The claim for as long as the body runs."""
    name = manifest["metadata"]["name"]
    try:
        made = await client.create(CLAIMS, manifest, namespace=namespace)
    except BaseException:  # also one that nobody waited for any more may be made
        with contextlib.suppress(KubeError):
            await client.delete(CLAIMS, name, namespace=namespace)
        raise
    try:
        yield made
    finally:
        with contextlib.suppress(NotFound):
            await client.delete(CLAIMS, name, namespace=namespace)


async def measure(client: KubeClient, place: Place, claim: Manifest, nodes: Sequence[str], tell: Tell) -> Outcome:
    """Every figure that can be had of the claim. Raises CommandFailed, and KubeError, with everything removed."""
    outcome, namespace = Outcome(claim["spec"]["accessModes"]), claim["metadata"]["namespace"]
    first = nodes[0] if nodes else await _bound_to(client, claim)
    async with _removed(client, namespace, tell) as pods:
        pairs = []
        if RWOP in outcome.modes:
            outcome.skipped.append(f"a {RWOP} claim has one pod: what another one sees is not measured")
        else:
            tell("starting a pod that answers")
            outcome.nodes.append(await pods.start(bench_pods.answering(place, "near", node=first)))
            pairs.append("near")
            if far := await _far(pods, place, outcome, nodes, tell):
                outcome.nodes.append(far)
                pairs.append("far")
        tell("starting the pod that measures")
        measuring = bench_pods.measuring(place, pairs, node=first)
        node = await pods.start(measuring)
        outcome.nodes = outcome.nodes or [node]
        await _listen(client, namespace, measuring["metadata"]["name"], outcome, tell)
    return outcome


async def _far(pods: _Pods, place: Place, outcome: Outcome, nodes: Sequence[str], tell: Tell) -> str | None:
    """The other node, where a pod of it answers; None, with the reason told, where that cannot be."""
    if RWX not in outcome.modes:
        outcome.skipped.append(f"a {RWO} claim has one node: what another one sees is not measured")
        return None
    tell("starting a pod that answers from another node")
    wanted = nodes[1] if len(nodes) > 1 else None
    try:
        return await pods.start(bench_pods.answering(place, "far", node=wanted), homeless=NO_NODE)
    except NoNode as error:
        outcome.skipped.append(f"no second node: what another one sees is not measured ({error})")
        return None


async def _bound_to(client: KubeClient, claim: Manifest) -> str | None:
    """The node of a pod that uses the claim. Raises CommandFailed where no second pod can."""
    name, modes = claim["metadata"]["name"], claim["spec"]["accessModes"]
    users = [
        pod
        for pod in await client.list(PODS, namespace=claim["metadata"]["namespace"])
        if pod.get("status", {}).get("phase") in {"Pending", "Running"}
        and any(
            volume.get("persistentVolumeClaim", {}).get("claimName") == name
            for volume in pod["spec"].get("volumes", ())
        )
    ]
    if not users:
        return None
    if RWOP in modes:
        raise CommandFailed(
            f"{name} is {RWOP} and the pod {users[0]['metadata']['name']} has it; measure a new one of its class with "
            f"--class {claim['spec'].get('storageClassName', '')} --mode {RWOP}"
        )
    return None if RWX in modes else users[0]["spec"].get("nodeName")


class _Pods:
    """Those that were made, in one namespace."""

    def __init__(self, client: KubeClient, namespace: str, tell: Tell) -> None:
        self._client, self._namespace, self._tell = client, namespace, tell
        self.made: list[str] = []

    async def start(self, manifest: Manifest, *, homeless: float = START) -> str:
        """Make it and wait until it runs or has ended; the node it is on.

        Raises NoNode when it has none after `homeless` seconds, CommandFailed when it does not run in time.
        """
        name = manifest["metadata"]["name"]
        self.made.append(name)
        await self._client.create(PODS, manifest, namespace=self._namespace)
        loop = asyncio.get_running_loop()
        begun, told, pod = loop.time(), "", manifest
        while loop.time() < begun + START:
            pod = await self._client.get(PODS, name, namespace=self._namespace)
            if pod["status"].get("phase") in {"Running", "Succeeded", "Failed"}:
                return str(pod["spec"].get("nodeName", ""))
            trouble = doctor.trouble(pod)
            if trouble and not pod["spec"].get("nodeName") and loop.time() > begun + homeless:
                await self._remove(name)
                raise NoNode(f"the pod {name} finds no node: {trouble}")
            if trouble not in {"", told}:
                self._tell(f"{name}: {trouble}")
                told = trouble
            await asyncio.sleep(LOOK)
        raise CommandFailed(
            f"the pod {name} does not run after {START:.0f} s: {doctor.trouble(pod) or 'no reason told'}"
        )

    async def _remove(self, name: str) -> None:
        self.made.remove(name)
        with contextlib.suppress(NotFound):
            await self._client.delete(PODS, name, namespace=self._namespace)

    async def gone(self) -> None:
        """The one that measures first, since it removes the folder; then all have really ended."""
        for name in reversed(self.made):
            with contextlib.suppress(NotFound):
                await self._client.delete(PODS, name, namespace=self._namespace)
        until = asyncio.get_running_loop().time() + 2 * bench_pods.GRACE
        for name in self.made:
            while asyncio.get_running_loop().time() < until:
                try:
                    await self._client.get(PODS, name, namespace=self._namespace)
                except NotFound:
                    break
                await asyncio.sleep(LOOK)


@contextlib.asynccontextmanager
async def _removed(client: KubeClient, namespace: str, tell: Tell) -> AsyncIterator[_Pods]:
    pods = _Pods(client, namespace, tell)
    try:
        yield pods
    finally:
        await to_the_end(pods.gone())  # Ctrl-C may come while it is cleaned up already


async def _listen(client: KubeClient, namespace: str, name: str, outcome: Outcome, tell: Tell) -> None:
    """Take in what the measuring pod says until it has ended; its log is read from the start after a loss.

    What a look at its log did not bring may be there behind the next: only one that began when the pod had ended, and
    was not broken off, has all of it.
    """
    heard, pod = 0, None
    while True:
        rest, number, lost = b"", 0, False
        try:
            async with contextlib.aclosing(
                client.pod_log(name, container=BENCH, namespace=namespace, follow=True)
            ) as log:
                async for chunk in log:
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        number += 1
                        if number > heard:
                            heard = number
                            if _take(line, outcome, tell):
                                return
        except StreamLost:
            lost = True
        if pod is not None and not lost:
            raise CommandFailed(f"the measuring pod ended early: {doctor.trouble(pod) or rest.decode()}".rstrip(": "))
        found = await client.get(PODS, name, namespace=namespace)
        pod = found if found["status"].get("phase") in {"Succeeded", "Failed"} else None


def _take(line: bytes, outcome: Outcome, tell: Tell) -> bool:
    """True for the last line. Raises CommandFailed for a refusal, and for what is no line of ours."""
    try:
        said: dict[str, Any] = json.loads(line)
    except ValueError:
        raise CommandFailed(f"the measuring pod says: {line.decode(errors='replace')[:500]}") from None
    if refused := said.get("refused"):
        raise CommandFailed(f"the claim is not measured: {refused}")
    if step := said.get("step"):
        tell(step)
    if measured := said.get("measured"):
        outcome.measured.append(msgspec.convert(measured, Measured))
    if skipped := said.get("skipped"):
        outcome.skipped.append(f"{skipped}: {said['why']}")
    return bool(said.get("done"))
