"""Every pod of an installation on OpenShift is admitted by the constraint its stack asks for."""

from __future__ import annotations

import pytest

from nanoclaw_runtime.contract import labels, names
from nanoclaw_runtime.contract.claims import Layout
from nanoclaw_runtime.contract.config import ControllerConfig, Groups, Pattern, Platform
from nanoclaw_runtime.domain.model import SessionPlan, SessionRef
from nanoclaw_runtime.manifests.job import agent_job
from tests.infra import recording
from tests.infra.recording import configuration, manifests, record, settings
from tests.infra.refused import merged
from tests.support.plans import EXTRA, SHAPES, holder
from tests.support.scc import PROJECT, REQUIRED, Constraint, admit

STACKS = [
    stack
    for stack in recording.STACKS
    # Folders of nodes are refused by restricted-v2, and so by the settings.
    if settings(stack)["runtime"].get("pattern") != Pattern.NODELOCAL
]


def on_openshift(stack, **changes):
    """The stack's objects on OpenShift, whatever platform it is for."""
    config = configuration(
        stack, {"nanoclaw:platform": "openshift", "nanoclaw:settings": merged(settings(stack), changes)}
    )
    return manifests(record(stack, config))


def own_pods(objects):
    return [each["spec"]["template"] for each in objects if each["kind"] in {"Deployment", "DaemonSet", "StatefulSet"}]


def agents(objects):
    (told,) = [
        each["data"][names.SETTINGS_KEY]
        for each in objects
        if names.SETTINGS_KEY in each.get("data", {})
        and each["metadata"]["labels"][labels.COMPONENT] == labels.CONTROLLER
    ]
    config = ControllerConfig.model_validate_json(told)
    data = next(each for each in objects if each["metadata"].get("name") == names.GROUPS_CONFIG)["data"]
    groups = Groups.model_validate_json(data[names.GROUPS_KEY]).groups
    return [
        holder(SessionPlan(SessionRef(group.folder, "0123456789ab"), config.of(group), extra))["spec"]["template"]
        for group in groups
        for extra in ((), EXTRA)
    ]


@pytest.mark.parametrize("stack", STACKS)
def test_every_pod_of_a_committed_stack_is_admitted_by_restricted_v2(stack):
    objects = on_openshift(stack)
    pods = own_pods(objects) + agents(objects)

    assert len(pods) >= 3
    for pod in pods:
        assert pod["metadata"]["annotations"][REQUIRED] == "restricted-v2"
        verdict = admit(pod, PROJECT)
        assert (verdict.constraint, verdict.refusals) == ("restricted-v2", ())
        assert verdict.pod["spec"]["securityContext"]["fsGroup"] == PROJECT.groups[0]


@pytest.mark.parametrize("shape", [name for name, plan in SHAPES.items() if plan.config.platform is Platform.OPENSHIFT])
def test_every_shape_of_an_agent_is_admitted_by_restricted_v2(shape):
    assert admit(agent_job(SHAPES[shape])["spec"]["template"], PROJECT).constraint == "restricted-v2"


@pytest.mark.parametrize("layout", list(Layout))
def test_the_ids_of_plain_kubernetes_are_refused_on_openshift(layout):
    template = agent_job(SHAPES[f"group-{layout.value}-kubernetes"])["spec"]["template"]

    assert admit(template, PROJECT).constraint is None
    assert admit(template, PROJECT, bound={"nonroot-v2"}).constraint == "nonroot-v2"


def test_every_pod_asks_for_the_constraint_the_stack_names_and_may_use_it():
    changed = {"openshift": {"scc": "nonroot-v2", "bind": True}}
    objects = on_openshift("local", **changed)
    (binding,) = [each for each in objects if each["metadata"].get("name") == "nanoclaw-scc"]
    allowed = {subject["name"] for subject in binding["subjects"]}

    for pod in own_pods(objects) + agents(objects):
        assert pod["spec"]["serviceAccountName"] in allowed
        assert admit(pod, PROJECT, bound={"nonroot-v2"}).constraint == "nonroot-v2"


@pytest.mark.parametrize("runtime", [{"transport": "bridge"}, {"transport": "bridge", "pattern": "statefulset"}])
def test_agents_with_a_bridge_are_admitted_by_restricted_v2(runtime):
    pods = agents(on_openshift("local", runtime=runtime))

    for pod in pods:
        assert [each["name"] for each in pod["spec"]["initContainers"]] == [names.BRIDGE]
        assert admit(pod, PROJECT).constraint == "restricted-v2"


OWN_SCC = {"scc": "nanoclaw-nodelocal", "makeScc": True}


def test_controllers_and_agents_on_nodes_are_admitted_by_the_constraint_the_stack_makes_and_by_no_other():
    objects = on_openshift("nodelocal", openshift=OWN_SCC)
    (manifest,) = [each for each in objects if each["kind"] == "SecurityContextConstraints"]
    made = Constraint.made(manifest)
    pods = own_pods(objects) + agents(objects)

    assert len(pods) == 1 + 2 * 3
    for pod in pods:
        user = f"system:serviceaccount:nanoclaw-nodelocal:{pod['spec']['serviceAccountName']}"
        assert user in manifest["users"]
        verdict = admit(pod, PROJECT, made=[made])
        assert (verdict.constraint, verdict.refusals) == ("nanoclaw-nodelocal", ())
        assert verdict.pod["spec"]["containers"][0]["securityContext"]["runAsUser"] == 1000, "who owns the folders"
        del pod["metadata"]["annotations"][REQUIRED]
        assert admit(pod, PROJECT, bound={"nonroot-v2"}).constraint is None, "restricted-v2 and nonroot-v2 forbid them"


def test_the_gateway_gets_no_folders_of_nodes():
    keys = {"gateway": {"enabled": True}, "credentials": {"existingSecret": "theirs"}}
    objects = on_openshift("nodelocal", openshift=OWN_SCC, **keys)
    (manifest,) = [each for each in objects if each["kind"] == "SecurityContextConstraints"]
    (gateway,) = [pod for pod in own_pods(objects) if pod["spec"]["serviceAccountName"] == names.GATEWAY]

    assert not any(user.endswith(f":{names.GATEWAY}") for user in manifest["users"])
    assert gateway["metadata"]["annotations"][REQUIRED] == "restricted-v2"
    assert admit(gateway, PROJECT).constraint == "restricted-v2"


def test_a_constraint_of_the_stacks_own_opens_folders_and_nothing_else():
    objects = on_openshift("nodelocal", openshift=OWN_SCC)
    (manifest,) = [each for each in objects if each["kind"] == "SecurityContextConstraints"]
    made = Constraint.made(manifest)
    pod = own_pods(objects)[0]

    for change in ({"hostNetwork": True}, {"hostPID": True}, {"securityContext": {"runAsUser": 0, "fsGroup": 0}}):
        refused = admit(pod | {"spec": pod["spec"] | change}, PROJECT, made=[made])
        assert refused.constraint is None
