"""What the stack declares is what the runtime looks for.

Each side renders the contract in its own way; here their results are laid side by side, for every
committed stack and for the layouts and platforms they do not use.
"""

from __future__ import annotations

import json

import pytest

from nanoclaw_runtime.contract import config, labels, layout, names
from nanoclaw_runtime.contract.claims import group_claims
from nanoclaw_runtime.contract.config import ControllerConfig, Groups
from nanoclaw_runtime.domain.model import SessionPlan, SessionRef
from nanoclaw_runtime.manifests.job import agent_job
from nanoclaw_runtime.manifests.registration import group_claim
from nanoclaw_runtime.settings import RuntimeSettings
from tests.infra.recording import configuration, manifests, record, settings

ENVIRONMENTS = [
    ("local", "local", {}),
    ("dev", "dev", {}),
    ("shared", "local", {"nanoclaw:layout": "shared"}),
    ("openshift", "local", {"nanoclaw:platform": "openshift"}),
]


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
        self.pod = self.one("Deployment", names.CONTROLLER)["spec"]["template"]["spec"]
        (self.container,) = self.pod["containers"]

    def one(self, kind, name):
        return next(each for each in self._objects if each["kind"] == kind and each["metadata"].get("name") == name)

    def names_of(self, kind):
        return {each["metadata"]["name"] for each in self._objects if each["kind"] == kind}

    def jobs(self):
        return [agent_job(SessionPlan(SessionRef(group.folder, "0123456789ab"), self.config)) for group in self.groups]


@pytest.fixture(params=[pytest.param(each, id=each[0]) for each in ENVIRONMENTS])
def declared(request):
    _, stack, changes = request.param
    return Declared(manifests(record(stack, configuration(stack, changes))))


def claims_of(pod):
    return {
        volume["persistentVolumeClaim"]["claimName"] for volume in pod["volumes"] if "persistentVolumeClaim" in volume
    }


def test_every_claim_an_agent_mounts_is_declared(declared):
    assert declared.groups
    for job in declared.jobs():
        assert claims_of(job["spec"]["template"]["spec"]) <= declared.names_of("PersistentVolumeClaim")


def test_the_controller_mounts_every_declared_claim_and_no_other(declared):
    assert claims_of(declared.pod) == declared.names_of("PersistentVolumeClaim")


def test_agents_run_as_the_declared_account_that_has_no_token(declared):
    for job in declared.jobs():
        pod = job["spec"]["template"]["spec"]
        account = declared.one("ServiceAccount", pod["serviceAccountName"])
        assert account["automountServiceAccountToken"] is False
        assert pod["automountServiceAccountToken"] is False


def test_the_agents_account_is_bound_to_nothing(declared):
    subjects = declared.one("RoleBinding", names.CONTROLLER)["subjects"]

    assert [subject["name"] for subject in subjects] == [names.CONTROLLER]
    assert declared.names_of("RoleBinding") == {names.CONTROLLER}


def test_controller_and_agents_are_the_same_user_on_shared_volumes(declared):
    identity = ("runAsUser", "runAsGroup", "fsGroup")

    for job in declared.jobs():
        theirs = job["spec"]["template"]["spec"]["securityContext"]
        ours = declared.pod["securityContext"]
        assert [theirs.get(key) for key in identity] == [ours.get(key) for key in identity]


def test_the_controllers_labels_are_not_those_it_finds_agents_by(declared):
    selector = declared.one("Service", names.CONTROLLER)["spec"]["selector"]

    for job in declared.jobs():
        agent = job["spec"]["template"]["metadata"]["labels"]
        assert not selector.items() <= agent.items(), "the Service would send requests to agents"
    assert selector[labels.COMPONENT] == labels.CONTROLLER


def test_the_runtime_reads_what_the_pod_is_given(declared, tmp_path):
    environment = {each["name"]: each.get("value") for each in declared.container["env"]}
    folders = {mount["mountPath"] for mount in declared.container["volumeMounts"]}
    assert {environment[config.ENV_CONFIG_DIR], environment[config.ENV_API_TOKEN_DIR]} <= folders
    assert environment[config.ENV_TREE] == str(layout.TREE)
    assert f"{layout.TREE}/{layout.STORE_DIR}" in folders

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
