"""Every committed stack is one the models and the schema of its editor take, and both refuse the same mistakes."""

from __future__ import annotations

import copy
import json

import pytest
import yaml
from jsonschema import Draft202012Validator

from nanoclaw_infra.reference import SCHEMA
from nanoclaw_infra.settings.file import read_stack
from nanoclaw_infra.settings.refusals import StackRefused
from nanoclaw_infra.settings.stack import StackSettings
from tests.infra.recording import CHECKOUT, STACKS, VARIABLES

FILES = [CHECKOUT / "stacks" / f"Pulumi.{stack}.yaml" for stack in STACKS]
SECURE = {"secure": "v1:AAAAAAAAAAAAAAAA:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}


@pytest.fixture(scope="module")
def validator():
    return Draft202012Validator(json.loads((CHECKOUT / SCHEMA).read_text()))


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    """A home with a kubeconfig in its usual place, which the settings ask for."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".kube").mkdir()
    (tmp_path / ".kube" / "config").touch()


def environment():
    return VARIABLES | {"NANOCLAW_KUBECONFIG": "~/.kube/config"}


def test_there_is_a_stack_for_every_kind_of_cluster():
    assert {"local", "dev", "openshift", "production", "warm", "bridge", "nodelocal"} <= set(STACKS)


@pytest.mark.parametrize("file", FILES, ids=STACKS)
def test_a_committed_stack_fits_the_schema_and_names_it_for_editors(file, validator):
    text = file.read_text()

    assert [error.message for error in validator.iter_errors(yaml.safe_load(text))] == []
    assert text.startswith(f"# yaml-language-server: $schema={SCHEMA.name}\n")


@pytest.mark.parametrize("stack", STACKS)
def test_a_committed_stack_is_one_the_program_takes(stack):
    read_stack(stack, CHECKOUT, environment())


@pytest.mark.parametrize("stack", [stack for stack in STACKS if stack != "local"])
def test_a_stack_to_copy_depends_on_nothing_of_this_machine(stack):
    text = (CHECKOUT / "stacks" / f"Pulumi.{stack}.yaml").read_text()
    cluster = yaml.safe_load(text)["config"]["nanoclaw:settings"]["cluster"]

    assert "$NANOCLAW" not in text
    assert cluster["kubeconfig"] == "~/.kube/config"
    assert cluster["context"], "never whatever context happens to be current"
    assert "encryptionsalt" not in text, "who copies it chooses the passphrase"


def test_production_keeps_its_data_and_its_images():
    production = read_stack("production", CHECKOUT, environment())

    assert production.protect_data
    assert all("@sha256:" in each for each in (production.controller.image, production.runtime.agent.image))
    assert production.gateway.enabled
    assert production.guardrails.enabled
    assert production.network.api_server is not None


BASE = yaml.safe_load((CHECKOUT / "stacks" / "Pulumi.production.yaml").read_text())
SETTINGS = ("config", "nanoclaw:settings")
REMOVED = object()


def changed(*path, value):
    """The production stack with one thing changed."""
    document = at = copy.deepcopy(BASE)
    *above, last = path
    for key in above:
        at = at[key] if isinstance(key, int) else at.setdefault(key, {})
    if value is REMOVED:
        del at[last]
    else:
        at[last] = value
    return document


def mistake(*path, value=None, id):  # noqa: A002 (as pytest.param has it)
    return pytest.param((*SETTINGS, *path), value, id=id)


MISTAKES = [
    mistake("grups", value=[], id="a typo at the top"),
    mistake("runtime", "agent", "imagePolicy", value="Always", id="a typo deep inside"),
    mistake("controller", "image", value=REMOVED, id="no image"),
    mistake("cluster", value=REMOVED, id="no cluster"),
    mistake("controller", "image", value="registry.example/nanoclaw", id="an image without tag"),
    mistake("controller", "image", value=f"r.example/a:1@sha256:{'0' * 64}", id="an image with both"),
    mistake("runtime", "agent", "image", value="registry.example/agent", id="an agent image without tag"),
    mistake("runtime", "agent", "imagePullPolicy", value="Sometimes", id="no pull policy"),
    mistake("runtime", "agent", "resources", value={"cpuLimit": "2 cores"}, id="no quantity"),
    mistake("runtime", "pattern", value="docker", id="the pattern of a Docker host"),
    mistake("runtime", "pattern", value="pods", id="no pattern"),
    mistake("runtime", "platform", value="openshift", id="the platform in the wrong place"),
    mistake("runtime", "scc", value="restricted-v2", id="what is filled in"),
    mistake("runtime", "maxConcurrentSessions", value=0, id="no sessions"),
    mistake("runtime", "maxConcurrentSessions", value="many", id="no number"),
    mistake("runtime", "idleTimeout", value=-1, id="time that runs backwards"),
    mistake("runtime", "channels", value={"telegram": {"apiUrl": "api.telegram.org"}}, id="no address"),
    mistake("groups", value={"main": {}}, id="groups as a map"),
    mistake("groups", 0, "folder", value="../main", id="no folder"),
    mistake("groups", 0, "priority", value="highest", id="no priority"),
    mistake("groups", 0, "name", value="", id="no name"),
    mistake("storage", "accessMode", value="ReadOnlyMany", id="no access mode"),
    mistake("storage", "sizes", value={"stor": "2Gi"}, id="no purpose"),
    mistake("storage", "sizes", value={"store": "2GB"}, id="no size"),
    mistake("storage", "groupSizes", value={"a b": {"group": "2Gi"}}, id="sizes of no folder"),
    mistake("storage", "storageClass", value="Fast_Class", id="no object's name"),
    mistake("network", "apiServer", value={}, id="an API server nowhere"),
    mistake("network", "agents", value=[{"cidr": "example.com"}], id="a name for addresses"),
    mistake("network", "agents", value=[{"cidr": "10.0.0.0/8", "ports": [70000]}], id="no port"),
    mistake("network", "agents", value=[{"cidr": "10.0.0.0/8", "ports": []}], id="no ports"),
    mistake("gateway", "serves", "limits", value={"costPerDay": 0}, id="nothing to spend"),
    mistake("gateway", "serves", "prices", "claude", value={"input": 1}, id="half a price"),
    mistake("gateway", "serves", "groupLimits", value={"../x": {}}, id="limits of no folder"),
    mistake("guardrails", "failureAction", value="Ignore", id="no action"),
    mistake("monitoring", "interval", value=1, id="too often"),
    mistake("credentials", "external", value={"store": "vault"}, id="a store of nothing"),
    mistake("priorities", "controller", value=2_000_000_000, id="a priority of the system's"),
]


@pytest.mark.parametrize(("path", "value"), MISTAKES)
def test_editor_and_program_refuse_the_same_mistakes(path, value, validator):
    document = changed(*path, value=value)
    settings = document["config"]["nanoclaw:settings"]

    assert not validator.is_valid(document)
    with pytest.raises(StackRefused):
        StackSettings.read("production", {"settings": settings}, {})


@pytest.mark.parametrize(
    ("path", "value"),
    [
        pytest.param(("config", "nanoclaw:platform"), "nomad", id="no platform"),
        pytest.param(("config", "nanoclaw:layout"), "per-user", id="no layout"),
        pytest.param(("config", "nanoclaw:protectData"), "yes please", id="neither true nor false"),
        pytest.param(("config", "nanoclaw:protectdata"), True, id="a key nobody reads"),
        pytest.param(("config", "kubernetes:context"), "production", id="a default provider"),
        pytest.param(("config", "nanoclaw:apiToken"), "told", id="a token in plain text"),
        pytest.param(("config", "nanoclaw:credentials"), {"ANTHROPIC_API_KEY": "sk"}, id="a key in plain text"),
        pytest.param(("config", "nanoclaw:credentials"), {"OPENAI_KEY": SECURE}, id="a key for nobody"),
        pytest.param(("config", "nanoclaw:settings"), REMOVED, id="no settings"),
        pytest.param(("settings",), {}, id="settings outside of config"),
    ],
)
def test_the_schema_refuses_what_is_wrong_around_the_settings(path, value, validator):
    assert not validator.is_valid(changed(*path, value=value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        pytest.param(("config", "nanoclaw:protectData"), "false", id="as the command line writes it"),
        pytest.param(("config", "nanoclaw:apiToken"), SECURE, id="an encrypted token"),
        pytest.param(("config", "nanoclaw:credentials"), {"ANTHROPIC_API_KEY": SECURE}, id="an encrypted key"),
        pytest.param(("config", "nanoclaw:credentials"), SECURE, id="a map encrypted as a whole"),
        pytest.param(("config", "pulumi:autonaming"), {"mode": "verbatim"}, id="a key of the engine"),
        pytest.param(("encryptionsalt",), "v1:AAAA:v1:BBBB", id="a passphrase's salt"),
        pytest.param(("secretsprovider",), "awskms://alias/pulumi", id="a key store"),
        pytest.param((*SETTINGS, "storage", "storageClass"), None, id="nothing behind a colon"),
    ],
)
def test_the_schema_takes_what_the_engine_writes(path, value, validator):
    assert [error.message for error in validator.iter_errors(changed(*path, value=value))] == []
