"""The product on a real node: `pulumi up`, then messages, agents as Jobs, crashes and what is left of them.

Agents are the reference agent, so a message can say what its agent does: `sleep 3; echo done`.
"""

import asyncio
import contextlib
import json
from datetime import timedelta

import pytest

from nanoclaw_dev import engine_binaries
from nanoclaw_dev.trial import Installation
from nanoclaw_runtime.contract import labels
from nanoclaw_runtime.kube.resources import CONFIG_MAPS, EVENTS, JOBS, PODS
from nanoclaw_runtime.store.records import EventType
from tests.support import cluster as support

pytestmark = [pytest.mark.cluster, pytest.mark.engine, pytest.mark.timeout(300)]

GROUPS = ("main", "a", "b", "c", "d", "e", "Team_42", "crash")
LIMIT = 5
IDLE = timedelta(seconds=3)


per_type = pytest.mark.parametrize("installation", ["per-type"], indirect=True)
both_layouts = pytest.mark.parametrize("installation", ["per-type", "shared"], indirect=True)


@pytest.fixture(scope="module")
def installation(request, cluster, tmp_path_factory):
    binaries = engine_binaries.present()
    if binaries is None:
        support.unavailable("the Pulumi engine is not built: `make test` builds it")
    settings = {
        "runtime": {"maxConcurrentSessions": LIMIT, "idleTimeout": IDLE.seconds, "closeGrace": 10},
        "groups": [{"folder": folder, "name": folder, "requiresTrigger": False} for folder in GROUPS],
    }
    folder = tmp_path_factory.mktemp(request.param)
    made = Installation.up(cluster, binaries, folder, settings=settings, layout=request.param)
    yield made
    # The whole way down is the same for every layout.
    (made.down if request.param == "shared" else made.leave)()


@pytest.fixture
async def chat(installation):
    async with installation.chat() as chat:
        yield chat


@both_layouts
async def test_a_message_is_answered_by_a_job(chat):
    sent = await chat.send("main", "hello")
    answer = await chat.answer(sent)
    assert answer.payload["text"] == "Echo: hello"
    (job,) = [
        job
        for job in await chat.client.list(JOBS, namespace=chat.namespace)
        if job["metadata"]["labels"][labels.SESSION] == answer.payload["session"]
    ]
    assert job["metadata"]["annotations"][labels.FOLDER] == "main"


@per_type
async def test_a_follow_up_is_answered_by_the_same_pod(chat):
    between = IDLE
    while between >= IDLE:  # the machine was so slow that the agent had been asked to end
        first = await chat.answer(await chat.send("a", "one"))
        sent = await chat.send("a", "two")
        second, between = await chat.answer(sent), await accepted_at(chat, sent) - first.created
    assert (second.payload["text"], second.payload["session"]) == ("Echo: two", first.payload["session"])
    assert len(await pods(chat, f"{labels.SESSION}={first.payload['session']}")) == 1


async def accepted_at(chat, sent):
    event = await chat.until(
        lambda event: event.type is EventType.MESSAGE and event.payload["message"] == sent.id, after=sent.event - 1
    )
    return event.created


@per_type
async def test_an_idle_session_is_closed_and_its_pod_ends_well(chat):
    answer = await chat.answer(await chat.send("b", "hello"))
    over = await chat.over(answer.payload["session"], after=answer.id)
    assert over.payload["state"] == "ended"
    while (phase := await phase_of(chat, answer.payload["session"])) == "Running":  # lags behind the container's state
        await asyncio.sleep(0.2)
    assert phase == "Succeeded"


async def pods(chat, selector):
    return await chat.client.list(PODS, namespace=chat.namespace, labels=selector)


async def phase_of(chat, session):
    (pod,) = await pods(chat, f"{labels.SESSION}={session}")
    return pod["status"]["phase"]


@both_layouts
async def test_the_claims_data_and_the_conversation_survive_the_session(chat):
    first = await chat.answer(await chat.send("Team_42", "write notes.txt remember me"))
    await chat.over(first.payload["session"], after=first.id)
    second = await chat.answer(await chat.send("Team_42", "read notes.txt; history"))
    assert second.payload["session"] != first.payload["session"]
    assert second.payload["text"].startswith("remember me")
    assert "write notes.txt remember me" in second.payload["text"]


@per_type
async def test_a_failing_agent_is_diagnosed_frees_its_place_and_is_tried_again(chat):
    sent = await chat.send("c", "exit 3")
    started = await chat.running("c", after=sent.event)
    failed = await chat.over(started.payload["session"], after=started.id)
    assert failed.payload["failure"] == "exit"
    group = await chat.remote.group("c")
    assert (group.session, group.waiting_messages) == (None, 1)
    # The last message of a prompt is what the agent does, so this one saves the other.
    answer = await chat.answer(await chat.send("c", "echo better"))
    assert answer.payload["text"] == "better"
    assert sent.id in answer.payload["messages"]


@per_type
async def test_six_groups_share_five_places_and_all_are_answered(chat):
    sent = {group: await chat.send(group, "sleep 1; echo done") for group in ("main", "a", "b", "d", "e", "Team_42")}
    most = 0
    answers = asyncio.gather(*(chat.answer(message) for message in sent.values()))
    while not answers.done():
        most = max(most, sum(not ended(pod) for pod in await pods(chat, labels.AGENT_SELECTOR)))
        await asyncio.sleep(0.2)
    assert [answer.payload["text"] for answer in await answers] == ["slept 1 s\ndone"] * 6
    assert most <= LIMIT


def ended(pod):
    """Whether the agent's container is over; the pod's phase tells it a moment later."""
    return any("terminated" in container["state"] for container in pod["status"].get("containerStatuses", []))


@both_layouts
async def test_an_answer_survives_its_controller_and_comes_exactly_once(chat):
    sent = await chat.send("crash", "sleep 8; echo finished")
    running = await chat.running("crash", after=sent.event)
    (before,) = await pods(chat, f"{labels.SESSION}={running.payload['session']}")
    found = await pods(chat, labels.CONTROLLER_SELECTOR)
    (controller,) = [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]
    await chat.client.delete(PODS, controller["metadata"]["name"], namespace=chat.namespace)
    answer = await chat.answer(sent)
    assert answer.payload["text"] == "slept 8 s\nfinished"
    (after,) = await pods(chat, f"{labels.SESSION}={answer.payload['session']}")
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    over = await chat.over(answer.payload["session"], after=answer.id)
    answers = [event async for event in everything(chat, up_to=over.id) if answers_message(event, sent)]
    assert [event.payload["text"] for event in answers] == [answer.payload["text"]]


def answers_message(event, sent):
    return event.type is EventType.ANSWER and sent.id in event.payload["messages"]


async def everything(chat, *, up_to):
    async with contextlib.aclosing(chat.events(0)) as events:
        async for event in events:
            yield event
            if event.id >= up_to:
                return


@per_type
async def test_the_declared_groups_are_the_controllers_groups(chat):
    declared = await chat.client.get(CONFIG_MAPS, "nanoclaw-groups", namespace=chat.namespace)
    assert sorted(group["folder"] for group in json.loads(declared["data"]["groups.json"])["groups"]) == sorted(GROUPS)
    assert sorted(group.folder for group in await chat.remote.groups()) == sorted(GROUPS)


@both_layouts
async def test_the_model_key_is_nowhere_but_in_its_secret(chat, installation):
    """Searched for literally in every object, log and event, and in every file on the volumes."""
    answer = await chat.answer(await chat.send("e", "env"))
    assert "ANTHROPIC_API_KEY" in answer.payload["text"]  # it did arrive
    found = json.dumps(
        [await chat.client.list(kind, namespace=chat.namespace) for kind in (PODS, JOBS, EVENTS, CONFIG_MAPS)]
    )
    for pod in await pods(chat, f"{labels.NAME}=nanoclaw"):
        container = pod["spec"]["containers"][0]["name"]
        log = chat.client.pod_log(pod["metadata"]["name"], container=container, namespace=chat.namespace)
        found += "".join([chunk.decode(errors="replace") async for chunk in log])
    found += repr(await chat.remote.history("e", after=0, limit=100)) + answer.payload["text"]
    assert "nanoclaw" in found
    assert installation.key not in found
    volumes = [path for path in support.files_below(installation.cluster.instance.folder) if "volumes" in path.parts]
    assert any(path.name == "notes.txt" or path.suffix == ".jsonl" for path in volumes), "looked in the wrong place"
    assert not [path for path in volumes if installation.key.encode() in content(path)]


def content(path):
    try:
        return path.read_bytes()
    except FileNotFoundError:  # an input that was taken meanwhile
        return b""
