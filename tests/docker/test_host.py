"""`nanoclaw host` as people run it: a process on a real engine, and the other commands talking to it."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys

import pytest
import yaml

from nanoclaw_runtime.api.server import listen

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]

COMMAND = (sys.executable, "-c", "from nanoclaw_runtime.cli import main; main()")


class DockerHost:
    """A stack file, a tree, and the process that serves them."""

    def __init__(self, engine, folder, image) -> None:
        self.engine_address, self.tree = engine.host, folder / "tree"
        self.stack_file = folder / "Pulumi.here.yaml"
        self.settings = {
            "cluster": {"kubeconfig": "~/.kube/config"},
            "controller": {"image": "registry.example/nanoclaw/runtime:1"},
            "runtime": {"agent": {"image": image, "imagePullPolicy": "Never"}, "idleTimeout": 600},
            "groups": [{"folder": "main", "name": "Main"}],
        }
        with contextlib.closing(listen("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
        self.process = None

    def write(self) -> None:
        document = {"config": {"nanoclaw:platform": "kubernetes", "nanoclaw:settings": self.settings}}
        self.stack_file.write_text(yaml.safe_dump(document))

    async def start(self) -> None:
        self.write()
        self.process = await self._host()
        async with asyncio.timeout(60):
            while (await self.run("groups"))[0]:  # the first tries come before it listens
                assert self.process.returncode is None

    async def kill(self, number=signal.SIGKILL) -> None:
        self.process.send_signal(number)
        await self.process.wait()

    async def refused(self) -> str:
        """What a start that cannot work says."""
        process = await self._host(stderr=asyncio.subprocess.PIPE)
        _, err = await process.communicate()
        assert process.returncode == 1
        return err.decode()

    async def run(self, *line):
        """Exit status, stdout and stderr of a command."""
        process = await asyncio.create_subprocess_exec(
            *COMMAND, *line, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=self._environment()
        )
        out, err = await process.communicate()
        return process.returncode, out.decode(), err.decode()

    async def _host(self, stderr=None):
        options = ["--tree", self.tree, "--port", str(self.port), "--network", "none"]
        return await asyncio.create_subprocess_exec(
            *COMMAND, "host", self.stack_file, *options, stderr=stderr, env=self._environment()
        )

    def _environment(self):
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.tree.parent),
            "USER": "ada",
            "COLUMNS": "200",
            "DOCKER_HOST": self.engine_address,
            "ANTHROPIC_API_KEY": "sk-secret",
            "NANOCLAW_URL": f"http://127.0.0.1:{self.port}",
            "NANOCLAW_TOKEN_FILE": str(self.tree / "store" / "api-token"),
        }

    async def sessions(self):
        return [one["session"] for one in json.loads((await self.run("sessions", "-o", "json"))[1])]


@pytest.fixture
async def host(engine, tmp_path, echo_agent):
    made = DockerHost(engine, tmp_path, echo_agent)
    yield made
    if made.process is not None and made.process.returncode is None:
        await made.kill(signal.SIGTERM)
    await asyncio.to_thread(remove_containers, engine)


def remove_containers(engine):
    listed = subprocess.run(engine.command("ps", "-aq"), capture_output=True, text=True, check=True).stdout.split()
    if listed:
        subprocess.run(engine.command("rm", "-f", *listed), capture_output=True, check=True)


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
        env=host._environment(),
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
    assert await host.sessions() == [session]
    answers = [json.loads(line)["payload"]["text"] for line in await first_answers(host, 2)]
    assert answers == ["Echo: hello", "slept 3 s\nlate"]


async def test_groups_are_taken_up_from_the_file_while_it_runs(host):
    await host.start()
    host.settings["groups"].append({"folder": "team", "name": "Team", "requiresTrigger": False})
    host.write()
    async with asyncio.timeout(60):
        while (await host.run("send", "team", "hello"))[0]:
            await asyncio.sleep(0.1)
    host.stack_file.write_text("config: [")
    assert (await host.run("send", "main", "hello", "--follow"))[0] == 0


async def test_the_doctor_examines_a_docker_host(host):
    await host.start()
    async with asyncio.timeout(60):
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
    host.engine_address = "unix:///nowhere.sock"
    assert "the Docker engine cannot be used: Cannot connect to the Docker daemon" in await host.refused()


async def test_the_tree_and_its_token_are_for_its_owner_alone(host):
    await host.start()
    assert (host.tree / "store").stat().st_mode & 0o777 == 0o700
    assert (host.tree / "store" / "api-token").stat().st_mode & 0o777 == 0o600
