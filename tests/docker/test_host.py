"""`nanoclaw host` as people run it: a process on a real engine, and the other commands talking to it."""

import asyncio
import json

import pytest

from tests.support.command_line import COMMAND
from tests.support.docker_host import DockerHost

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]


@pytest.fixture
async def host(engine, tmp_path, echo_agent):
    async with DockerHost.on(engine, tmp_path, echo_agent) as made:
        yield made


async def test_messages_are_answered_by_one_agent_that_has_its_secrets(host):
    await host.start()
    assert await host.run("send", "main", "hello", "--follow") == (0, "Echo: hello\n", "")
    [session] = await host.sessions()
    status, answer, _ = await host.run("send", "main", "env", "--follow")
    assert status == 0
    assert "ANTHROPIC_API_KEY" in answer
    assert "sk-secret" not in answer
    assert await host.sessions() == [session]


async def first_answers(host, number):
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        "events",
        "main",
        "--after",
        "0",
        "-o",
        "json",
        stdout=asyncio.subprocess.PIPE,
        env=host.environment,
    )
    found = []
    while len(found) < number:
        line = (await process.stdout.readline()).decode()
        if json.loads(line)["type"] == "answer":
            found.append(line)
    process.kill()
    await process.communicate()
    return found


async def test_agents_outlive_the_controller_and_are_adopted(host):
    await host.start()
    assert (await host.run("send", "main", "hello", "--follow"))[0] == 0
    [session] = await host.sessions()
    assert (await host.run("send", "main", "sleep 3; echo late"))[0] == 0
    await host.kill()
    await host.start()
    async with asyncio.timeout(120):
        while not (sessions := await host.sessions()):  # it serves before it has looked what runs
            await asyncio.sleep(0.1)
    assert sessions == [session]
    answers = [json.loads(line)["payload"]["text"] for line in await first_answers(host, 2)]
    assert answers == ["Echo: hello", "slept 3 s\nlate"]


async def test_groups_are_taken_up_from_the_file_while_it_runs(host):
    await host.start()
    host.settings["groups"].append({"folder": "team", "name": "Team", "requiresTrigger": False})
    host.write()
    async with asyncio.timeout(120):
        while (await host.run("send", "team", "hello"))[0]:
            await asyncio.sleep(0.1)
    host.stack_file.write_text("config: [")
    assert (await host.run("send", "main", "hello", "--follow"))[0] == 0


async def test_the_doctor_examines_a_docker_host(host):
    await host.start()
    async with asyncio.timeout(120):
        while (await host.run("doctor"))[0]:
            await asyncio.sleep(0.1)
    found = json.loads((await host.run("doctor", "-o", "json"))[1])
    checks = {finding["check"]: finding["verdict"] for finding in found}
    assert {"service", "token", "controller: docker engine", "controller: agent image", "controller: tree"} <= set(
        checks
    )
    assert set(checks.values()) == {"ok"}


async def test_logs_of_an_agent_are_read_from_the_engine(host):
    await host.start()
    assert (await host.run("send", "main", "hello", "--follow"))[0] == 0
    status, out, _ = await host.run("logs", "main")
    assert status == 0
    assert "Echo: hello" in out
    status, _, err = await host.run("logs")
    assert status == 1
    assert "nanoclaw host" in err


async def test_only_one_controller_works_on_a_tree(host):
    await host.start()
    assert "works on" in await host.refused()


async def test_a_host_without_an_engine_says_so_and_ends(host):
    host.write()
    host.environment |= {"DOCKER_HOST": "unix:///nowhere.sock"}
    assert "the Docker engine cannot be used: Cannot connect to the Docker daemon" in await host.refused()


async def test_the_tree_and_its_token_are_for_its_owner_alone(host):
    await host.start()
    assert (host.tree / "store").stat().st_mode & 0o777 == 0o700
    assert (host.tree / "store" / "api-token").stat().st_mode & 0o777 == 0o600
