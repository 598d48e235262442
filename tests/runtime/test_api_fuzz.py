"""The API against its own OpenAPI document: whatever is sent, the answer is one that is documented.

The real app on loopback, with the real controller behind it; only the agents are scripted. The
endless streams of events are not called.
"""

import asyncio
import threading

import pytest
import schemathesis
from hypothesis import settings
from schemathesis import checks
from schemathesis.config import GenerationConfig, ProjectConfig, ProjectsConfig, SchemathesisConfig

from nanoclaw_runtime.api import groups, tasks
from nanoclaw_runtime.api.app import create_app
from nanoclaw_runtime.api.server import listen, serve_on
from nanoclaw_runtime.contract.config import GroupSpec
from nanoclaw_runtime.domain.tasks import TaskContext, TaskKind
from nanoclaw_runtime.telemetry import Metrics
from tests.support.house import House

TOKEN = "correct horse"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
CHECKS = [
    checks.not_a_server_error,
    checks.ignored_auth,
    checks.negative_data_rejection,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]
# Not whether every text that fits the document is taken: what a schedule is, it does not say.
KNOWN = {"folder": "added"}
GOING = {"folder": "leaving"}
# By the names of the path's parameters; what is deleted is not what else is asked for.
HOUR = "3600000"


def whole_api(controller, book, scheduler):
    routers = [groups.router(book, controller), tasks.router(scheduler)]
    return create_app(controller, lambda: TOKEN, Metrics(), routers)


SETTINGS = SchemathesisConfig(
    projects=ProjectsConfig(
        default=ProjectConfig(generation=GenerationConfig(deterministic=True, max_examples=20)),
    )
)
DOCUMENT = whole_api(None, None, None).openapi()
# The routes describe themselves; what they ask is not needed for it.
schema = schemathesis.openapi.from_dict(DOCUMENT, config=SETTINGS)


class Served:
    """A whole host with its API, in a thread of its own, because the calls are made from this one."""

    def __init__(self, folder):
        self._folder = folder
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="served API")

    def __enter__(self):
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()

    async def _serve(self):
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        async with House(self._folder, registration=True) as house:
            host = house.host
            for folder in (KNOWN["folder"], GOING["folder"]):
                await host.groups.register(GroupSpec(folder=folder, name=folder, requires_trigger=False), "main")
            await house.send("hello", KNOWN["folder"])
            GOING["session"] = (await house.backend.agent(0)).ref.session
            for known in (KNOWN, GOING):
                task = {"prompt": "p", "kind": TaskKind.INTERVAL, "value": HOUR, "context": TaskContext.GROUP}
                known["task"] = (await house.tasks.create(known["folder"], **task)).id
            app = whole_api(house.controller, host.groups, host.tasks)
            listener = listen("127.0.0.1", 0)
            self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            serving = asyncio.create_task(serve_on(app, listener))
            self._ready.set()
            await self._over.wait()
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with Served(tmp_path_factory.mktemp("served")) as served:
        yield served


@schema.hook
def map_path_parameters(context, path_parameters):
    """Every other request is about something that is there."""
    known = KNOWN | GOING if context.operation.method == "delete" else KNOWN
    return {
        name: known[name] if name in known and len(str(value)) % 2 else value
        for name, value in (path_parameters or {}).items()
    }


@schema.exclude(path_regex="/events$").parametrize()
@settings(deadline=None)
def test_every_answer_is_documented(case, served):
    case.call_and_validate(base_url=served.url, headers=BEARER, checks=CHECKS)
