"""What every committed stack declares, as YAML to read in a review.

`NANOCLAW_GOLDEN=write pytest tests/infra` writes the files anew; the difference is then reviewed
like any other. A new stack starts with an empty file.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from nanoclaw_runtime.contract import names, ownership
from nanoclaw_runtime.contract.claims import Purpose
from nanoclaw_runtime.contract.config import ControllerConfig, RegistrationStorage
from nanoclaw_runtime.contract.gateway import OPERATIONS_PORT, USAGE_DIR
from nanoclaw_runtime.contract.permissions import CONTROLLER_RULES, REGISTRATION_RULES, STATEFULSET_RULES
from tests.infra.recording import STACKS, configuration, is_secret, manifests, record, settings

GOLDEN = Path(__file__).parent / "golden"
ALWAYS = CONTROLLER_RULES + STATEFULSET_RULES
"""Of a controller whose groups have claims: each of them chooses its pattern."""


class _Readable(yaml.SafeDumper):
    """Strings of several lines as blocks."""


def _string(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Readable.add_representer(str, _string)


def objects(registered):
    return {(each["kind"], each["metadata"].get("name", "")): each for each in manifests(registered)}


@pytest.mark.parametrize("stack", STACKS)
def test_a_committed_stack_declares_what_its_golden_file_shows(stack):
    declared = sorted(
        manifests(record(stack, configuration(stack))),
        key=lambda each: (each["kind"], each["metadata"].get("name", "")),
    )
    text = yaml.dump_all(declared, Dumper=_Readable, sort_keys=True, width=120)
    golden = GOLDEN / f"{stack}.yaml"
    if os.environ.get("NANOCLAW_GOLDEN") == "write":
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(text)
    assert text == golden.read_text(), "run NANOCLAW_GOLDEN=write pytest tests/infra, and review the difference"


def test_the_role_is_the_contracts_list_and_nothing_else():
    role = objects(record("local", configuration("local")))["Role", names.CONTROLLER]

    assert [
        (rule["apiGroups"], rule["resources"], rule["verbs"], rule.get("resourceNames", [])) for rule in role["rules"]
    ] == [([rule.api_group], list(rule.resources), list(rule.verbs), list(rule.names)) for rule in ALWAYS]


def registering(**runtime):
    """The local stack, with groups that may be added at run time."""
    changed = settings("local")
    return changed | {"runtime": changed["runtime"] | {"registration": True} | runtime}


def told(registered):
    found = next(each["data"] for each in manifests(registered) if names.SETTINGS_KEY in each.get("data", {}))
    return ControllerConfig.model_validate_json(found[names.SETTINGS_KEY])


def test_a_controller_that_adds_groups_gets_the_rights_and_the_storage_for_it():
    registered = record("local", configuration("local", {"nanoclaw:settings": registering()}))
    rules = objects(registered)["Role", names.CONTROLLER]["rules"]

    assert [rule["resources"] for rule in rules[-2:]] == [["persistentvolumeclaims"], ["deployments"]]
    assert len(rules) == len(ALWAYS + REGISTRATION_RULES)
    assert told(registered).registration_storage == RegistrationStorage(
        storage_class=None,
        access_modes=dict.fromkeys((Purpose.GROUP, Purpose.IPC, Purpose.SESSIONS), "ReadWriteMany"),
        sizes={Purpose.GROUP: "64Mi", Purpose.IPC: "16Mi", Purpose.SESSIONS: "64Mi"},
    )


def test_groups_that_are_added_need_nothing_where_they_share_one_claim():
    shared = {"nanoclaw:settings": registering(), "nanoclaw:layout": "shared"}
    registered = record("local", configuration("local", shared))

    assert len(objects(registered)["Role", names.CONTROLLER]["rules"]) == len(ALWAYS)
    assert told(registered).registration_storage is None


def test_on_openshift_nobody_chooses_a_uid_and_the_namespaces_labels_are_the_platforms():
    declared = objects(record("local", configuration("local", {"nanoclaw:platform": "openshift"})))
    pod = declared["Deployment", names.CONTROLLER]["spec"]["template"]

    assert pod["spec"]["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert pod["metadata"]["annotations"] == {"openshift.io/required-scc": "restricted-v2"}
    assert not any("pod-security" in label for label in declared["Namespace", "nanoclaw"]["metadata"]["labels"])


@pytest.mark.parametrize("platform", ["openshift", "kubernetes"])
def test_on_openshift_calls_through_the_api_server_come_from_the_hosts_network(platform):
    changed = settings("local") | {"gateway": {"enabled": True}, "credentials": {"existingSecret": "theirs"}}
    config = configuration("local", {"nanoclaw:platform": platform, "nanoclaw:settings": changed})
    declared = objects(record("local", config))

    hosts = {"namespaceSelector": {"matchLabels": {"policy-group.network.openshift.io/host-network": ""}}}
    for policy, port in (("nanoclaw-controller", names.API_PORT), ("nanoclaw-gateway", OPERATIONS_PORT)):
        callers = [
            peer
            for rule in declared["NetworkPolicy", policy]["spec"]["ingress"]
            if [each["port"] for each in rule["ports"]] == [port]
            for peer in rule["from"]
        ]
        assert (hosts in callers) == (platform == "openshift")
        assert {"ipBlock": {"cidr": "10.100.0.1/32"}} in callers


def test_scratch_space_is_bounded():
    for stack in STACKS:
        for each in manifests(record(stack, configuration(stack))):
            pod = each.get("spec", {}).get("template", {}).get("spec", {})
            for volume in pod.get("volumes", []):
                assert "emptyDir" not in volume or volume["emptyDir"]["sizeLimit"], (stack, each["metadata"]["name"])


def test_a_budget_is_made_for_a_deployment_alone():
    for stack in STACKS:
        declared = objects(record(stack, configuration(stack)))
        budgets = {name for kind, name in declared if kind == "PodDisruptionBudget"}
        assert budgets == {name for kind, name in declared if kind == "Deployment"}, stack


def test_the_shared_layout_declares_two_claims_whatever_the_groups():
    declared = objects(record("local", configuration("local", {"nanoclaw:layout": "shared"})))

    assert {name for kind, name in declared if kind == "PersistentVolumeClaim"} == {
        names.STORE_CLAIM,
        names.DATA_CLAIM,
    }


def test_protected_data_is_protected_and_kept_and_so_is_its_namespace():
    registered = record("local", configuration("local", {"nanoclaw:protectData": "true"}))
    guarded = {(each.kind, each.object_name) for each in registered if each.protect and each.retain}

    assert guarded == {
        ("Namespace", "nanoclaw"),
        *(
            ("PersistentVolumeClaim", name)
            for name in (
                names.STORE_CLAIM,
                names.GLOBAL_CLAIM,
                *(
                    claim(folder)
                    for folder in ("main", "family")
                    for claim in (names.group_claim, names.ipc_claim, names.sessions_claim)
                ),
            )
        ),
    }
    assert not any(each.deleted_with for each in registered), "a kept namespace takes nothing along"


def test_protected_data_outlives_its_line_where_a_gitops_tool_applies_it():
    keys = {"argocd.argoproj.io/sync-options", "kustomize.toolkit.fluxcd.io/prune"}

    def marked(protect):
        return {
            (each.kind, each.object_name)
            for each in record("local", configuration("local", {"nanoclaw:protectData": protect}))
            if keys <= ((each.inputs.get("metadata") or {}).get("annotations") or {}).keys()
        }

    registered = record("local", configuration("local", {"nanoclaw:protectData": "true"}))
    assert marked("true") == {(each.kind, each.object_name) for each in registered if each.protect}
    assert marked("false") == set()


def test_unprotected_objects_go_with_their_namespace():
    registered = record("local", configuration("local"))

    assert all(
        each.deleted_with.endswith("::nanoclaw")
        for each in registered
        if each.type.startswith("kubernetes:") and each.kind != "Namespace"
    )


def test_a_namespace_of_somebody_else_is_used_and_not_declared():
    theirs = settings("local") | {"namespace": {"name": "team-chat", "create": False}}
    registered = record("local", configuration("local", {"nanoclaw:settings": theirs}))

    assert {each["metadata"]["namespace"] for each in manifests(registered)} == {"team-chat"}


@pytest.mark.parametrize("protect", ["true", "false"])
@pytest.mark.parametrize(
    "runtime",
    [
        pytest.param({"pattern": "statefulset"}, id="statefulset"),
        pytest.param({"transport": "bridge"}, id="bridge"),
        pytest.param({"pattern": "statefulset", "transport": "bridge"}, id="both"),
        pytest.param({"parking": {"pods": 2}}, id="parking"),
    ],
)
def test_no_pattern_and_no_transport_changes_what_is_said_of_claims(runtime, protect):
    def claims(more):
        changed = settings("local")
        changed["runtime"] |= more
        config = configuration("local", {"nanoclaw:settings": changed, "nanoclaw:protectData": protect})
        return [each for each in record("local", config) if each.kind == "PersistentVolumeClaim"]

    assert len(claims({})) == 9
    assert claims(runtime) == claims({}), "with its type, name, place, fields and protection: the engine sees no change"


def test_claims_of_groups_that_moved_to_nodes_stay_declared_as_long_as_they_are_kept():
    def claims(**more):
        changed = settings("local") | {"storage": settings("local")["storage"] | more}
        changed["runtime"] |= {"pattern": "nodelocal"} if more else {}
        config = configuration("local", {"nanoclaw:settings": changed, "nanoclaw:protectData": "true"})
        registered = record("local", config)
        mounted = [
            volume
            for each in manifests(registered)
            if each["kind"] in {"Deployment", "DaemonSet"}
            for volume in each["spec"]["template"]["spec"]["volumes"]
            if "persistentVolumeClaim" in volume
        ]
        return [each for each in registered if each.kind == "PersistentVolumeClaim"], bool(mounted)

    before, mounted = claims()
    assert mounted
    assert claims(keep=["main", "family"]) == (before, False)
    assert claims(keep=[]) == ([], False)


def test_volumes_are_given_to_their_user_where_the_stack_asks_and_only_what_the_pod_writes():
    changed = settings("local") | {"namespace": {"create": False}, "gateway": {"enabled": True}}
    changed |= {"credentials": {"existingSecret": "theirs"}}
    changed["runtime"] |= {"fixPermissions": True, "transport": "bridge"}
    declared = objects(record("local", configuration("local", {"nanoclaw:settings": changed})))
    places = {
        names.CONTROLLER: ["/nanoclaw/store", "/nanoclaw/project", "/nanoclaw/groups/global", "/nanoclaw/data"],
        names.GATEWAY: [USAGE_DIR],
    }

    for name, paths in places.items():
        (first,) = declared["Deployment", name]["spec"]["template"]["spec"]["initContainers"]
        assert first["command"] == ownership.command(paths)
        assert [each["mountPath"] for each in first["volumeMounts"]] == paths
        assert first["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": [*ownership.CAPABILITIES]}
    without = objects(record("local", configuration("local")))["Deployment", names.CONTROLLER]
    assert "initContainers" not in without["spec"]["template"]["spec"]


def test_no_claim_is_awaited():
    for (kind, _), manifest in objects(record("local", configuration("local"))).items():
        if kind == "PersistentVolumeClaim":
            assert manifest["metadata"]["annotations"]["pulumi.com/skipAwait"] == "true"


def test_the_generated_token_travels_encrypted_and_later_ones_are_ignored():
    registered = record("local", configuration("local"))
    stash = next(each for each in registered if each.type == "pulumi:index:Stash")
    secret = next(each for each in registered if each.kind == "Secret")

    assert is_secret(stash.inputs["input"])
    assert stash.ignored == ["input"]
    assert is_secret(secret.inputs["stringData"])


def test_secrets_of_the_stack_reach_the_cluster_encrypted_and_replace_the_generated_token():
    config = configuration(
        "local", {"nanoclaw:apiToken": "told", "nanoclaw:credentials": {"ANTHROPIC_API_KEY": "sk-told"}}
    )
    registered = record("local", config, ("nanoclaw:apiToken", "nanoclaw:credentials"))
    secrets = {each.object_name: each.inputs["stringData"] for each in registered if each.kind == "Secret"}

    assert set(secrets) == {names.API_TOKEN, names.CREDENTIALS}
    assert all(is_secret(data) for data in secrets.values())
    assert not any(each.type == "pulumi:index:Stash" for each in registered)


def test_an_existing_secret_is_mounted_by_its_name():
    theirs = settings("local") | {"credentials": {"existingSecret": "team-keys"}}
    registered = record("local", configuration("local", {"nanoclaw:settings": theirs}))
    volumes = objects(registered)["Deployment", names.CONTROLLER]["spec"]["template"]["spec"]["volumes"]

    assert {"name": "credentials", "secret": {"secretName": "team-keys", "defaultMode": 0o440}} in volumes


def telegram(stack, **more):
    """The stack's settings with a channel."""
    changed = settings(stack) | more
    return changed | {"runtime": changed["runtime"] | {"channels": {"telegram": {}}}}


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"nanoclaw:credentials": {"TELEGRAM_BOT_TOKEN": "1:x"}}, id="in the stack"),
        pytest.param(
            {"nanoclaw:settings": telegram("local", credentials={"existingSecret": "team-keys"})}, id="somebody else's"
        ),
    ],
)
def test_a_channel_has_its_token_from_the_stack_or_from_somebody_elses_secret(changes):
    config = configuration("local", {"nanoclaw:settings": telegram("local")} | changes)
    registered = record("local", config, ("nanoclaw:credentials",))

    assert told(registered).channels.telegram is not None


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        pytest.param({"nanoclaw:apiToken": "told"}, "nanoclaw:apiToken is in the stack file as plain text", id="token"),
        pytest.param(
            {"nanoclaw:credentials": {"ANTHROPIC_API_KEY": "sk"}},
            "nanoclaw:credentials is in the stack file as plain text.* --path nanoclaw:credentials.ANTHROPIC_API_KEY`",
            id="credentials",
        ),
        pytest.param(
            {"nanoclaw:credentials": {"OPENAI_KEY": "sk"}},
            "nanoclaw:credentials.OPENAI_KEY is passed on to nobody",
            id="key",
        ),
        pytest.param(
            {"nanoclaw:settings": telegram("local"), "nanoclaw:credentials": {"ANTHROPIC_API_KEY": "sk"}},
            "channels.telegram is set, and there is no TELEGRAM_BOT_TOKEN; run `pulumi config set --secret --path "
            "nanoclaw:credentials.TELEGRAM_BOT_TOKEN`, or name a Secret",
            id="no token for a channel",
        ),
    ],
)
def test_secrets_that_would_leak_or_be_useless_are_refused(changes, told):
    with pytest.raises(AssertionError, match=told):
        record("local", configuration("local", changes))
