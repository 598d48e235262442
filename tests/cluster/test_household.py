"""A whole household on a real node: fewer places than groups, tasks, requests of agents, groups added meanwhile."""

import asyncio
import contextlib
import json
from datetime import UTC, datetime

import pytest

from nanoclaw_dev import engine_binaries
from nanoclaw_dev.trial import Installation
from nanoclaw_runtime.api.queue_schemas import QueueView
from nanoclaw_runtime.api.task_schemas import TaskList, TaskRunList
from nanoclaw_runtime.contract import labels
from nanoclaw_runtime.domain.tasks import TaskState
from nanoclaw_runtime.kube.resources import CLAIMS, PODS
from nanoclaw_runtime.store.records import EventType
from tests.support import cluster as support
from tests.support.command_line import CommandLine

pytestmark = [pytest.mark.cluster, pytest.mark.engine, pytest.mark.timeout(300)]

SETTINGS = {
    "runtime": {
        "maxConcurrentSessions": 2,
        "idleTimeout": 600,  # sessions end only to make room
        "idleProtection": 0,
        "closeGrace": 10,
        "registration": True,
        # Every namespace has this one.
        "mountAllowlist": {"configMaps": [{"name": "kube-root-ca.crt"}]},
    },
    "groups": [
        {"folder": "main", "name": "main", "requiresTrigger": False},
        {
            "folder": "a",
            "name": "a",
            "requiresTrigger": False,
            "containerConfig": {"additionalMounts": [{"configMap": "kube-root-ca.crt", "containerPath": "trust"}]},
        },
        {"folder": "b", "name": "b", "requiresTrigger": False},
    ],
}


@pytest.fixture(scope="module")
def installation(cluster, tmp_path_factory):
    binaries = engine_binaries.present()
    if binaries is None:
        support.unavailable("the Pulumi engine is not built: `make test` builds it")
    made = Installation.up(cluster, binaries, tmp_path_factory.mktemp("household"), settings=SETTINGS)
    yield made
    made.leave()


@pytest.fixture
async def chat(installation):
    async with installation.chat() as chat:
        yield chat


async def tells(chat, group, *, after):
    """The next text an agent tells this chat."""

    def told(event):
        return event.type is EventType.TELL and event.group == group

    return (await chat.until(told, after=after)).payload["text"]


async def test_an_idle_session_makes_room_for_the_group_that_waits(chat):
    first = await chat.answer(await chat.send("main", "hello"))
    await chat.answer(await chat.send("a", "hello"))
    third = await chat.answer(await chat.send("b", "hello"))
    over = await chat.over(first.payload["session"], after=first.id)
    assert (over.payload["state"], over.id < third.id) == ("ended", True)
    queue = await chat.remote.ask(QueueView, "GET", "/v1/queue")
    assert (queue.limit, queue.active, queue.waiting) == (2, 2, [])


async def test_an_agent_speaks_to_its_own_chat_and_main_to_every_other(chat):
    sent = await chat.send("a", "tell from myself; tell-to http:b not allowed")
    assert await tells(chat, "a", after=sent.event) == "from myself"
    by_main = await chat.send("main", "tell-to http:b from main")
    assert await tells(chat, "b", after=sent.event) == "from main"
    assert by_main.created


async def test_a_task_an_agent_schedules_runs_in_a_pod_of_its_own_and_is_told_to_agents(chat):
    value = datetime.now(UTC).isoformat()
    sent = await chat.send("a", f"schedule once {value} | echo the task ran")
    await chat.answer(sent)
    ran = await chat.until(
        lambda event: event.type is EventType.ANSWER and event.payload["text"] == "the task ran", after=sent.event
    )
    while not (tasks := (await chat.remote.ask(TaskList, "GET", "/v1/tasks?group=a")).tasks)[0].last_run:
        await asyncio.sleep(0.2)
    (task,) = tasks
    assert (task.state, task.last_result) == (TaskState.COMPLETED, "the task ran")
    (run,) = (await chat.remote.ask(TaskRunList, "GET", f"/v1/tasks/{task.id}/runs")).runs
    assert run.session == ran.payload["session"]
    shown = await chat.answer(await chat.send("a", "list-tasks"))
    assert task.id in shown.payload["text"]


async def test_a_group_that_mains_agent_registers_gets_claims_and_an_agent(chat):
    request = {"type": "register_group", "jid": "http:Neu_1", "name": "Neu", "folder": "Neu_1", "trigger": "@Andy"}
    await chat.answer(await chat.send("main", f"request {json.dumps(request | {'requiresTrigger': False})}"))
    while "Neu_1" not in {group.folder for group in await groups(chat)}:
        await asyncio.sleep(0.5)
    answer = await chat.answer(await chat.send("Neu_1", "hello"))
    assert answer.payload["text"] == "Echo: hello"
    made = await chat.client.list(CLAIMS, namespace=chat.namespace, labels=f"{labels.GROUP}")
    assert sum(claim["metadata"]["annotations"].get(labels.FOLDER) == "Neu_1" for claim in made) == 3


async def test_an_additional_mount_that_is_allowed_is_there(chat):
    answer = await chat.answer(await chat.send("a", "read /workspace/extra/trust/ca.crt"))
    assert "BEGIN CERTIFICATE" in answer.payload["text"]


async def test_mains_agent_sees_the_project_without_its_secrets(chat, installation, tmp_path):
    (tmp_path / "README.md").write_text("about the project")
    (tmp_path / ".env").write_text("ANTHROPIC_API_KEY=sk-1")
    terminal = CommandLine(KUBECONFIG=str(installation.cluster.kubeconfig), NANOCLAW_NAMESPACE=installation.namespace)
    await terminal.done("project", "push", tmp_path)
    script = "read /workspace/project/README.md; read /workspace/project/.env"
    answer = await chat.answer(await chat.send("main", script))
    assert answer.payload["text"] == "about the project\ncannot read /workspace/project/.env: No such file or directory"


async def groups(chat):
    """While the controller's pod is replaced, none."""
    with contextlib.suppress(Exception):
        return await chat.remote.groups()
    return []


async def test_a_session_reads_follow_ups_from_a_folder_no_other_session_has(chat):
    answer = await chat.answer(await chat.send("a", "hello"))
    (pod,) = await chat.client.list(
        PODS, namespace=chat.namespace, labels=f"{labels.SESSION}={answer.payload['session']}"
    )
    mounts = {mount["mountPath"]: mount.get("subPath") for mount in pod["spec"]["containers"][0]["volumeMounts"]}
    assert mounts["/workspace/ipc/input"] == f"inputs/{answer.payload['session']}"
    second = await chat.answer(await chat.send("a", "again"))
    assert second.payload["session"] == answer.payload["session"]
