"""Whatever keeps the credentials, the pods are told the name of one Secret."""

from __future__ import annotations

import pytest

from nanoclaw_runtime.contract import names
from tests.infra.recording import configuration, is_secret, manifests, record, settings

EXTERNAL = {
    "store": "vault",
    "storeKind": "ClusterSecretStore",
    "refresh": "15m",
    "data": {
        "TELEGRAM_BOT_TOKEN": {"key": "nanoclaw/telegram"},
        "ANTHROPIC_API_KEY": {"key": "nanoclaw/anthropic", "property": "apiKey"},
    },
}


def registered(config=None, **changes):
    values = {"nanoclaw:settings": settings("local") | changes} | (config or {})
    return record("local", configuration("local", values), tuple(config or ()))


def objects(found):
    return {(each["kind"], each["metadata"].get("name", "")): each for each in manifests(found)}


def mounted(found):
    pod = objects(found)["Deployment", names.CONTROLLER]["spec"]["template"]["spec"]
    return {volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume} - {names.API_TOKEN}


def test_an_external_store_is_asked_for_every_credential_and_keeps_the_secret():
    found = registered(credentials={"external": EXTERNAL})
    external = objects(found)["ExternalSecret", names.CREDENTIALS]
    assert external["apiVersion"] == "external-secrets.io/v1"
    assert external["spec"] == {
        "refreshInterval": "15m",
        "secretStoreRef": {"name": "vault", "kind": "ClusterSecretStore"},
        "target": {"name": names.CREDENTIALS, "creationPolicy": "Owner"},
        "data": [
            {
                "secretKey": "ANTHROPIC_API_KEY",
                "remoteRef": {"key": "nanoclaw/anthropic", "property": "apiKey"},
            },
            {"secretKey": "TELEGRAM_BOT_TOKEN", "remoteRef": {"key": "nanoclaw/telegram"}},
        ],
    }
    assert mounted(found) == {names.CREDENTIALS}
    assert ("Secret", names.CREDENTIALS) not in objects(found), "the operator makes it"


def test_encrypted_credentials_are_a_secret_of_the_stack_and_stay_encrypted():
    found = registered({"nanoclaw:credentials": {"ANTHROPIC_API_KEY": "sk-told"}})
    (secret,) = [each for each in found if each.object_name == names.CREDENTIALS]
    assert is_secret(secret.inputs["stringData"])
    assert mounted(found) == {names.CREDENTIALS}


def test_a_secret_of_somebody_else_is_named_and_not_made():
    found = registered(credentials={"existingSecret": "team-keys"})
    assert mounted(found) == {"team-keys"}
    assert {name for kind, name in objects(found) if kind == "Secret"} == {names.API_TOKEN}


@pytest.mark.parametrize("kind", ["Secret", "ExternalSecret"])
def test_without_credentials_nothing_is_made_or_mounted(kind):
    found = registered()
    assert mounted(found) == set()
    assert (kind, names.CREDENTIALS) not in objects(found)
