"""What an agent reaches from inside its pod: the model, and nothing else. With the stack's policies, on a real node."""

import json
import time

import pytest

from nanoclaw_dev import engine_binaries
from nanoclaw_dev.trial import Installation
from nanoclaw_runtime.contract import names, wire
from tests.support import cluster as support
from tests.support.world import METADATA, OUTSIDE, PATIENCE, PORT, run

pytestmark = [pytest.mark.cluster, pytest.mark.engine, pytest.mark.timeout(300)]

LISTENS = 8000
# The port on which an agent listens here, as a dev server of its project would.

PROBE = """
import concurrent.futures, json, socket, sys
def reaches(target):
    name, address, port = target
    try:
        socket.create_connection((address, port), timeout=1.5).close()
    except OSError:
        return None
    return name
with concurrent.futures.ThreadPoolExecutor(20) as pool:
    print(json.dumps(sorted(filter(None, pool.map(reaches, json.loads(sys.argv[1]))))))
"""


@pytest.fixture(scope="module")
def installation(cluster, tmp_path_factory):
    binaries = engine_binaries.present()
    if binaries is None:
        support.unavailable("the Pulumi engine is not built: `make test` builds it")
    network = {
        "apiServer": {"cidrs": [f"{cluster.instance.bridge_address}/32"], "ports": [cluster.instance.api_port]},
        "agents": [{"cidr": f"{OUTSIDE}/32", "ports": [PORT]}],
    }
    settings = {
        "network": network,
        "runtime": {"idleTimeout": 600, "maxConcurrentSessions": 3, "placement": "controller-node"},
        # One claim a group, mounted by one node: all of it beside the controller.
        "storage": {"accessMode": "ReadWriteOnce", "sizes": {"folder": "64Mi"}},
        "groups": [{"folder": folder, "name": folder, "requiresTrigger": False} for folder in ("main", "family")],
    }
    made = Installation.up(
        cluster, binaries, tmp_path_factory.mktemp("isolation"), settings=settings, layout="per-group"
    )
    yield made
    made.leave()


@pytest.fixture
async def chat(installation):
    async with installation.chat() as chat:
        yield chat


async def agent_of(chat, core, group):
    """The running pod of a group's agent, which has answered and waits for more."""
    answered = await chat.answer(await chat.send(group, "hello"))
    selector = f"nanoclaw.dev/session={answered.payload['session']}"
    (pod,) = core.list_namespaced_pod(chat.namespace, label_selector=selector).items
    return pod


def reached(core, pod, targets):
    listed = json.dumps([[name, *target] for name, target in targets.items()])
    namespace, name = pod.metadata.namespace, pod.metadata.name
    return set(json.loads(run(core, namespace, name, "python3", "-c", PROBE, listed)))


def await_reached(core, pod, targets, expected):
    """Policies are enforced a moment after they are there, and so is their end."""
    end, found = time.monotonic() + PATIENCE, None
    while found != set(expected):
        assert time.monotonic() < end, f"it reaches {found} and should reach {set(expected)}"
        found = reached(core, pod, targets)


def listens(core, pod):
    """Something in the agent's own pod serves, and is reached there."""
    serve = f"import http.server as h; h.HTTPServer(('', {LISTENS}), h.SimpleHTTPRequestHandler).serve_forever()"
    background = f"import subprocess; subprocess.Popen(['python3', '-c', {serve!r}], stdin=-3, stdout=-3, stderr=-3)"
    run(core, pod.metadata.namespace, pod.metadata.name, "python3", "-c", background)
    await_reached(core, pod, {"itself": ["127.0.0.1", LISTENS]}, {"itself"})


@pytest.mark.usefixtures("dns", "outside")
async def test_an_agent_reaches_the_model_and_nothing_else(cluster, installation, chat, core):
    agent, other = await agent_of(chat, core, "family"), await agent_of(chat, core, "main")
    listens(core, other)
    targets = {
        "the model": [OUTSIDE, PORT],
        "another port of the model's host": [OUTSIDE, PORT + 1],
        "the API server": [cluster.instance.first_service, 443],
        "the API server itself": [cluster.instance.bridge_address, cluster.instance.api_port],
        "the metadata address": [METADATA, PORT],
        "another group's agent": [other.status.pod_ip, LISTENS],
        "the controller": [names.CONTROLLER, names.API_PORT],
    }
    await_reached(core, agent, targets, {"the model"})
    environment = {each.name: each.value for each in agent.spec.containers[0].env}
    assert wire.QUIET_ENV.items() <= environment.items(), "it is told not to try"

    installation.change(lambda settings: settings | {"network": {"enabled": False}})

    await_reached(core, agent, targets, targets.keys() - {"another port of the model's host"})
    # The same session: a changed network is the controller's business and the cluster's, not the agent's.
    assert (await chat.answer(await chat.send("family", "still there"))).payload["session"] == agent.metadata.labels[
        "nanoclaw.dev/session"
    ]
