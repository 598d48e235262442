"""What the stack declares of its guardrails; what they refuse is `tests/apiserver`."""

from __future__ import annotations

import pytest

from nanoclaw_infra.guardrails.expressions import folders_by_volume, listed, own_claims, text
from nanoclaw_runtime.contract.claims import Layout
from nanoclaw_runtime.contract.config import Transport
from tests.infra.recording import configuration, manifests, record, settings


def declared(namespace="chat", **guardrails):
    changed = settings("local") | {"guardrails": guardrails}
    changed["namespace"] = {"name": namespace}
    found = manifests(record("local", configuration("local", {"nanoclaw:settings": changed})))
    return [each for each in found if each["apiVersion"].startswith("admissionregistration")]


def test_a_stack_that_does_not_ask_gets_no_policies():
    assert declared() == []


def test_policies_are_named_for_the_namespace_and_bound_to_it_alone():
    found = declared(enabled=True)
    names = {each["metadata"]["name"] for each in found}
    other = {each["metadata"]["name"] for each in declared(namespace="chat-2", enabled=True)}

    policies = ("agent-workloads", "agent-pods", "agent-changes", "controller-changes")
    assert names == {f"nanoclaw-{each}.chat" for each in policies}
    assert not names & other
    for binding in found:
        if binding["kind"] == "ValidatingAdmissionPolicyBinding":
            selected = binding["spec"]["matchResources"]["namespaceSelector"]["matchLabels"]
            assert selected == {"kubernetes.io/metadata.name": "chat"}
            assert binding["spec"]["policyName"] == binding["metadata"]["name"]


@pytest.mark.parametrize("action", ["Deny", "Warn", "Audit"])
def test_what_a_violation_does_is_the_stacks_choice_and_a_broken_policy_refuses(action):
    found = declared(enabled=True, failureAction=action)

    for each in found:
        if each["kind"] == "ValidatingAdmissionPolicyBinding":
            assert each["spec"]["validationActions"] == [action]
        else:
            assert each["spec"]["failurePolicy"] == "Fail"


def test_every_rule_says_what_to_do():
    rules = [rule for each in declared(enabled=True) for rule in each["spec"].get("validations", [])]

    assert len(rules) > 20
    assert all(";" in rule["message"] or "`" in rule["message"] for rule in rules)
    assert all(len(rule["message"]) < 400 for rule in rules)
    assert all(
        "gent" in each["metadata"]["annotations"]["kubernetes.io/description"] for each in declared(enabled=True)
    )


def test_the_places_of_a_group_come_from_the_contract():
    assert own_claims(Layout.PER_GROUP) == (
        "['nanoclaw-folder-' + variables.group, (variables.group == 'main' ? 'nanoclaw-project' : 'nanoclaw-global')]"
    )
    assert own_claims(Layout.PER_GROUP, Transport.BRIDGE) == "['nanoclaw-folder-' + variables.group]"
    assert folders_by_volume("/data") == (
        "{'nanoclaw-group-' + variables.group: '/data/groups/' + variables.folder, "
        "'nanoclaw-ipc-' + variables.group: '/data/data/ipc/' + variables.folder, "
        "'nanoclaw-sessions-' + variables.group: '/data/data/sessions/' + variables.folder + '/.claude', "
        "(variables.group == 'main' ? 'nanoclaw-project' : 'nanoclaw-global'): "
        "(variables.group == 'main' ? '/data/project' : '/data/groups/global')}"
    )


def test_text_is_quoted_for_cel():
    assert text(r"it's a \ b") == r"'it\'s a \\ b'"
    assert text("two\nlines") == r"'two\nlines'"
    assert listed([]) == "['']"
