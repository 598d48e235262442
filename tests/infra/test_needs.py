"""What a stack is said to need is what its components declare."""

from __future__ import annotations

from decimal import Decimal
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from nanoclaw_infra import needs as reader
from nanoclaw_infra.needs import needs
from nanoclaw_infra.settings.stack import StackSettings
from nanoclaw_runtime.cli import prerequisites_admission
from nanoclaw_runtime.contract.needs import STACK_READERS, Kind, StackUnusable
from tests.infra.recording import STACKS, VARIABLES, configuration, manifests, record, settings


@pytest.fixture
def needs_of(tmp_path: Path):
    """The needs of a committed stack, with some settings changed."""
    (kubeconfig := tmp_path / "config").touch()

    def read(stack, **changes):
        values = {key.removeprefix("nanoclaw:"): value for key, value in configuration(stack).items()}
        values["protectData"] = values.get("protectData", "true").lower() == "true"
        values["settings"] = settings(stack) | {"cluster": {"kubeconfig": str(kubeconfig)}} | changes
        return needs(stack, StackSettings.read(stack, values, VARIABLES))

    return read


def declared(stack):
    """API group and kind of every object the program registers for a stack."""
    return {
        (version.rpartition("/")[0], each["kind"])
        for each in manifests(record(stack, configuration(stack)))
        if (version := each.get("apiVersion", "v1"))
    }


@pytest.mark.parametrize("stack", STACKS)
def test_rights_are_asked_for_exactly_the_kinds_that_are_declared(stack, needs_of):
    assert {(kind.group, kind.kind) for kind in needs_of(stack).kinds} == declared(stack)


@pytest.mark.parametrize("stack", STACKS)
def test_every_claim_that_is_declared_is_needed_as_it_is_declared(stack, needs_of):
    found = {
        each["metadata"]["name"]: (
            each["spec"].get("storageClassName"),
            each["spec"]["accessModes"],
            each["spec"]["resources"]["requests"]["storage"],
        )
        for each in manifests(record(stack, configuration(stack)))
        if each["kind"] == "PersistentVolumeClaim"
    }
    wanted = {each.name: (each.storage_class, [each.access_mode], each.size) for each in needs_of(stack).claims}
    assert found == wanted


@pytest.mark.parametrize("stack", STACKS)
def test_the_pod_that_is_tried_is_secured_as_the_controllers(stack, needs_of):
    tried = prerequisites_admission.pods(needs_of(stack))["controller"]
    made = next(
        each["spec"]["template"]
        for each in manifests(record(stack, configuration(stack)))
        if each["kind"] in {"Deployment", "DaemonSet"} and each["metadata"]["name"] == "nanoclaw-controller"
    )
    (ours,), (theirs,) = tried["spec"]["containers"], made["spec"]["containers"]
    assert ours["securityContext"] == theirs["securityContext"]
    assert ours["resources"] == theirs["resources"]
    assert ours["image"] == theirs["image"]
    assert tried["metadata"]["annotations"] == made["metadata"].get("annotations", {})
    policy = {"fsGroupChangePolicy"}  # of no concern to admission
    contexts = [{k: v for k, v in pod["spec"]["securityContext"].items() if k not in policy} for pod in (tried, made)]
    assert contexts[0] == contexts[1]
    kinds = [{kind for volume in pod["spec"]["volumes"] for kind in volume.keys() - {"name"}} for pod in (tried, made)]
    assert ("hostPath" in kinds[0]) == ("hostPath" in kinds[1])


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        pytest.param({"guardrails": {"enabled": True}}, "ValidatingAdmissionPolicyBinding", id="guardrails"),
        pytest.param({"monitoring": {"enabled": True}}, "PrometheusRule", id="monitoring"),
        pytest.param({"priorities": {"enabled": True}}, "PriorityClass", id="priorities"),
        pytest.param({"namespace": {"quota": {"pods": "99"}}}, "ResourceQuota", id="quota"),
        pytest.param({"namespace": {"containerLimits": {}}}, "LimitRange", id="limits"),
        pytest.param(
            {"credentials": {"external": {"store": "vault", "data": {"ANTHROPIC_API_KEY": {"key": "a"}}}}},
            "ExternalSecret",
            id="external secret",
        ),
        pytest.param(
            {"storage": {"storageClass": "ours", "makeClass": {"name": "ours", "provisioner": "nfs.csi.k8s.io"}}},
            "StorageClass",
            id="class",
        ),
    ],
)
def test_a_kind_is_needed_when_a_setting_asks_for_it(changes, kind, needs_of):
    assert kind not in {each.kind for each in needs_of("dev").kinds}
    assert kind in {each.kind for each in needs_of("dev", **changes).kinds}


def test_what_is_switched_off_is_not_needed(needs_of):
    plain = needs_of("dev", network={"enabled": False}, namespace={"name": "given", "create": False})
    assert {"NetworkPolicy", "Namespace"} & {each.kind for each in plain.kinds} == set()
    assert plain.dns_namespace is None
    assert Kind("Deployment", "deployments", "apps") in plain.kinds


def test_newer_features_are_needed_where_they_are_used(needs_of):
    def whats(found):
        return {each.setting: each.since for each in found.features}

    assert whats(needs_of("dev")) == {"": (1, 30)}
    assert whats(needs_of("production")) == {
        "": (1, 30),
        "guardrails.enabled": (1, 30),
        "storage.accessModes": (1, 27),
    }


def test_a_quota_is_needed_for_every_session_and_claim(needs_of):
    found = needs_of("dev").amounts
    assert found["pods"] == 5 + 1
    assert found["persistentvolumeclaims"] == 3 + 2 * 3
    assert found["requests.cpu"] == found["cpu"] == Decimal("1.35")


def test_own_pods_have_the_stacks_priorities(needs_of):
    found = needs_of("production")
    assert [each.scheduling.priority_class for each in found.workloads] == [
        "nanoclaw-agent",
        "nanoclaw-controller",
        "nanoclaw-controller",
    ]
    assert set(found.made_priorities) == {"nanoclaw-agent", "nanoclaw-controller"}


def test_each_secret_of_somebody_else_is_named_once_with_its_setting(needs_of):
    assert [(each.name, each.setting) for each in needs_of("production").secrets] == [
        ("registry", "runtime.agent.scheduling.imagePullSecrets")
    ]
    assert [each.setting for each in needs_of("dev", credentials={"existingSecret": "keys"}).secrets] == [
        "credentials.existingSecret"
    ]


def test_the_reader_is_found_by_its_entry_point():
    (found,) = entry_points(group=STACK_READERS)
    assert found.load() is reader.read


def test_a_stack_is_read_from_the_current_folder_or_the_checkout(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StackUnusable, match="there are the stacks bridge, dev, local"):
        reader.read("none", None, {})
    (tmp_path / "Pulumi.yaml").write_text("name: other\n")
    with pytest.raises(StackUnusable, match=r"there are the stacks \(none\)"):
        reader.read("none", None, {})
