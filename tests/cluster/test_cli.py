"""The command line as people run it: a process with a kubeconfig, a real API server, the controller's API behind it.

The API listens on the cluster's own bridge: the API server proxies to no loopback address.
"""

import asyncio
import contextlib
import json

import pytest

from nanoclaw_runtime.api.app import create_app
from nanoclaw_runtime.api.server import listen, serve_on
from nanoclaw_runtime.cli.installation import DEPLOYMENTS, SECRETS
from nanoclaw_runtime.contract import labels, names
from nanoclaw_runtime.kube.client import KubeClient
from nanoclaw_runtime.kube.errors import Target
from nanoclaw_runtime.kube.resources import PODS, Resource
from nanoclaw_runtime.telemetry import Metrics
from tests.support.command_line import COMMAND, run
from tests.support.small_controller import SmallController

TOKEN = "correct-horse"
SERVICES = Resource("Service", "services")
ENDPOINTS = Resource("Endpoints", "endpoints")

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("installation")]


@pytest.fixture
async def admin(cluster):
    async with await KubeClient.connect(cluster.kubeconfig) as client:
        yield client


async def has_address(admin, namespace, address):
    """What a kubelet would say of the controller's pod."""
    path = PODS.path(namespace, names.CONTROLLER, "status")
    status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}
    pod = await admin.get(PODS, names.CONTROLLER, namespace=namespace)
    await admin.request("PUT", path, Target("update", "pods/status"), body=pod | {"status": status})


class Installation:
    """A controller behind a Service, and the `nanoclaw` command pointed at it."""

    def __init__(self, controller, kubeconfig, namespace) -> None:
        self.controller = controller
        self._kubeconfig, self._namespace = kubeconfig, namespace

    async def run(self, *line, namespace=True, **environment):
        """Exit status, stdout and stderr of the command."""
        return await run(*self._line(*line, namespace=namespace), environment=self._environment(environment))

    async def start(self, *line, namespace=True, **environment):
        return await asyncio.create_subprocess_exec(
            *COMMAND,
            *self._line(*line, namespace=namespace),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self._environment(environment),
        )

    def _line(self, *line, namespace):
        return [*line, "--kubeconfig", self._kubeconfig, *(["-n", self._namespace] if namespace else [])]

    def _environment(self, more):
        return {"COLUMNS": "200", "USER": "ada", "PATH": ""} | more


@pytest.fixture
async def installation(admin, cluster, cluster_namespace):
    namespace, address = cluster_namespace, cluster.instance.bridge_address
    controller = SmallController()
    listener = listen(address, 0)
    port = listener.getsockname()[1]
    serving = asyncio.create_task(serve_on(create_app(controller, lambda: TOKEN, Metrics()), listener))
    metadata = {"name": names.CONTROLLER, "labels": labels.component(labels.CONTROLLER)}
    ports = [{"name": names.API_PORT_NAME, "port": port}]
    target = {"kind": "Pod", "name": names.CONTROLLER, "namespace": namespace}
    pod = {
        "metadata": metadata,
        "spec": {"schedulerName": "nobody", "containers": [{"name": "controller", "image": "x"}]},
    }
    objects = {
        PODS: {"apiVersion": "v1"} | pod,
        SERVICES: {"apiVersion": "v1", "metadata": metadata, "spec": {"ports": ports}},
        ENDPOINTS: {
            "apiVersion": "v1",
            "metadata": metadata,
            # The API server proxies to addresses of pods only.
            "subsets": [{"addresses": [{"ip": address, "targetRef": target}], "ports": ports}],
        },
        SECRETS: {
            "apiVersion": "v1",
            "metadata": {"name": names.API_TOKEN},
            "stringData": {names.API_TOKEN_KEY: TOKEN},
        },
        DEPLOYMENTS: {
            "apiVersion": "apps/v1",
            "metadata": metadata,
            "spec": {"paused": True, "selector": {"matchLabels": labels.component(labels.CONTROLLER)}, "template": pod},
        },
    }
    for resource, manifest in objects.items():
        await admin.create(resource, {"kind": resource.kind} | manifest, namespace=namespace)
    await has_address(admin, namespace, address)
    yield Installation(controller, str(cluster.kubeconfig), namespace)
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


async def test_the_installation_is_found_and_its_groups_listed(installation):
    status, out, err = await installation.run("groups", namespace=False)
    assert (status, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()] == ["group", "main", "team"]


async def test_lists_are_json_for_scripts(installation):
    for command, first in (("groups", "folder"), ("sessions", "session")):
        status, out, _ = await installation.run(command, "-o", "json")
        assert status == 0
        assert first in json.loads(out)[0]


async def test_a_message_is_sent_and_acknowledged(installation):
    status, out, _ = await installation.run("send", "main", "hällo")
    assert (status, out) == (0, "message 1 accepted; all places are taken; group main is number 2 in the queue\n")
    (message,) = installation.controller.messages
    assert (message.content, message.sender) == ("hällo", "ada")
    status, out, _ = await installation.run("history", "main")
    assert status == 0
    assert "hällo" in out


async def test_a_controller_that_is_away_is_waited_for(installation, admin, cluster_namespace):
    there = await admin.get(ENDPOINTS, names.CONTROLLER, namespace=cluster_namespace)
    await are(admin, there | {"subsets": []})
    sending = await installation.start("send", "main", "hello")
    assert await sending.stderr.readline() == b"the controller is away; waiting for it\n"
    assert installation.controller.messages == []
    await are(admin, there)
    out, _ = await sending.communicate()
    assert (sending.returncode, out) == (
        0,
        b"message 1 accepted; all places are taken; group main is number 2 in the queue\n",
    )
    assert len(installation.controller.messages) == 1


async def test_a_message_nobody_will_answer_by_itself_is_told_to_be_one(installation):
    status, out, _ = await installation.run("send", "team", "hello")
    assert (status, "answers messages that begin with @Andy" in out) == (0, True)
    status, _, err = await installation.run("send", "team", "hello", "--follow")
    assert (status, "answers messages that begin with @Andy" in err) == (1, True)


async def are(admin, endpoints):
    """Replace the endpoints of a Service, whatever they were."""
    metadata = {name: endpoints["metadata"][name] for name in ("name", "namespace", "labels")}
    path = ENDPOINTS.path(metadata["namespace"], metadata["name"])
    await admin.request("PUT", path, Target("update", "endpoints"), body=endpoints | {"metadata": metadata})


@contextlib.asynccontextmanager
async def answering(installation, how):
    """Deals with the first message once it is there."""

    async def answer():
        async for event in installation.controller.events(after=0, folder="main"):
            assert event.payload["text"] == "hello"
            await how("main", "first\nsecond", messages=[1])

    task = asyncio.create_task(answer())
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_following_prints_the_answer_and_nothing_else(installation):
    async with answering(installation, installation.controller.says):
        assert await installation.run("send", "main", "hello", "--follow") == (0, "first\nsecond\n", "")


async def test_following_tells_a_failure_with_the_exit_status(installation):
    async with answering(installation, installation.controller.gives_up):
        status, out, err = await installation.run("send", "main", "hello", "--follow")
    assert (status, out, err) == (1, "", "nanoclaw: first\nsecond\n")


async def test_waiting_has_an_end_and_says_how_to_go_on(installation):
    status, _, err = await installation.run("send", "main", "hello", "--follow", "--timeout", "1")
    assert status == 1
    assert "nanoclaw events main --after 1" in err


async def test_a_session_is_stopped(installation):
    assert (await installation.run("sessions", "stop", "s1"))[0] == 0
    assert installation.controller.stopped == ["s1"]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        pytest.param("send nope x", "pulumi up", id="unknown group"),
        pytest.param("sessions stop s9", "nanoclaw sessions", id="unknown session"),
        pytest.param("events nope", "pulumi up", id="events of an unknown group"),
        pytest.param("logs --session s9", "session 's9' has no pod any more", id="no session"),
        pytest.param("logs main", "no session of group 'main' has a pod", id="no agent"),
    ],
)
async def test_a_refusal_is_one_sentence(installation, line, told):
    status, out, err = await installation.run(*line.split())
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert told in err


async def test_a_wrong_token_is_told(installation):
    status, _, err = await installation.run("groups", NANOCLAW_TOKEN="wrong")
    assert status == 1
    assert "the token is missing or wrong" in err


async def test_another_namespace_has_no_installation(installation):
    status, _, err = await installation.run("groups", namespace=False, NANOCLAW_NAMESPACE="elsewhere")
    assert status == 1
    assert "--namespace" in err


async def test_the_doctor_looks_at_everything_and_finds_what_is_missing(installation):
    status, out, _ = await installation.run("doctor", "-o", "json")
    verdicts = {finding["check"]: finding["verdict"] for finding in json.loads(out)}
    assert status == 1  # nobody makes Deployments and volumes real on a lone API server
    assert verdicts == {
        "API server": "ok",
        "namespace": "ok",
        "controller": "failed",
        "pods": "ok",
        "volumes": "failed",
        "attribute caching": "skipped",
        "owners of volumes": "skipped",
        "your rights": "ok",
        "events": "ok",
        "service": "ok",
        "token": "ok",
        "controller: database": "ok",
    }
    status, out, _ = await installation.run("doctor")
    assert status == 1
    assert "pulumi up" in out
