"""What a stack's custom resources need is asked of a real API server, and told in one sentence when it is missing."""

from __future__ import annotations

import pytest

from kubernetes import client
from nanoclaw_infra import discovery
from nanoclaw_infra.discovery import EXTERNAL_SECRETS, PROMETHEUS_RULES, SERVICE_MONITORS
from nanoclaw_infra.settings import Stack
from nanoclaw_infra.settings.refusals import StackRefused
from nanoclaw_infra.settings.secrets import StackSecrets
from nanoclaw_infra.settings.stack import StackSettings
from tests.apiserver.conftest import write_kubeconfig
from tests.infra.recording import VARIABLES, configuration, manifests, record, settings
from tests.support.custom_resources import definition, published, served

pytestmark = pytest.mark.apiserver

MONITORING = {"monitoring": {"enabled": True}}
EXTERNAL = {"credentials": {"external": {"store": "vault", "data": {"ANTHROPIC_API_KEY": {"key": "anthropic"}}}}}


@pytest.fixture
def warnings(monkeypatch):
    """What the engine would show."""
    shown = []
    monkeypatch.setattr(discovery.pulumi.log, "warn", shown.append)
    return shown


def stack(kubeconfig, **wanted):
    values = settings("local") | wanted
    read = StackSettings.read("local", {"settings": values}, VARIABLES | {"NANOCLAW_KUBECONFIG": str(kubeconfig)})
    return Stack("local", read, StackSecrets(credentials=None, api_token=None))


def test_every_kind_that_is_missing_is_named_with_its_operator_and_its_setting(apiserver):
    with pytest.raises(StackRefused) as refused:
        discovery.custom_resources(stack(apiserver.kubeconfig, **MONITORING, **EXTERNAL))
    monitor, rule, external = refused.value.problems
    assert monitor == (
        "nanoclaw:settings.monitoring.enabled is true, and the cluster has no ServiceMonitor "
        "(monitoring.coreos.com/v1); install the Prometheus operator, or set it to false"
    )
    assert "PrometheusRule" in rule
    assert external == (
        "nanoclaw:settings.credentials.external is set, and the cluster has no ExternalSecret "
        "(external-secrets.io/v1 or external-secrets.io/v1beta1); install the External Secrets operator, or name a "
        "Secret in nanoclaw:settings.credentials.existingSecret instead"
    )


def test_one_kind_of_a_group_is_not_the_other(apiserver):
    with (
        served(apiserver.kubeconfig, definition(SERVICE_MONITORS, "v1")),
        pytest.raises(StackRefused, match="no PrometheusRule") as refused,
    ):
        discovery.custom_resources(stack(apiserver.kubeconfig, **MONITORING))
    assert len(refused.value.problems) == 1


def test_what_is_there_is_found(apiserver, warnings):
    kinds = [definition(SERVICE_MONITORS, "v1"), definition(PROMETHEUS_RULES, "v1")]
    with served(apiserver.kubeconfig, *kinds):
        found = discovery.custom_resources(stack(apiserver.kubeconfig, **MONITORING))
    assert found.api_version(SERVICE_MONITORS) == "monitoring.coreos.com/v1"
    assert warnings == []


@pytest.mark.parametrize(
    ("versions", "taken"),
    [(("v1beta1",), "v1beta1"), (("v1beta1", "v1"), "v1"), (("v1",), "v1")],
    ids=["old operator", "both", "new operator"],
)
def test_the_best_version_the_operator_serves_is_taken(apiserver, versions, taken):
    with served(apiserver.kubeconfig, definition(EXTERNAL_SECRETS, *versions)):
        found = discovery.custom_resources(stack(apiserver.kubeconfig, **EXTERNAL))
    assert found.api_version(EXTERNAL_SECRETS) == f"external-secrets.io/{taken}"


def test_a_version_we_cannot_write_is_none(apiserver):
    with served(apiserver.kubeconfig, definition(EXTERNAL_SECRETS, "v1alpha1")), pytest.raises(StackRefused):
        discovery.custom_resources(stack(apiserver.kubeconfig, **EXTERNAL))


def test_a_stack_without_custom_resources_asks_nobody(tmp_path, warnings):
    nobody = tmp_path / "kubeconfig"
    nobody.write_text("this is no kubeconfig")
    assert discovery.custom_resources(stack(nobody)) == discovery.Served()
    assert warnings == []


def test_a_cluster_that_cannot_be_reached_is_a_warning(apiserver, tmp_path, warnings):
    away = write_kubeconfig(tmp_path / "away", apiserver.kubeconfig, server="http://127.0.0.1:9")
    found = discovery.custom_resources(stack(away, **MONITORING))
    assert found.api_version(PROMETHEUS_RULES) == "monitoring.coreos.com/v1"
    (warning,) = warnings
    assert "ServiceMonitor and PrometheusRule was not checked" in warning


def test_a_cluster_that_refuses_to_say_is_a_warning(apiserver, tmp_path, warnings):
    stranger = write_kubeconfig(tmp_path / "stranger", apiserver.kubeconfig, user={"token": "wrong"})
    discovery.custom_resources(stack(stranger, **EXTERNAL))
    (warning,) = warnings
    assert "Unauthorized" in warning


KINDS = (SERVICE_MONITORS, PROMETHEUS_RULES, EXTERNAL_SECRETS)


@pytest.fixture(scope="module")
def operators(apiserver):
    """The operators' own definitions are in force."""
    with served(apiserver.kubeconfig, *map(published, KINDS)) as api:
        yield api


def send(api, namespace, manifest):
    group, version = manifest["apiVersion"].split("/")
    return client.CustomObjectsApi(api).create_namespaced_custom_object(
        group, version, namespace, f"{manifest['kind'].lower()}s", manifest, dry_run="All", field_validation="Strict"
    )


def custom_objects(stack):
    groups = {kind.group for kind in KINDS}
    declared = manifests(record(stack, configuration(stack)))
    return [each for each in declared if each["apiVersion"].partition("/")[0] in groups]


def test_the_operators_own_definitions_take_every_object_we_make_for_them(operators, namespace):
    sent = custom_objects("production")
    assert {each["kind"] for each in sent} == {kind.kind for kind in KINDS}
    for manifest in sent:
        manifest["metadata"]["namespace"] = namespace
        assert send(operators, namespace, manifest)["metadata"]["name"] == manifest["metadata"]["name"]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_the_definitions_are_minded(operators, namespace, kind):
    manifest = next(each for each in custom_objects("production") if each["kind"] == kind.kind)
    manifest["metadata"]["namespace"] = namespace
    manifest["spec"]["mispelt"] = True
    with pytest.raises(client.ApiException, match="mispelt"):
        send(operators, namespace, manifest)
