"""What a stack with a model gateway declares: who has which key, and who has none."""

import json

import pytest

from nanoclaw_runtime.contract import gateway, names, wire
from nanoclaw_runtime.contract.config import ControllerConfig
from nanoclaw_runtime.contract.gateway import GatewayConfig
from tests.infra.recording import configuration, is_secret, manifests, record, settings

KEYS = ("nanoclaw:credentials",)


def declared(**changes):
    """The objects of the local stack with a gateway, and everything that was registered."""
    theirs = settings("local") | {"gateway": {"enabled": True}} | changes
    given = {"nanoclaw:settings": theirs}
    if "credentials" not in changes:
        given["nanoclaw:credentials"] = {"ANTHROPIC_API_KEY": "sk-told", "TELEGRAM_BOT_TOKEN": "1:x"}
    registered = record("local", configuration("local", given), KEYS)
    objects = {(each["kind"], each["metadata"].get("name", "")): each for each in manifests(registered)}
    return objects, registered


def secrets_of(objects, deployment):
    """Secret → the keys of it that the Deployment's pods see; None for all."""
    volumes = objects["Deployment", deployment]["spec"]["template"]["spec"]["volumes"]
    return {
        volume["secret"]["secretName"]: (
            {item["key"] for item in volume["secret"]["items"]} if "items" in volume["secret"] else None
        )
        for volume in volumes
        if "secret" in volume
    }


def test_the_gateway_alone_has_the_models_key():
    objects, _ = declared()
    assert secrets_of(objects, names.GATEWAY) == {names.GATEWAY_KEY: None, names.CREDENTIALS: set(wire.MODEL_KEYS)}
    assert secrets_of(objects, names.CONTROLLER) == {names.GATEWAY_KEY: None, names.API_TOKEN: None}


@pytest.mark.parametrize("source", [{}, {"credentials": {"existingSecret": "team-keys"}}], ids=["own", "theirs"])
def test_the_controller_has_the_keys_of_its_chat_networks_and_no_other(source):
    runtime = settings("local")["runtime"] | {"channels": {"telegram": {}}}
    objects, _ = declared(runtime=runtime, **source)
    mounted = secrets_of(objects, names.CONTROLLER)
    assert mounted["team-keys" if source else names.CREDENTIALS] == {wire.TELEGRAM_TOKEN_KEY}


def test_both_are_told_of_each_other():
    _, registered = declared(
        gateway={
            "enabled": True,
            "serves": {"limits": {"costPerDay": 5}, "prices": {"claude-": {"input": 3, "output": 15}}},
        }
    )
    maps = [each.get("data", {}) for each in manifests(registered)]
    told = [data[names.SETTINGS_KEY] for data in maps if names.SETTINGS_KEY in data]
    controller = next(text for text in told if "assistantName" in text)
    assert ControllerConfig.model_validate_json(controller).gateway
    (limits,) = [text for text in told if "assistantName" not in text]
    assert GatewayConfig.model_validate_json(limits).limits.cost_per_day == 5


def test_its_pod_has_no_rights_writes_nowhere_but_to_its_claim_and_ends_slowly_enough():
    objects, registered = declared()
    pod = objects["Deployment", names.GATEWAY]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert (pod["serviceAccountName"], pod["automountServiceAccountToken"]) == (names.GATEWAY, False)
    assert (
        pod["securityContext"] == objects["Deployment", names.CONTROLLER]["spec"]["template"]["spec"]["securityContext"]
    )
    assert container["securityContext"]["readOnlyRootFilesystem"]
    writable = {each["mountPath"] for each in container["volumeMounts"] if not each.get("readOnly")}
    assert writable == {gateway.USAGE_DIR, "/tmp"}
    assert not [each for each in registered if each.kind == "RoleBinding" and names.GATEWAY in json.dumps(each.inputs)]
    assert objects["PersistentVolumeClaim", names.GATEWAY]["spec"]["accessModes"] == ["ReadWriteOnce"]
    assert objects["PodDisruptionBudget", names.GATEWAY]["spec"]["maxUnavailable"] == 1
    assert objects["Deployment", names.GATEWAY]["spec"]["strategy"] == {"type": "Recreate"}


def test_the_signing_key_is_made_once_and_travels_encrypted():
    _, registered = declared()
    stash = next(each for each in registered if each.type == "pulumi:index:Stash" and each.name == names.GATEWAY_KEY)
    secret = next(each for each in registered if each.object_name == names.GATEWAY_KEY and each.kind == "Secret")
    assert (is_secret(stash.inputs["input"]), stash.ignored) == (True, ["input"])
    assert is_secret(secret.inputs["stringData"])


def test_without_a_gateway_nothing_of_it_is_declared():
    objects = manifests(record("local", configuration("local")))
    assert not [each for each in objects if "gateway" in each["metadata"].get("name", "")]
