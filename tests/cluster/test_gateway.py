"""The model gateway on a real node: agents hold a placeholder, reach the model by it, and nothing else."""

import asyncio
import contextlib
import json
import re
import shutil
import sqlite3
import threading
from pathlib import Path

import pytest

from nanoclaw_dev import engine_binaries, system
from nanoclaw_dev.cluster import archive
from nanoclaw_dev.trial import Installation
from nanoclaw_runtime.kube.resources import PODS
from tests.support import cluster as support
from tests.support.command_line import CommandLine
from tests.support.model_api import MODEL, ModelApi

pytestmark = [pytest.mark.cluster, pytest.mark.engine, pytest.mark.timeout(300)]

IMAGE = "localhost/nanoclaw-test/asking-agent:1"
USAGE = {"input_tokens": 1000, "output_tokens": 500}

ASK = r"""#!/bin/sh
# Tells its secrets, and what the model says to them. One turn, then it ends.
cat > /tmp/input
secret() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p" /tmp/input; }
ask() {
    timeout 20 wget -q -O - --header "x-api-key: $(secret ANTHROPIC_API_KEY)" \
        --post-data '%BODY%' "$1" 2>&1
}
said=$(
    sed -n 's/.*"secrets":{\([^}]*\)}.*/\1 /p' /tmp/input; echo
    echo "gateway: $(ask "$(secret ANTHROPIC_BASE_URL)/v1/messages?beta=true")"
    echo "past it: $(timeout 1 wget -q -O - %UPSTREAM% 2>&1 && echo reached)"
    echo "numbers: $(timeout 1 wget -q -O - http://nanoclaw-gateway:8082/healthz 2>&1 && echo reached)"
)
echo '---NANOCLAW_OUTPUT_START---'
printf '{"status":"success","result":"%s","newSessionId":"1"}\n' "$(echo "$said" | tr -d '"\\' | tr '\n' ' ')"
echo '---NANOCLAW_OUTPUT_END---'
"""


class UpstreamThread(threading.Thread):
    """The model's API beside the tests: a module's fixture has no event loop."""

    def __init__(self, host: str) -> None:
        super().__init__(daemon=True)
        self.api = ModelApi(host)
        self._serving, self._ending = threading.Event(), asyncio.Event()

    def run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        async with self.api:
            self._serving.set()
            await self._ending.wait()

    def __enter__(self) -> ModelApi:
        self.start()
        assert self._serving.wait(60)
        return self.api

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._ending.set)
        self.join()


def image(folder: Path, upstream: str) -> Path:
    body = json.dumps(
        {"model": MODEL, "messages": [{"role": "user", "content": "hello"}], "metadata": {"usage": USAGE}}
    )
    links = dict.fromkeys(("sh", "cat", "sed", "wget", "tr", "printf", "echo", "timeout"), "busybox")
    return archive.write_image(
        folder / "asking-agent.tar",
        IMAGE,
        files={
            "/bin/busybox": Path(system.required("busybox")).read_bytes(),
            "/entry": ASK.replace("%BODY%", body).replace("%UPSTREAM%", upstream).encode(),
        },
        links={f"/bin/{command}": target for command, target in links.items()},
        entrypoint=("/entry",),
        environment=("PATH=/bin",),
    )


@pytest.fixture(scope="module")
def upstream(cluster):
    with UpstreamThread(cluster.instance.bridge_address) as api:
        yield api


@pytest.fixture(scope="module")
def installation(cluster, upstream, tmp_path_factory):
    binaries = engine_binaries.present()
    if binaries is None:
        support.unavailable("the Pulumi engine is not built: `make test` builds it")
    cluster.import_image(image(tmp_path_factory.mktemp("image"), upstream.url))
    place, port = cluster.instance, int(upstream.url.rpartition(":")[2])
    bridge = f"{place.bridge_address}/32"
    resources = {"cpuRequest": "20m", "memoryRequest": "32Mi", "cpuLimit": "1", "memoryLimit": "64Mi"}
    settings = {
        "runtime": {"agent": {"image": IMAGE, "imagePullPolicy": "Never", "resources": resources}},
        "groups": [{"folder": folder, "name": folder, "requiresTrigger": False} for folder in ("main", "b")],
        "network": {
            "apiServer": {"cidrs": [bridge], "ports": [place.api_port]},
            "gateway": [{"cidr": bridge, "ports": [port]}],
        },
        "gateway": {
            "enabled": True,
            "serves": {
                "upstream": upstream.url,
                "prices": {"claude-": {"input": 1000, "output": 1000}},
                "groupLimits": {"b": {"costPerDay": 1.5}},
            },
        },
    }
    made = Installation.up(cluster, binaries, tmp_path_factory.mktemp("gateway"), settings=settings)
    yield made
    made.leave()


@pytest.fixture
async def chat(installation):
    async with installation.chat() as chat:
        yield chat


async def test_an_agent_holds_a_placeholder_and_the_model_sees_the_real_key(chat, installation, upstream):
    said = (await chat.answer(await chat.send("main", "hello"))).payload["text"]
    assert re.match(
        r"ANTHROPIC_API_KEY:nanoclaw-placeholder-main\.\d+\.[\w-]+,ANTHROPIC_BASE_URL:http://nanoclaw-gateway:8081 ",
        said,
    )
    assert "gateway: {model: " + MODEL in said
    asked = upstream.asked[-1]
    assert (asked.path, asked.header("x-api-key")) == ("/v1/messages?beta=true", [installation.key])
    assert "placeholder" not in repr(asked)
    assert installation.key not in said


async def test_an_agent_reaches_neither_the_model_itself_nor_the_numbers_of_the_gateway(chat, upstream):
    before = len(upstream.asked)
    said = (await chat.answer(await chat.send("main", "hello again"))).payload["text"]
    assert len(upstream.asked) == before + 1
    assert "past it: Terminated numbers: Terminated" in said


async def test_what_a_group_used_is_on_the_volume_and_stops_it_also_after_a_restart(chat, installation, tmp_path):
    await chat.answer(await chat.send("b", "hello"))
    await until_written(installation, "b", tmp_path, (MODEL, 1, 1000, 500, 1.5))
    (pod,) = await chat.client.list(PODS, namespace=chat.namespace, labels="app.kubernetes.io/component=gateway")
    await chat.client.delete(PODS, pod["metadata"]["name"], namespace=chat.namespace)
    await until_replaced(chat, pod["metadata"]["uid"])
    said = (await chat.answer(await chat.send("b", "hello again"))).payload["text"]
    assert "429" in said
    assert usage(installation, "b", tmp_path) == [(MODEL, 1, 1000, 500, 1.5)]


def usage(installation, folder, copies):
    """Read from a copy: the gateway's own file is locked, and what it wrote last is in the log beside it."""
    (file,) = installation.cluster.instance.volumes.glob(f"{installation.namespace}_*/**/usage.db")
    for name in ("usage.db", "usage.db-wal"):
        shutil.copyfile(file.with_name(name), copies / name)
    with contextlib.closing(sqlite3.connect(copies / "usage.db")) as copy:
        question = "SELECT model, calls, input, output, dollars FROM usage WHERE folder = ?"
        return copy.execute(question, [folder]).fetchall()


async def until_written(installation, folder, copies, *rows):
    """The gateway counts at once and writes soon."""
    async with asyncio.timeout(60):
        while usage(installation, folder, copies) != [*rows]:
            await asyncio.sleep(0.1)


async def until_replaced(chat, uid):
    while True:
        pods = await chat.client.list(PODS, namespace=chat.namespace, labels="app.kubernetes.io/component=gateway")
        for pod in pods:
            ready = [each for each in pod["status"].get("conditions", []) if each["type"] == "Ready"]
            if pod["metadata"]["uid"] != uid and ready and ready[0]["status"] == "True":
                return
        await asyncio.sleep(0.2)


async def test_an_operator_asks_what_groups_used(installation):
    terminal = CommandLine(KUBECONFIG=str(installation.cluster.kubeconfig), NANOCLAW_NAMESPACE=installation.namespace)
    told = await terminal.told("usage", "b", "--days", "2")
    assert [(each["group"], each["model"], each["calls"], each["dollars"]) for each in told["usage"]] == [
        ("b", MODEL, 1, 1.5)
    ]
    assert "main" in await terminal.done("usage")
