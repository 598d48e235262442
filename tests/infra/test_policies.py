"""The policies hold for every committed stack, and each of them finds what it is there for."""

from __future__ import annotations

import copy
import re

import pytest

from nanoclaw_infra.policies import POLICIES, violations
from nanoclaw_infra.policies.declared import Declared, Stack
from nanoclaw_runtime.contract import labels, names
from tests.infra.recording import STACKS, _blanked, configuration, record, settings


def recorded(stack, changes=None):
    return Stack(
        [
            Declared(_blanked(each.inputs), each.protect, each.retain)
            for each in record(stack, configuration(stack, changes))
            if each.type.startswith("kubernetes:")
        ],
        stack,
    )


def sentences(stack, *, mandatory=True):
    return [each.sentence for each in violations(stack) if each.policy.mandatory or not mandatory]


@pytest.mark.parametrize("stack", STACKS)
def test_a_committed_stack_breaks_no_policy(stack):
    assert sentences(recorded(stack)) == []


@pytest.mark.parametrize("layout", ["per-group", "shared"])
@pytest.mark.parametrize("platform", ["kubernetes", "openshift"])
def test_no_layout_and_platform_breaks_a_policy(layout, platform):
    assert sentences(recorded("local", {"nanoclaw:layout": layout, "nanoclaw:platform": platform})) == []


def test_the_production_stack_breaks_not_even_those_that_only_advise():
    assert sentences(recorded("production"), mandatory=False) == []


def test_every_policy_has_a_name_of_its_own_and_a_reason():
    assert len({policy.name for policy in POLICIES}) == len(POLICIES)
    assert all(policy.why.endswith(".") for policy in POLICIES)


@pytest.mark.parametrize(
    "runtime",
    [
        pytest.param({"transport": "bridge"}, id="bridge"),
        pytest.param({"pattern": "statefulset", "fixPermissions": True}, id="volumes that are given to their user"),
    ],
)
def test_no_way_of_running_agents_breaks_a_policy(runtime):
    changed = settings("local")
    changed["runtime"] |= runtime
    changed["namespace"] = {"create": False}
    assert sentences(recorded("local", {"nanoclaw:settings": changed})) == []


def bridged():
    changed = settings("local")
    changed["runtime"] |= {"transport": "bridge"}
    return {"nanoclaw:settings": changed}


WIDER = [
    pytest.param("ClusterRole", lambda manifest: manifest["rules"][0]["verbs"].append("get"), id="a verb more"),
    pytest.param("ClusterRole", lambda manifest: manifest["rules"].append(manifest["rules"][0]), id="a rule more"),
    pytest.param(
        "ClusterRoleBinding", lambda manifest: manifest["roleRef"].update(name="cluster-admin"), id="another role"
    ),
    pytest.param("ClusterRole", lambda manifest: manifest["metadata"].update(name="reviewer"), id="another name"),
]


@pytest.mark.parametrize(("kind", "change"), WIDER)
def test_of_the_cluster_the_controller_reviews_tokens_and_nothing_else(kind, change):
    told = "reaches beyond the namespace; write a Role or a RoleBinding"
    assert any(told in each for each in sentences(with_object(kind, change, changes=bridged())))


def with_object(kind, change, *, stack="local", name=None, changes=None):
    """The stack with the first object of this kind changed."""
    made = recorded(stack, changes)
    objects = list(made.objects)
    position = next(index for index, each in enumerate(objects) if each.kind == kind and name in {None, each.name})
    manifest = copy.deepcopy(objects[position].manifest)
    change(manifest)
    objects[position] = Declared(manifest, objects[position].protect, objects[position].retain)
    return Stack(objects, made.name)


def pod(change):
    return lambda manifest: change(manifest["spec"]["template"]["spec"])


def container(change):
    return pod(lambda spec: change(spec["containers"][0]))


def rule(**fields):
    return lambda manifest: manifest["rules"].append(
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]} | fields
    )


DEPLOYMENT = f"Deployment {names.CONTROLLER}: "

BROKEN = [
    pytest.param(
        "Deployment",
        pod(lambda spec: spec["volumes"].append({"name": "x", "hostPath": {"path": "/"}})),
        r"volumes\[\d+\].hostPath is a folder of the node; mount a claim",
        id="hostPath",
    ),
    pytest.param(
        "Deployment",
        container(lambda each: each["resources"]["limits"].pop("memory")),
        r"containers\[0\].resources.limits.memory is missing; say how much it may use",
        id="limit",
    ),
    pytest.param(
        "Deployment",
        pod(lambda spec: spec.update(initContainers=[{"name": "first", "securityContext": {}}])),
        r"initContainers\[0\].resources.requests.cpu is missing",
        id="requests of an init container",
    ),
    pytest.param("Role", rule(verbs=["*"]), r"rules\[\d+\].verbs is '\*'; list what is needed", id="all verbs"),
    pytest.param("Role", rule(resources=["*"]), r"rules\[\d+\].resources is '\*'", id="all resources"),
    pytest.param("Role", rule(apiGroups=["*"]), r"rules\[\d+\].apiGroups is '\*'", id="all API groups"),
    pytest.param("Role", rule(resources=["secrets"], verbs=["list"]), "reads every secret", id="list secrets"),
    pytest.param("Role", rule(resources=["secrets"], verbs=["get"]), "reads every secret", id="get any secret"),
    pytest.param(
        "RoleBinding",
        lambda manifest: manifest.update(roleRef={"kind": "ClusterRole", "name": "cluster-admin"}),
        "is the ClusterRole cluster-admin, which is not ours; bind a Role",
        id="bound to a ClusterRole",
    ),
    pytest.param(
        "Role", lambda manifest: manifest.update(kind="ClusterRole"), "reaches beyond the namespace", id="ClusterRole"
    ),
    pytest.param(
        "Deployment", pod(lambda spec: spec.update(hostNetwork=True)), "hostNetwork is true", id="hostNetwork"
    ),
    pytest.param(
        "Deployment",
        container(lambda each: each["securityContext"].update(privileged=True)),
        "securityContext.privileged is true; take it away",
        id="privileged",
    ),
    pytest.param(
        "Deployment",
        container(lambda each: each["securityContext"].pop("allowPrivilegeEscalation")),
        "allowPrivilegeEscalation is not false; set it to false",
        id="escalation",
    ),
    pytest.param(
        "Deployment",
        container(lambda each: each["securityContext"].update(capabilities={"drop": ["ALL"], "add": ["CHOWN"]})),
        "capabilities leaves some; drop ALL and add none",
        id="capability",
    ),
    pytest.param(
        "Deployment",
        pod(lambda spec: spec["securityContext"].pop("runAsNonRoot")),
        "runAsNonRoot is not true; set it",
        id="root",
    ),
    pytest.param(
        "Service",
        lambda manifest: manifest["spec"].update(type="LoadBalancer"),
        "spec.type is LoadBalancer; write ClusterIP",
        id="LoadBalancer",
    ),
    pytest.param(
        "Service", lambda manifest: manifest["spec"].update(type="NodePort"), "spec.type is NodePort", id="NodePort"
    ),
    pytest.param(
        "ServiceAccount",
        lambda manifest: manifest.pop("automountServiceAccountToken"),
        "automountServiceAccountToken is not false",
        id="token of an account",
    ),
    pytest.param(
        "Deployment",
        lambda manifest: manifest["metadata"]["labels"].update({labels.COMPONENT: "other"}),
        "spec.automountServiceAccountToken is not false; set it to false",
        id="token of a pod",
    ),
    pytest.param(
        "Deployment",
        container(lambda each: each.update(image="registry.example:5000/runtime")),
        "image is 'registry.example:5000/runtime', whatever that is today; write a version or a digest",
        id="no tag",
    ),
    pytest.param(
        "NetworkPolicy",
        lambda manifest: manifest["spec"].update(podSelector={"matchLabels": {"app": "nobody"}}),
        "no NetworkPolicy bounds their .*; declare one",
        id="nobody's network policy",
    ),
]


@pytest.mark.parametrize(("kind", "change", "told"), BROKEN)
def test_a_violation_is_told_with_object_field_and_remedy(kind, change, told):
    found = sentences(with_object(kind, change))

    assert any(re.search(told, sentence) for sentence in found), found
    assert all(";" in sentence and ": " in sentence for sentence in found)


@pytest.mark.parametrize("field", ["runAsUser", "runAsGroup", "fsGroup"])
def test_on_openshift_no_id_is_fixed(field):
    def fix(spec):
        spec["securityContext"][field] = 1000

    told = (
        f"{DEPLOYMENT}securityContext.{field} is 1000; leave it out, OpenShift fills it in from the namespace's range"
    )
    assert sentences(with_object("Deployment", pod(fix), changes={"nanoclaw:platform": "openshift"})) == [told]
    assert sentences(with_object("Deployment", pod(fix))) == []


def latest(each):
    each["image"] = "registry.example/runtime:latest"


def test_latest_is_for_stacks_that_hold_nothing():
    assert sentences(with_object("Deployment", container(latest))) == []
    found = sentences(with_object("Deployment", container(latest), stack="production", name=names.CONTROLLER))
    assert [each for each in found if "runtime:latest" in each] == found != []


def test_the_agents_image_is_judged_though_no_pod_is_declared():
    changed = settings("production")
    changed["runtime"]["agent"]["image"] = "registry.example/agent:latest"
    found = sentences(recorded("production", {"nanoclaw:settings": changed}))

    assert len(found) == 1
    assert "agent.image is 'registry.example/agent:latest'" in found[0]


def test_a_tag_in_production_is_advised_against():
    changed = settings("production")
    changed["runtime"]["agent"]["image"] = "registry.example/agent:1.2.0"
    made = recorded("production", {"nanoclaw:settings": changed})

    assert sentences(made) == []
    assert "write its digest" in sentences(made, mandatory=False)[0]


def test_a_stack_that_is_called_production_protects_its_data():
    made = recorded("production", {"nanoclaw:protectData": "false"})

    assert any("protects no data; write nanoclaw:protectData true" in each for each in sentences(made))
    assert not any("protects no data" in each for each in sentences(Stack(made.objects, "trial")))


def test_protected_data_that_would_not_be_kept_is_a_violation():
    made = recorded("production")
    objects = [Declared(each.manifest, each.protect, retain=False) for each in made.objects]

    assert any("retain_on_delete is false" in each for each in sentences(Stack(objects, "production")))


def test_an_exception_from_protection_is_told_and_not_refused():
    precious = names.group_claim("team")
    changed = settings("production") | {"allowDataLoss": [f"PersistentVolumeClaim/{precious}"]}
    made = recorded("production", {"nanoclaw:settings": changed})

    assert sentences(made) == []
    (told,) = sentences(made, mandatory=False)
    assert told.startswith(f"PersistentVolumeClaim {precious}: protect is not set; remove it from")


def test_folders_of_nodes_are_for_the_pattern_that_lives_on_them():
    def folder(spec):
        spec["volumes"].append({"name": "x", "hostPath": {"path": "/var/lib/nanoclaw"}})

    made = with_object("Deployment", pod(folder))
    told = [each.manifest for each in made.objects if names.SETTINGS_KEY in (each.manifest.get("data") or {})]
    assert sentences(made) != []
    told[0]["data"][names.SETTINGS_KEY] = told[0]["data"][names.SETTINGS_KEY].replace('"job"', '"nodelocal"')
    assert sentences(Stack(made.objects, "local")) == []
