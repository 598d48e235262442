"""The API against its own OpenAPI document: whatever is sent, the answer is one that is documented.

The real app on loopback, with the real controller behind it; only the agents are scripted. The
endless streams of events are not called.
"""

from unittest.mock import Mock

import pytest
import schemathesis
from hypothesis import settings
from schemathesis import checks
from schemathesis.config import GenerationConfig, ProjectConfig, ProjectsConfig, SchemathesisConfig

from nanoclaw_runtime.contract.config import GroupSpec
from nanoclaw_runtime.domain.tasks import TaskContext, TaskKind
from tests.support.served import TOKEN, ServedHost, whole_api

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
PATIENCE = 60
# Seconds for an answer; by default it is a finding when one takes ten.


schemathesis.serializer.alias("application/x-tar", "application/octet-stream")

SETTINGS = SchemathesisConfig(
    projects=ProjectsConfig(
        default=ProjectConfig(generation=GenerationConfig(deterministic=True, max_examples=10)),
    )
)
schema = schemathesis.openapi.from_dict(whole_api(Mock()).openapi(), config=SETTINGS)
# The routes describe themselves, whatever host is behind them.


async def prepare(house):
    for folder in (KNOWN["folder"], GOING["folder"]):
        await house.host.groups.register(GroupSpec(folder=folder, name=folder, requires_trigger=False), "main")
    await house.send("hello", KNOWN["folder"])
    GOING["session"] = (await house.backend.agent(0)).ref.session
    for known in (KNOWN, GOING):
        task = {"prompt": "p", "kind": TaskKind.INTERVAL, "value": HOUR, "context": TaskContext.GROUP}
        known["task"] = (await house.tasks.create(known["folder"], **task)).id


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with ServedHost(tmp_path_factory.mktemp("served"), prepare, registration=True) as served:
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
    case.call_and_validate(base_url=served.url, headers=BEARER, checks=CHECKS, timeout=PATIENCE)
