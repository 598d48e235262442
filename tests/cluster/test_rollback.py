"""From a cluster to a Docker host and back, with the commands people use: what was said and what waits comes along.

Two whole installations and dozens of commands, so it is a part of `make matrix`.
"""

import asyncio

import pytest

from nanoclaw_dev import engine_binaries
from nanoclaw_dev.trial import Installation
from tests.support import cluster as support
from tests.support.command_line import CommandLine
from tests.support.docker_host import DockerHost
from tests.support.docker_site import own_engine, with_echo_agent

pytestmark = [
    pytest.mark.matrix,
    pytest.mark.cluster,
    pytest.mark.engine,
    pytest.mark.docker,
    pytest.mark.timeout(300),
]

GROUPS = [{"folder": "main", "name": "Main"}, {"folder": "team", "name": "Team"}]
RUNTIME = {"idleTimeout": 2, "closeGrace": 10}


@pytest.fixture(scope="module")
def on_the_cluster(cluster, tmp_path_factory):
    binaries = engine_binaries.present()
    if binaries is None:
        support.unavailable("the Pulumi engine is not built: `make test` builds it")
    settings = {"runtime": RUNTIME, "groups": GROUPS}
    made = Installation.up(cluster, binaries, tmp_path_factory.mktemp("rollback"), settings=settings, layout="shared")
    yield CommandLine(KUBECONFIG=str(cluster.kubeconfig), NANOCLAW_NAMESPACE=made.namespace)
    made.leave()


@pytest.fixture
async def on_docker(tmp_path, tmp_path_factory):
    with own_engine(tmp_path_factory.mktemp("docker") / "engine") as engine:
        async with DockerHost.on(engine, tmp_path, with_echo_agent(engine)) as host:
            host.settings["groups"] = GROUPS
            host.settings["runtime"] |= RUNTIME
            await host.start()
            yield host


async def moved(source, target, folder, *options):
    """What an import from `source` planned, after it was done."""
    async with asyncio.timeout(60):
        while await source.sessions() or await target.sessions():
            await asyncio.sleep(0.2)
    await source.done("export", folder)
    plan = await target.told("import", folder, "--yes", *options)
    assert plan["done"]
    return {group["folder"]: group for group in plan["groups"]}


async def test_a_household_moves_to_docker_and_back(on_the_cluster, on_docker, tmp_path):
    assert await on_the_cluster.say("main", "write notes.txt of the cluster") == "wrote notes.txt"
    await on_the_cluster.say("main", "schedule cron 0 8 * * 1 | echo good morning")
    await on_the_cluster.say("team", "@Andy hello")
    await on_the_cluster.done("send", "team", "the milk is out")

    plan = await moved(on_the_cluster, on_docker, tmp_path / "there")
    assert plan["team"]["messages"]["unanswered"] == 1
    assert await on_docker.say("main", "read notes.txt") == "of the cluster"
    history = await on_docker.say("main", "history")
    assert history.splitlines() == [
        "1. write notes.txt of the cluster",
        "2. schedule cron 0 8 * * 1 | echo good morning",
        "3. read notes.txt",
    ]
    tasks = await on_docker.told("tasks")
    assert [task["prompt"] for task in tasks] == ["echo good morning"]
    await on_docker.done("tasks", "pause", tasks[0]["id"])
    assert await on_docker.say("team", "@Andy what is out?") == "Echo: the milk is out\nwhat is out?"
    await on_docker.say("main", "write notes.txt of Docker")
    await on_docker.done("send", "team", "the bread is out")

    plan = await moved(on_docker, on_the_cluster, tmp_path / "back", "--replace")
    assert plan["team"]["messages"]["unanswered"] == 1
    assert await on_the_cluster.say("main", "read notes.txt") == "of Docker"
    said = (await on_the_cluster.say("main", "history")).splitlines()
    assert said[:5] == [*history.splitlines(), "4. history", "5. write notes.txt of Docker"]
    back = await on_the_cluster.told("tasks")
    assert [(task["id"], task["state"]) for task in back] == [(tasks[0]["id"], "paused")]
    assert await on_the_cluster.say("team", "@Andy what now?") == "Echo: the bread is out\nwhat now?"
