"""The comment on previews the real engine printed, cut down to the fields that are read.

`tests/engine/test_preview.py` makes such previews; here are the details that need no engine.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nanoclaw_infra.preview import main
from nanoclaw_infra.preview.command import review
from nanoclaw_infra.preview.comment import LONGEST
from nanoclaw_infra.preview.document import LARGEST
from nanoclaw_runtime.contract import claims
from nanoclaw_runtime.contract.claims import Layout

RECORDED = Path(__file__).parent / "previews"
SIGNATURE = "4dabf18193072939515e22adb298388d"


def recorded(name):
    return json.loads((RECORDED / f"{name}.json").read_text())


def told(tree):
    return review(json.dumps(tree))


def allowing(tree, *lines):
    settings = json.loads(tree["config"]["nanoclaw:settings"])
    tree["config"]["nanoclaw:settings"] = json.dumps(settings | {"allowDataLoss": list(lines)})
    return tree


def urn(kind, name, component="nanoclaw:storage:GroupClaims"):
    chain = f"nanoclaw:installation:Installation${component}$kubernetes:core/v1:{kind}"
    return f"urn:pulumi:dev::nanoclaw::{chain}::{name}"


def step(op, kind, name, old=None, new=None, *, flags=None, namespace="nanoclaw-dev", **more):
    """One step; `old` and `new` are what the manifests say besides their names."""

    def state(manifest):
        head = {"kind": kind, "metadata": {"name": name, "namespace": namespace}}
        return {"inputs": head | manifest, **(flags or {})}

    states = {key: state(side) for key, side in (("oldState", old), ("newState", new)) if side is not None}
    return {"op": op, "urn": urn(kind, name), **states, **more}


def document(*steps, **more):
    return {"config": {}, "steps": list(steps), "duration": 1, "changeSummary": {}, **more}


def claim(size="1Gi"):
    return {"spec": {"resources": {"requests": {"storage": size}}}}


def test_a_change_of_settings_is_told_field_by_field_within_the_document_it_is_in():
    made = told(recorded("settings-changed"))

    assert made.status == 0
    assert "### Stack `dev`: 2 changed, 1 replaced" in made.text
    assert '  - `data["config.json"].assistantName`: `Andy` → `Robin`\n' in made.text
    assert "`metadata.name`" not in made.text, "a generated name is no news"
    assert "  - may now `create` `persistentvolumeclaims`\n" in made.text
    assert "  - may now `patch` `deployments` of `apps`, only `nanoclaw-controller`\n" in made.text


def told_of_settings(before, after):
    """What is said of the controller's settings when they change so."""

    def data(settings):
        return {"data": {"config.json": json.dumps({"assistantName": "Andy", "switchDeadline": 90.0} | settings)}}

    made = step("replace", "ConfigMap", "nanoclaw-settings-1", data(before), data(after))
    for side in ("oldState", "newState"):
        made[side]["inputs"]["metadata"]["annotations"] = {"pulumi.com/autonamed": "true"}
    return told(document(made)).text


STARTS_ANEW = "settings: the controller starts anew with them; running sessions go on"
STAYS = "`nanoclaw export` first"
SWITCHES = [
    pytest.param(
        {"pattern": "job"},
        {"pattern": "statefulset"},
        "agents move from Jobs to StatefulSets: each group with its next session, those that run finish; claims stay",
        id="job-statefulset",
    ),
    pytest.param(
        {"pattern": "statefulset"},
        {"pattern": "job"},
        "agents move from StatefulSets to Jobs: each group with its next session, those that run finish; claims stay",
        id="statefulset-job",
    ),
    pytest.param(
        {"transport": "volume"},
        {"transport": "bridge"},
        "messages reach agents by a container beside each, no longer by volumes that all mount: idle sessions end at "
        "once, those that work finish or are ended after 90 s; claims stay, with the access modes they have",
        id="volume-bridge",
    ),
    pytest.param(
        {"transport": "bridge"},
        {"transport": "volume", "switchDeadline": "<img>"},
        "those that work finish or are ended after `runtime.switchDeadline`; claims stay",
        id="bridge-volume",
    ),
    pytest.param(
        {"pattern": "job"}, {"pattern": "nodelocal"}, f"nothing: data stays in the claims; {STAYS}", id="job-nodelocal"
    ),
    pytest.param(
        {"pattern": "nodelocal"}, {"pattern": "job"}, f"stays in the folders of the nodes; {STAYS}", id="nodelocal-job"
    ),
]


@pytest.mark.parametrize(("before", "after", "sentence"), SWITCHES)
def test_another_pattern_or_transport_reads_as_what_becomes_of_agents_and_data(before, after, sentence):
    made = told_of_settings(before, after)

    assert f"{STARTS_ANEW}; " in made
    assert sentence in made


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param({"pattern": "job"}, {"pattern": "job", "timezone": "UTC"}, id="another setting"),
        pytest.param({"pattern": "job"}, {"pattern": "<b>pods</b>"}, id="no pattern"),
        pytest.param({"transport": "volume"}, {"transport": ["bridge"]}, id="no transport"),
        pytest.param({}, {"pattern": "job", "transport": "volume"}, id="what an older version did not say"),
    ],
)
def test_of_settings_that_switch_nothing_nothing_more_is_said(before, after):
    assert f"{STARTS_ANEW}\n" in told_of_settings(before, after)


def test_data_at_risk_comes_before_everything_else_with_the_line_that_permits_it():
    made = told(recorded("group-removed"))

    assert made.status == 1
    parts = [line for line in made.text.splitlines() if line.startswith("#")]
    assert parts == ["### Stack `dev`: 1 changed, 3 deleted", "#### Data at risk: 3 not permitted", "#### Changed"]
    assert "it holds files and memory of group `family`" in made.text
    assert "allowDataLoss:\n  - PersistentVolumeClaim/nanoclaw-group-family\n" in made.text


def test_a_written_permission_is_found_and_one_for_nothing_is_told():
    claims = [f"PersistentVolumeClaim/nanoclaw-{kind}-family" for kind in ("group", "ipc", "sessions")]
    made = told(allowing(recorded("group-removed"), *claims, "Namespace/other"))

    assert made.status == 0
    assert made.text.count("- **Lost, permitted**: ") == 3
    assert "allowDataLoss:\n" not in made.text
    assert "permits what does not happen here: `Namespace/other`" in made.text


def test_one_missing_permission_is_enough_to_fail():
    made = told(allowing(recorded("group-removed"), "PersistentVolumeClaim/nanoclaw-group-family"))

    assert made.status == 1
    assert "Data at risk: 2 not permitted" in made.text


def test_permission_for_a_namespace_covers_what_is_in_it_and_no_other():
    renamed = recorded("namespace-renamed")
    assert told(renamed).status == 1
    assert told(allowing(renamed, "Namespace/nanoclaw-dev")).status == 0
    assert told(allowing(renamed, "Namespace/nanoclaw-dev-x")).status == 1


def test_a_namespace_that_goes_is_a_loss_though_its_claims_are_not_named():
    made = told(document(step("delete", "Namespace", "nanoclaw-dev", {})))

    assert made.status == 1
    assert "`Namespace/nanoclaw-dev` is deleted; it holds everything in it: all conversations" in made.text


def test_nothing_to_do_is_said():
    assert "### Stack `dev`: no changes" in review(json.dumps(document()), stack="dev").text


def test_what_is_protected_is_listed_once_and_nothing_is_said_to_be_lost():
    made = told(recorded("protected-group-removed"))

    assert made.status == 2
    assert made.text.count("- **Protected**: ") == 3
    assert "Lost" not in made.text
    assert "cannot be deleted" not in made.text, "one remedy says it for all"
    assert "- The stack protects this data" in made.text


def test_protection_of_an_engine_that_did_not_refuse_is_not_believed():
    tree = document(step("delete", "PersistentVolumeClaim", "nanoclaw-store", claim(), flags={"protect": True}))

    assert told(tree).status == 1


@pytest.mark.parametrize("flag", ["protect", "retainOnDelete"])
def test_protection_that_is_taken_away_is_told_though_the_engine_calls_it_no_change(flag):
    tree = document(step("same", "PersistentVolumeClaim", "nanoclaw-store", claim(), claim(), flags={flag: True}))
    assert "protected" not in told(tree).text

    tree["steps"][0]["newState"] |= {flag: False}
    made = told(tree)
    assert made.status == 0
    assert (
        "- **No longer protected**, so that a later change can delete it: `PersistentVolumeClaim/nanoclaw-store`"
        in (made.text)
    )


def test_what_is_retained_is_let_go_unless_its_namespace_is_deleted():
    kept = step("delete", "PersistentVolumeClaim", "nanoclaw-store", claim(), flags={"retainOnDelete": True})
    assert told(document(kept)).status == 0
    assert "- **Let go**: `PersistentVolumeClaim/nanoclaw-store` (the database" in told(document(kept)).text

    made = told(document(kept, step("delete", "Namespace", "nanoclaw-dev", {})))
    assert "- **Lost, not permitted**: `PersistentVolumeClaim/nanoclaw-store`" in made.text
    assert made.status == 1


def test_a_replacement_is_kept_only_when_both_sides_are_retained():
    tree = document(step("replace", "PersistentVolumeClaim", "nanoclaw-store", claim(), claim("2Gi")))
    tree["steps"][0]["newState"]["retainOnDelete"] = True

    assert told(tree).status == 1


@pytest.mark.parametrize("kind", ["ServiceAccount", "StatefulSet"])
def test_whatever_is_retained_is_data_too(kind):
    made = told(document(step("delete", kind, "theirs", {}, flags={"retainOnDelete": True})))

    assert f"- **Let go**: `{kind}/theirs` (data this program knows nothing of)" in made.text


@pytest.mark.parametrize(
    "claim_of",
    [
        *(pytest.param(each, id=each.name) for layout in Layout for each in claims.installation_claims(layout)),
        *(pytest.param(each, id=each.name) for layout in Layout for each in claims.group_claims(layout, "team")),
        *(pytest.param(each, id=each.name) for each in claims.gateway_claims()),
    ],
)
def test_what_every_claim_holds_is_known(claim_of):
    tree = {"metadata": {"name": claim_of.name, "annotations": claims.claim_annotations(claim_of)}, **claim()}
    made = told(document(step("delete", "PersistentVolumeClaim", claim_of.name, tree)))

    assert made.status == 1
    assert f"`PersistentVolumeClaim/{claim_of.name}` is deleted; it holds" in made.text
    assert "knows nothing" not in made.text


def test_a_changed_storage_class_is_told_in_plain_words():
    made = told(recorded("storage-class-changed"))

    assert made.status == 2
    assert "`spec.storageClassName`: `standard` → `fast`" in made.text
    assert "Data moves to another class by a new claim and a copy" in made.text
    assert "@@" not in made.text


def test_a_claim_that_grows_needs_no_permission():
    made = told(recorded("claim-grown"))

    assert made.status == 0
    assert "grows; nothing is lost" in made.text


def test_a_claim_that_shrinks_is_told():
    made = told(document(step("update", "PersistentVolumeClaim", "nanoclaw-store", claim("2Gi"), claim("1Gi"))))

    assert "would shrink, which Kubernetes refuses" in made.text


def test_other_templates_of_a_stateful_set_leave_its_claims():
    templates = [{"spec": {"volumeClaimTemplates": [{"metadata": {"name": name}}]}} for name in ("a", "b")]
    made = told(document(step("replace", "StatefulSet", "warm", *templates)))

    assert "its volumeClaimTemplates change: claims made from the old ones stay as they are" in made.text


def test_lists_of_named_things_are_matched_by_name():
    def pod(*containers):
        return {"spec": {"template": {"spec": {"containers": list(containers)}}}}

    old = pod({"name": "a", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]})
    new = pod({"name": "proxy"}, {"name": "a", "env": [{"name": "Y", "value": "3"}]})
    made = told(document(step("update", "Deployment", "theirs", old, new)))

    fields = [line.strip() for line in made.text.splitlines() if line.startswith("  - ")]
    start = "- `spec.template.spec.containers"
    assert fields == [
        f'{start}[a].env[X]`: removed `{{"name": "X", "value": "1"}}`',
        f"{start}[a].env[Y].value`: `2` → `3`",
        f'{start}[proxy]`: added `{{"name": "proxy"}}`',
    ]


def test_empty_selectors_are_shown_because_they_mean_everybody():
    old, new = ({"spec": {"ingress": rules}} for rules in ([], [{}]))
    made = told(document(step("update", "NetworkPolicy", "agents", old, new)))

    assert "`spec.ingress[]`: added `{}`" in made.text
    assert "who may reach whom changes" in made.text


def test_only_a_secrets_keys_are_shown():
    old, new = ({"stringData": {"token": {SIGNATURE: "x", "value": value}}} for value in ("hunter22", "hunter33"))
    made = told(document(step("update", "Secret", "nanoclaw-api-token", old, new)))

    assert "`stringData.token`: changed, secret" in made.text
    assert "the API accepts the new token at once" in made.text
    assert "hunter" not in made.text


def test_a_secret_only_the_engine_saw_change_is_told_by_its_path():
    hidden = {"data": "[secret]"}
    made = told(document(step("update", "Secret", "theirs", hidden, hidden, detailedDiff={"data.token": {}})))

    assert "`data.token`: changed, secret" in made.text


def test_a_replacement_told_in_several_steps_is_one():
    made = told(
        document(
            step("create-replacement", "ConfigMap", "a", None, {}),
            step("delete-replaced", "ConfigMap", "a", {}),
            step("delete-replaced", "ConfigMap", "b", {}),
        )
    )

    assert "### Stack `dev`: 1 replaced, 1 deleted" in made.text


def test_fields_of_newer_engines_are_no_trouble():
    tree = recorded("claim-grown") | {"novelty": [1], "diagnostics": None}
    tree["steps"][-1] |= {"why": {"not": None}, "detailedDiff": None}

    assert told(tree).status == 0


def test_an_operation_of_a_newer_engine_is_never_taken_for_harmless():
    made = told(document(step("obliterate", "Namespace", "nanoclaw-dev", {})))

    assert made.status == 2
    assert "an operation this version does not know; use a newer one. (`obliterate`)" in made.text


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        pytest.param("", "The preview is empty", id="empty"),
        pytest.param((RECORDED / "claim-grown.json").read_text()[:900], "cut off or damaged JSON", id="cut off"),
        pytest.param(
            "\x1b[1mPreviewing update (dev)", "The preview is no JSON; run `pulumi preview --json`", id="text"
        ),
        pytest.param('{"sequence": 1, "timestamp": 2}\n{"sequence": 2}\n', "is a stream of events", id="stream"),
        pytest.param('{"sequence": 1, "timestamp": 2}', "is a stream of events", id="stream of one"),
        pytest.param("[]", "JSON, but no object", id="list"),
        pytest.param(" " * (LARGEST + 1), "has more than 64 MiB", id="huge"),
        pytest.param("{}", "neither steps nor diagnostics", id="other JSON"),
        pytest.param('{"steps": 7}', "a field is not as the engine writes it. (`steps`)", id="wrong type"),
        pytest.param('{"steps": ' + "[" * 100_000, "cut off or damaged JSON", id="deep"),
        pytest.param('{"steps": [], "config": ' + "[" * 900 + "]" * 900 + "}", "nested too deeply", id="very deep"),
        pytest.param('{"steps": [], "duration": ' + "9" * 5000 + "}", "cut off or damaged JSON", id="long number"),
    ],
)
def test_whatever_is_no_preview_is_one_sentence(text, sentence):
    made = review(text, stack="dev")

    assert made.status == 2
    assert made.text.startswith("<!-- nanoclaw-preview: dev -->\n\n### There is no preview of stack `dev`\n\n")
    assert sentence in made.text.splitlines()[4]


def test_a_stacks_mistake_is_the_comment():
    made = told(recorded("mistake"))

    assert made.status == 2
    assert "stack 'dev' has one problem:\n  - nanoclaw:settings.controller.image: 'x' needs a tag" in made.text
    assert "unhandled error" not in made.text


def test_a_long_comment_is_cut_behind_the_data_and_says_what_is_missing():
    lost = [step("delete", "PersistentVolumeClaim", f"claim-{number}", claim()) for number in range(60)]
    many = [
        step("update", "ConfigMap", f"map-{number}", {"data": {"a": "x" * 900}}, {"data": {}}) for number in range(300)
    ]
    made = told(document(*many, *lost))

    assert len(made.text) <= LONGEST
    assert all(f"`PersistentVolumeClaim/claim-{number}`" in made.text for number in range(60))
    assert "**Left out, because a comment has at most 60000 characters: " in made.text
    assert made.text.rstrip().endswith("</sub>")


def test_even_a_thousand_losses_fit_by_name():
    names = [f"claim-{number}-{'x' * 200}" for number in range(1000)]
    made = told(document(*(step("delete", "PersistentVolumeClaim", name, claim()) for name in names)))

    assert made.status == 1
    assert len(made.text) <= LONGEST
    assert "Data at risk: 1000 not permitted" in made.text


def test_the_command_writes_the_comment_and_ends_with_its_status(tmp_path, capfdbinary):
    recorded_file = str(RECORDED / "group-removed.json")
    output = tmp_path / "comment.md"

    assert main([recorded_file, "--output", str(output)]) == 1
    assert output.read_text() == told(recorded("group-removed")).text
    assert main([recorded_file]) == 1
    assert capfdbinary.readouterr().out.decode() == output.read_text()


def test_an_engine_that_never_ran_leaves_its_log(tmp_path, capfdbinary):
    log = tmp_path / "log"
    log.write_text("error: get stack secrets manager: incorrect passphrase\n")

    assert main([str(tmp_path / "absent.json"), "--stack", "dev", "--log", str(log)]) == 2
    written = capfdbinary.readouterr().out.decode()
    assert "incorrect passphrase" in written
    assert "PULUMI_CONFIG_PASSPHRASE is not the one of this stack." in written
