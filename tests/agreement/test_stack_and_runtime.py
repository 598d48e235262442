"""What the stack declares is what the runtime looks for.

Each side renders the contract in its own way; here their results are laid side by side, for every
pattern with every transport, and for the layouts and platforms that no committed stack uses.
"""

from __future__ import annotations

import json

import pytest

from nanoclaw_runtime.contract import config, labels, layout, names
from nanoclaw_runtime.contract.claims import group_claims
from nanoclaw_runtime.contract.config import ControllerConfig, Groups, Pattern, Transport
from nanoclaw_runtime.contract.permissions import controller_cluster_rules
from nanoclaw_runtime.domain.model import SessionPlan, SessionRef
from nanoclaw_runtime.manifests.registration import group_claim
from nanoclaw_runtime.settings import RuntimeSettings
from tests.infra.recording import configuration, manifests, record, settings
from tests.support.plans import holder


def with_runtime(stack, **more):
    changed = settings(stack)
    changed["runtime"] |= more
    return {"nanoclaw:settings": changed}


ENVIRONMENTS = [
    ("local", "local", {}),
    ("dev", "dev", {}),
    ("shared", "local", {"nanoclaw:layout": "shared"}),
    ("openshift", "local", {"nanoclaw:platform": "openshift"}),
    ("statefulset", "warm", {}),
    ("bridge", "bridge", {}),
    ("bridge-per-type", "local", with_runtime("local", transport="bridge")),
    ("bridge-statefulset", "bridge", with_runtime("bridge", pattern="statefulset")),
    ("bridge-openshift", "bridge", {"nanoclaw:platform": "openshift"}),
    ("nodelocal", "nodelocal", {}),
]
ON_CLAIMS = [each for each in ENVIRONMENTS if each[0] != "nodelocal"]
BRIDGED = [each for each in ENVIRONMENTS if each[0].startswith("bridge")]


class Declared:
    """The objects of one stack, and what the controller is told in them."""

    def __init__(self, objects):
        self._objects = objects
        settings = next(each for each in objects if names.SETTINGS_KEY in each.get("data", {}))
        self.settings_file = settings["data"][names.SETTINGS_KEY]
        self.config = ControllerConfig.model_validate_json(self.settings_file)
        self.groups = Groups.model_validate_json(
            self.one("ConfigMap", names.GROUPS_CONFIG)["data"][names.GROUPS_KEY]
        ).groups
        kind = "DaemonSet" if self.config.pattern is Pattern.NODELOCAL else "Deployment"
        self.pod = self.one(kind, names.CONTROLLER)["spec"]["template"]["spec"]
        (self.container,) = self.pod["containers"]

    def one(self, kind, name):
        return next(each for each in self._objects if each["kind"] == kind and each["metadata"].get("name") == name)

    def names_of(self, kind):
        return {each["metadata"]["name"] for each in self._objects if each["kind"] == kind}

    def holders(self):
        """The object of a session of every group, in a place of its own where the pattern gives it one."""
        node = "worker-1" if self.config.pattern is Pattern.NODELOCAL else None
        plans = [
            SessionPlan(SessionRef(group.folder, "0123456789ab"), self.config.of(group), node=node)
            for group in self.groups
        ]
        return [holder(plan) for plan in plans]

    def pods(self):
        return [each["spec"]["template"]["spec"] for each in self.holders()]


def of(environments):
    return pytest.mark.parametrize("environment", [pytest.param(each, id=each[0]) for each in environments])


@pytest.fixture(params=[pytest.param(each, id=each[0]) for each in ENVIRONMENTS])
def environment(request):
    return request.param


@pytest.fixture
def declared(environment):
    _, stack, changes = environment
    return Declared(manifests(record(stack, configuration(stack, changes))))


def claims_of(pod):
    return {
        volume["persistentVolumeClaim"]["claimName"] for volume in pod["volumes"] if "persistentVolumeClaim" in volume
    }


def test_every_claim_an_agent_mounts_is_declared(declared):
    assert declared.groups
    for pod in declared.pods():
        assert claims_of(pod) <= declared.names_of("PersistentVolumeClaim")


@of(ON_CLAIMS)
def test_controller_and_agents_together_mount_every_declared_claim_and_no_other(declared):
    of_groups = set().union(*(claims_of(pod) for pod in declared.pods()))
    ours = claims_of(declared.pod)

    assert ours | of_groups == declared.names_of("PersistentVolumeClaim")
    if declared.config.transport is Transport.BRIDGE:
        assert not ours & of_groups, "a claim of one pod or node would keep the other from starting"
    else:
        assert of_groups <= ours


@of([each for each in ENVIRONMENTS if each[0] == "nodelocal"])
def test_agents_on_a_node_mount_what_is_below_the_folder_that_their_member_mounts(declared):
    (own,) = (volume["hostPath"] for volume in declared.pod["volumes"] if "hostPath" in volume)
    assert own == {"path": declared.config.node_root, "type": "Directory"}
    (mount,) = (each for each in declared.container["volumeMounts"] if each["mountPath"] == str(layout.TREE))
    assert not mount.get("readOnly")

    for pod, group in zip(declared.pods(), declared.groups, strict=True):
        folders = {volume["hostPath"]["path"] for volume in pod["volumes"] if "hostPath" in volume}
        assert {f"{own['path']}/{each(group.folder)}" for each in OF_GROUP} <= folders
        assert all(folder.startswith(f"{own['path']}/") for folder in folders)
    environment = {each["name"]: each.get("valueFrom") for each in declared.container["env"]}
    assert environment[config.ENV_NODE] == {"fieldRef": {"fieldPath": "spec.nodeName"}}
    assert environment[config.ENV_POD_IP] == {"fieldRef": {"fieldPath": "status.podIP"}}


OF_GROUP = (layout.group_dir, layout.ipc_dir, layout.sessions_dir)


@of(BRIDGED)
def test_the_bridge_finds_the_controller_and_may_reach_it(declared):
    port = {"name": names.BRIDGE, "port": names.BRIDGE_PORT, "targetPort": names.BRIDGE}
    assert port in declared.one("Service", names.CONTROLLER)["spec"]["ports"]
    assert {"name": names.BRIDGE, "containerPort": names.BRIDGE_PORT} in declared.container["ports"]

    reached = {"ports": [{"port": names.BRIDGE_PORT, "protocol": "TCP"}]}
    agents, controllers = (
        [{"podSelector": {"matchLabels": labels.component(each)}}] for each in (labels.AGENT, labels.CONTROLLER)
    )
    assert reached | {"to": controllers} in declared.one("NetworkPolicy", "nanoclaw-agents")["spec"]["egress"]
    assert reached | {"from": agents} in declared.one("NetworkPolicy", "nanoclaw-controller")["spec"]["ingress"]


@of(BRIDGED)
def test_the_bridge_is_the_controllers_own_image_and_its_token_is_reviewed(declared):
    (role,) = (each for each in declared.names_of("ClusterRole"))
    binding = declared.one("ClusterRoleBinding", role)

    assert [(each["kind"], each["name"]) for each in binding["subjects"]] == [("ServiceAccount", names.CONTROLLER)]
    assert [
        (rule["apiGroups"], rule["resources"], rule["verbs"]) for rule in declared.one("ClusterRole", role)["rules"]
    ] == [
        ([rule.api_group], list(rule.resources), list(rule.verbs)) for rule in controller_cluster_rules(declared.config)
    ]
    for pod in declared.pods():
        assert pod["initContainers"][-1]["image"] == declared.container["image"]


@of([each for each in ENVIRONMENTS if each not in BRIDGED])
def test_without_the_bridge_nobody_has_a_right_beyond_the_namespace(declared):
    assert declared.names_of("ClusterRole") | declared.names_of("ClusterRoleBinding") == set()
    assert [each["name"] for each in declared.container["ports"]] == [names.API_PORT_NAME]


def test_agents_run_as_the_declared_account_that_has_no_token(declared):
    for pod in declared.pods():
        account = declared.one("ServiceAccount", pod["serviceAccountName"])
        assert account["automountServiceAccountToken"] is False
        assert pod["automountServiceAccountToken"] is False


def test_the_agents_account_is_bound_to_nothing(declared):
    subjects = declared.one("RoleBinding", names.CONTROLLER)["subjects"]

    assert [subject["name"] for subject in subjects] == [names.CONTROLLER]
    assert declared.names_of("RoleBinding") == {names.CONTROLLER}


def test_controller_and_agents_are_the_same_user_on_shared_volumes(declared):
    identity = ("runAsUser", "runAsGroup", "fsGroup")

    for pod in declared.pods():
        theirs = pod["securityContext"]
        ours = declared.pod["securityContext"]
        assert [theirs.get(key) for key in identity] == [ours.get(key) for key in identity]


def test_the_controllers_labels_are_not_those_it_finds_agents_by(declared):
    selector = declared.one("Service", names.CONTROLLER)["spec"]["selector"]

    for each in declared.holders():
        agent = each["spec"]["template"]["metadata"]["labels"]
        assert not selector.items() <= agent.items(), "the Service would send requests to agents"
    assert selector[labels.COMPONENT] == labels.CONTROLLER


def test_the_runtime_reads_what_the_pod_is_given(declared, tmp_path):
    environment = {each["name"]: each.get("value") for each in declared.container["env"]}
    folders = {mount["mountPath"] for mount in declared.container["volumeMounts"]}
    assert {environment[config.ENV_CONFIG_DIR], environment[config.ENV_API_TOKEN_DIR]} <= folders
    assert environment[config.ENV_TREE] == str(layout.TREE)
    assert folders & {f"{layout.TREE}/{layout.STORE_DIR}", str(layout.TREE)}

    # The pod's own paths belong to the pod: the same files, below this test's folder.
    (tmp_path / names.SETTINGS_KEY).write_text(declared.settings_file)
    (tmp_path / names.API_TOKEN_KEY).write_text("token")
    loaded = RuntimeSettings.load(
        environment
        | {name: str(tmp_path) for name in (config.ENV_CONFIG_DIR, config.ENV_API_TOKEN_DIR)}
        | {config.ENV_NAMESPACE: "here"}
    )

    assert loaded.config == declared.config
    assert loaded.api_token() == "token"


def test_the_token_is_under_the_key_the_runtime_reads(declared):
    secret = declared.one("Secret", names.API_TOKEN)
    (mounted,) = [volume for volume in declared.pod["volumes"] if volume["name"] == "api-token"]

    assert mounted["secret"]["secretName"] == secret["metadata"]["name"]


def test_the_settings_file_is_json_a_person_can_read(declared):
    assert "\n" in declared.settings_file
    assert json.loads(declared.settings_file)["layout"] == declared.config.layout


def test_a_claim_the_controller_makes_is_the_one_the_stack_would_declare():
    changed = settings("local")
    changed["runtime"] |= {"registration": True}
    changed["storage"] |= {"storageClass": "fast"}
    declared = Declared(manifests(record("local", configuration("local", {"nanoclaw:settings": changed}))))

    for claim in group_claims(declared.config.layout, "family"):
        theirs = declared.one("PersistentVolumeClaim", claim.name)
        del theirs["metadata"]["namespace"], theirs["metadata"]["annotations"]["pulumi.com/skipAwait"]
        assert group_claim(claim, declared.config.registration_storage) == theirs


def test_the_controllers_container_has_the_name_by_which_groups_are_mounted_into_it(declared):
    assert declared.container["name"] == names.CONTROLLER_CONTAINER
