"""From a message to an agent that has it: ours, a Job made by hand, `docker run`; and follow-ups.

All clocks are this machine's: the controller's pod shares it, so times of its events can be
compared with ours. `cold` means that no pod of the group exists when the message is sent.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench import table
from nanoclaw_dev.chat import Chat
from nanoclaw_dev.docker_engine import DockerEngine
from nanoclaw_dev.progress import Progress
from nanoclaw_dev.trial import Installation
from nanoclaw_runtime.contract import labels, names
from nanoclaw_runtime.contract.config import AgentSettings, ControllerConfig, Resources
from nanoclaw_runtime.contract.wire import OUTPUT_END, ContainerInput
from nanoclaw_runtime.domain.model import SessionPlan, SessionRef
from nanoclaw_runtime.kube.attach import attach
from nanoclaw_runtime.kube.client import KubeClient
from nanoclaw_runtime.kube.deadline import Deadline
from nanoclaw_runtime.kube.resources import JOBS, PODS, Pod
from nanoclaw_runtime.kube.watch import Watch
from nanoclaw_runtime.manifests.job import agent_job
from nanoclaw_runtime.manifests.pod import CONTAINER

ROUNDS = 40
GROUPS = ("g0", "g1", "g2", "g3")
BASELINE = "baseline"
"""The group whose claims the handmade Jobs mount; it gets no messages."""
FOLLOW_UPS = 60


@dataclass
class Times:
    """Seconds since the message, one entry a round."""

    input: list[float] = field(default_factory=list)
    """The agent's stdin is closed behind its input; for Docker, the agent says that it has it."""
    answer: list[float] = field(default_factory=list)


@dataclass
class Ours(Times):
    own: list[float] = field(default_factory=list)
    """Spent in the controller between having the message and having closed the agent's stdin."""
    follow_up: list[float] = field(default_factory=list)


async def measure(
    installation: Installation, docker: DockerEngine, image: str, results: Path, progress: Progress
) -> None:
    """Run all rounds and write `start.md`."""
    about = table.machine()
    ours, by_hand, docked = Ours(), Times(), Times()
    async with installation.chat() as chat:
        with progress.step(f"Measuring {ROUNDS} cold starts of each kind") as step:
            sessions: dict[str, float] = {}  # id → seconds from the message's arrival to the agent having it
            for number in range(-1, ROUNDS):  # the first round warms caches up and does not count
                step.note(f"{max(number, 0)}/{ROUNDS}")
                session, total = await _ours(chat, GROUPS[number % len(GROUPS)], ours)
                sessions[session] = total
                await handmade(chat.client, chat.namespace, image, f"r{number + 1}", by_hand)
                await by_docker(docker, image, docked)
        ours.own = await _own(chat, list(sessions.items())[1:])
        for times in (ours, by_hand, docked):
            del times.input[0], times.answer[0]
        with progress.step(f"Measuring {FOLLOW_UPS} follow-ups"):
            ours.follow_up = await follow_ups(chat, GROUPS[0])
    text = _report(about, ours, by_hand, docked)
    table.write(results / "start.md", text)
    progress.say(text)


async def _ours(chat: Chat, group: str, times: Ours) -> tuple[str, float]:
    """One message to a group without a pod; its session's id, and the seconds from arriving to being handed over."""
    sent_at = time.time()
    sent = await chat.send(group, "hello")
    arrived = await chat.until(lambda event: event.id == sent.event, after=sent.event - 1)
    running = await chat.running(group, after=sent.event)
    answer = await chat.answer(sent)
    times.input.append(running.created.timestamp() - sent_at)
    times.answer.append(answer.created.timestamp() - sent_at)
    session = answer.payload["session"]
    await chat.over(session, after=answer.id)
    return session, (running.created - arrived.created).total_seconds()


async def handmade(client: KubeClient, namespace: str, image: str, session: str, times: Times) -> None:
    """The same Job with the same claims, by calls in a row and nothing around them."""
    config = ControllerConfig(
        agent=AgentSettings(
            image=image,
            image_pull_policy="Never",
            resources=Resources(cpu_request="20m", memory_request="32Mi", cpu_limit="1", memory_limit="128Mi"),
        )
    )
    ref = SessionRef(BASELINE, session)
    job = agent_job(SessionPlan(ref, config))
    # Not the controller's: it adopts or removes whatever carries its labels.
    for metadata in (job["metadata"], job["spec"]["template"]["metadata"]):
        metadata["labels"] = {labels.SESSION: session, "bench": "handmade"}
    sent_at = time.time()
    await client.create(JOBS, job, namespace=namespace)
    pod = await _running_pod(client, namespace, session)
    deadline = Deadline.after(60)
    streams = await attach(client, pod, container=CONTAINER, namespace=namespace, deadline=deadline)
    await streams.send(_input(), deadline)
    times.input.append(time.time() - sent_at)
    seen = b""
    async for data in streams.output():
        seen += data
        if OUTPUT_END.encode() in seen:
            break
    times.answer.append(time.time() - sent_at)
    await streams.close()
    await client.delete(JOBS, names.job(BASELINE, session), namespace=namespace, propagation="Foreground")
    while await client.list(PODS, namespace=namespace, labels=f"{labels.SESSION}={session}"):
        await asyncio.sleep(0.1)  # outside of what is measured


async def _running_pod(client: KubeClient, namespace: str, session: str) -> str:
    watch = Watch(client, PODS, Pod, namespace=namespace, labels=f"{labels.SESSION}={session}")
    async for batch in watch.batches():
        for change in batch.changes:
            if change.object is not None and change.object.container(CONTAINER).running is not None:
                return change.object.metadata.name
    raise AssertionError("a watch does not end")


async def by_docker(docker: DockerEngine, image: str, times: Times) -> None:
    """`docker run -i --rm` as NanoClaw does it, with the input on its stdin at once."""
    sent_at = time.time()
    process = await asyncio.create_subprocess_exec(
        *docker.command("run", "-i", "--rm", "--network", "none", image),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdin.write(_input())
    process.stdin.close()
    await process.stderr.readline()  # the agent's first words, once it has read its input
    times.input.append(time.time() - sent_at)
    while OUTPUT_END.encode() not in await process.stdout.readline():
        pass
    times.answer.append(time.time() - sent_at)
    process.kill()
    await process.wait()
    await _remove_containers(docker)


async def _remove_containers(docker: DockerEngine) -> None:
    listed = await asyncio.create_subprocess_exec(*docker.command("ps", "--quiet"), stdout=subprocess.PIPE)
    found, _ = await listed.communicate()
    if found.split():
        command = docker.command("rm", "--force", *found.decode().split())
        removed = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL)
        await removed.wait()


async def _own(chat: Chat, sessions: Sequence[tuple[str, float]]) -> list[float]:
    """Our own share of each start: the controller logs how long it waited for the cluster."""
    (pod,) = await chat.client.list(PODS, namespace=chat.namespace, labels=labels.CONTROLLER_SELECTOR)
    name, log = pod["metadata"]["name"], b""
    async for data in chat.client.pod_log(name, container="controller", namespace=chat.namespace):
        log += data
    clusters: dict[str, float] = {}
    for line in log.decode().splitlines():
        event = json.loads(line) if line.startswith("{") else {}
        if event.get("event") == "session.started":
            clusters[event["session"]] = (event["create_ms"] + event["pod_ms"] + event["attach_ms"]) / 1000
    return [total - clusters[session] for session, total in sessions]


async def follow_ups(chat: Chat, group: str) -> list[float]:
    await chat.answer(await chat.send(group, "hello"))
    seconds = []
    for _ in range(FOLLOW_UPS):
        sent_at = time.time()
        answer = await chat.answer(await chat.send(group, "and?"))
        seconds.append(answer.created.timestamp() - sent_at)
    return seconds


def _input() -> bytes:
    return ContainerInput(prompt="hello", group_folder=BASELINE, chat_jid="http:x", is_main=False).encode()


def _report(about: str, ours: Ours, by_hand: Times, docked: Times) -> str:
    intro = (
        f"{about}. The reference agent, image present, {ROUNDS} cold starts of each kind in turns on one node. "
        "Ours begins at the client's POST, through the API server's proxy; the handmade Job has the same manifest and "
        "claims; Docker has no claims and no network."
    )
    share = (
        "Our own share of a cold start is the time from the message's arrival at the controller to the agent's stdin "
        "being closed, less three waits for the cluster: the Job's creation, its container, the attach. "
        "Goal: 50 ms at p99."
    )
    inputs = {"nanoclaw": ours.input, "handmade Job + attach": by_hand.input, "docker run": docked.input}
    answers = {"nanoclaw": ours.answer, "handmade Job + attach": by_hand.answer, "docker run": docked.answer}
    return "\n\n".join(
        [
            "# From a message to its agent",
            intro,
            table.table("the agent has its input", inputs),
            table.table("its first answer", answers),
            share,
            table.table("own share", {"nanoclaw": ours.own}),
            "A follow-up to a live agent, which looks every 500 ms:",
            table.table("its answer", {"nanoclaw": ours.follow_up}),
        ]
    )
