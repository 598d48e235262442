"""Custom resources through the real engine: refused before anything is made, or made as the operator will find them."""

from __future__ import annotations

import pytest

from nanoclaw_dev.engine import EngineFailed
from nanoclaw_infra.discovery import EXTERNAL_SECRETS, PROMETHEUS_RULES, SERVICE_MONITORS
from nanoclaw_runtime.contract import names
from tests.support.custom_resources import definition, serve, served

pytestmark = pytest.mark.engine

WANTED = {
    "monitoring": {"enabled": True},
    "credentials": {"external": {"store": "vault", "data": {"ANTHROPIC_API_KEY": {"key": "anthropic"}}}},
}


def test_a_missing_operator_is_all_an_up_shows_and_nothing_is_made(project, control_plane):
    project.write(**WANTED)

    with pytest.raises(EngineFailed) as failed:
        project.up()

    told = str(failed.value)
    assert "the cluster has no ServiceMonitor" in told
    assert "install the External Secrets operator" in told
    assert "Traceback" not in told
    assert control_plane.api.get(f"/api/v1/namespaces/{project.namespace}") is None


def test_an_operator_finds_its_objects_and_a_newer_one_finds_the_same(project, control_plane):
    project.write(**WANTED)
    monitoring = [definition(SERVICE_MONITORS, "v1"), definition(PROMETHEUS_RULES, "v1")]
    with served(control_plane.kubeconfig, *monitoring, definition(EXTERNAL_SECRETS, "v1beta1", "v1")) as api:

        def get(group, plural, name):
            return control_plane.api.get(f"/apis/{group}/namespaces/{project.namespace}/{plural}/{name}")

        serve(api, EXTERNAL_SECRETS, "v1", on=False)
        project.up()
        external = get("external-secrets.io/v1beta1", "externalsecrets", names.CREDENTIALS)
        assert external["spec"]["target"]["name"] == names.CREDENTIALS
        assert get("monitoring.coreos.com/v1", "servicemonitors", names.CONTROLLER)
        assert get("monitoring.coreos.com/v1", "prometheusrules", "nanoclaw")["spec"]["groups"]
        assert project.preview() == set(), "a second run has nothing to do"

        serve(api, EXTERNAL_SECRETS, "v1", on=True)
        project.up()
        kept = get("external-secrets.io/v1", "externalsecrets", names.CREDENTIALS)
        assert kept["metadata"]["uid"] == external["metadata"]["uid"], "or the operator would delete the Secret"
