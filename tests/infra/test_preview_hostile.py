"""Whatever a preview holds, its comment is harmless: text stays text, and secrets stay out."""

from __future__ import annotations

import base64
import json

from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from nanoclaw_infra.preview.command import review
from nanoclaw_infra.preview.comment import LONGEST

FOLDER = "nanoclaw.dev/folder"
SIGNATURE = "4dabf18193072939515e22adb298388d"

nasty = st.one_of(
    st.text(alphabet="`<>@#|[]()*_~!&;:/\\-\"' \n\r\tab\u202e\u200b\ud800\x00", max_size=40),
    st.sampled_from(
        [
            "@octocat",
            "```\n<script>alert(1)</script>",
            "--> <img src=x onerror=1>",
            "| a | b |",
            "` @all `",
            "[x](javascript:1)",
            "https://evil.example",
            "</sub>\n\n# Approved",
            "`" * 20,
        ]
    ),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | nasty,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(nasty, inner, max_size=3),
    max_leaves=8,
)


def step(op, kind, name, old, new):
    def state(manifest):
        metadata = {"name": name, "namespace": name, "annotations": {FOLDER: name}}
        return {"inputs": {"kind": kind, "metadata": metadata, **manifest}}

    states = {key: state(side) for key, side in (("oldState", old), ("newState", new)) if side is not None}
    return {"op": op, "urn": f"urn:pulumi:{name}::p::nanoclaw:{name}:X$kubernetes:core/v1:{kind}::{name}", **states}


def test_names_nobody_can_see_make_no_comment_too_long_to_be_taken():
    steps = [step("delete", "PersistentVolumeClaim", "\u200b" * 240 + str(number), {}, None) for number in range(400)]
    made = review(json.dumps({"steps": steps}))
    assert (made.status, len(made.text) <= LONGEST) == (1, True)


def test_a_preview_that_took_longer_than_the_world_is_no_preview():
    assert review(json.dumps({"steps": [], "duration": 10**400})).status == 2


@given(name=nasty, kind=nasty, value=json_values, other=json_values)
@settings(deadline=None)
def test_text_of_a_preview_is_never_markup(name, kind, value, other):
    tree = {
        "config": {"nanoclaw:settings": {"allowDataLoss": [name]}},
        "steps": [
            step("delete", "PersistentVolumeClaim", name, {}, None),
            step("replace", kind, name, {"spec": value}, {"spec": other}),
            step("update", "Role", name, {"rules": [{"verbs": [name]}]}, {"rules": [{"verbs": [kind]}]}),
            step("update", "ConfigMap", name, {"data": {name: json.dumps(value)}}, {"data": {name: json.dumps(other)}}),
            step("create", kind, name, None, {}),
        ],
        "diagnostics": [{"severity": "error", "message": name + kind}],
    }
    made = review(json.dumps(tree))

    assert len(made.text) <= LONGEST
    marker, *rest = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(made.text)
    assert marker.type == "html_block"
    assert marker.content.count("\n") == 1
    for token in rest:
        assert token.type not in {"html_block", "table_open", "blockquote_open", "code_block", "hr"}
        for inline in token.children or ():
            assert inline.type in {"text", "code_inline", "strong_open", "strong_close", "softbreak", "html_inline"}
            assert inline.type != "html_inline" or inline.content in {"<sub>", "</sub>", "<code>", "</code>"}
            assert inline.type != "text" or not set(inline.content) & set("@<[`\u202e\u200b")


@given(value=json_values)
@settings(deadline=None)
def test_any_json_is_answered_with_a_comment_and_a_status(value):
    for tree in (value, {"steps": value}, {"steps": [value], "config": value, "diagnostics": value}):
        made = review(json.dumps(tree))
        assert made.status in {0, 2}
        assert made.text.encode().startswith(b"<!-- nanoclaw-preview: ")


@given(text=st.text(max_size=200))
@settings(deadline=None)
def test_any_text_is_answered_with_a_comment(text):
    assert review(text).status in {0, 2}


secrets = st.text(alphabet="abcdefghijkABCDEFGHIJK0123456789+/\"'\\ $%é", min_size=3, max_size=60).map(
    lambda t: f"zq9{t}qz"
)


@given(secret=secrets, other=secrets)
@settings(deadline=None)
def test_a_secret_appears_nowhere_wherever_it_was(secret, other):
    def holding(text):
        return {
            "data": {"config.json": json.dumps({"apiKey": text, "list": [{"password": text}]}), "plain": f"a {text} b"},
            "spec": {"env": [{"name": "X_TOKEN", "value": text}], "command": ["run", text]},
            "marked": {SIGNATURE: "1b47061264138c4ac30d75fd1eb44270", "value": {"inner": text}},
        }

    encoded = base64.b64encode(secret.encode()).decode()
    tree = {
        "config": {"nanoclaw:credentials": json.dumps({"ANTHROPIC_API_KEY": secret}), "nanoclaw:apiToken": other},
        "steps": [
            step(
                "update", "Secret", "a", {"data": {"k": encoded}}, {"data": {"k": encoded}, "stringData": {"k": other}}
            ),
            step("update", "ConfigMap", "b", holding(secret), holding(other)),
            step("replace", "Pod", f"pod-{secret}", holding(other), {}),
            step("delete", "PersistentVolumeClaim", f"claim {secret}", {}, None),
        ],
        "diagnostics": [{"severity": "error", "message": f"error: {secret} and {encoded} are wrong"}],
    }
    made = review(json.dumps(tree))

    shown = made.text.replace("\\\\", "\\")
    for hidden in (secret, other, encoded):
        assert hidden not in made.text
        assert hidden not in shown
    assert "[secret]" in made.text


def test_keys_are_known_by_their_looks_where_nothing_else_tells():
    looks = ["sk-ant-api03-abcdefgh", "123456789:AAabcdefghijklmnopqrstuvwxyz_012345", "ghp_abcdefghij0123456789"]
    address = "https://somebody:open-sesame@registry.example/"
    made = review("", stack="dev", log=" ".join([*looks, address]))

    assert not any(each in made.text for each in looks)
    assert "open-sesame" not in made.text
    assert "https://[secret]@registry.example/" in made.text
