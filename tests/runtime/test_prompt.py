"""Prompt and answer texts, as NanoClaw has them."""

from datetime import UTC, datetime

import pytest

from nanoclaw_runtime.domain.prompt import Line, addresses, prompt, visible

NOON = datetime(2026, 2, 23, 12, 0, 0, 5000, tzinfo=UTC)


def test_a_prompt_is_one_message_a_line():
    assert prompt([Line("Ann", NOON, "hi"), Line("Bob", NOON, "yo")]) == (
        "<messages>\n"
        '<message sender="Ann" time="2026-02-23T12:00:00.005Z">hi</message>\n'
        '<message sender="Bob" time="2026-02-23T12:00:00.005Z">yo</message>\n'
        "</messages>"
    )


def test_markup_is_escaped_in_text_and_sender():
    text = prompt([Line('"<A>"', NOON, 'a < b && c > "d"')])
    assert 'sender="&quot;&lt;A&gt;&quot;"' in text
    assert "a &lt; b &amp;&amp; c &gt; &quot;d&quot;" in text


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (None, None),
        ("", None),
        ("  hi  ", "hi"),
        ("<internal>secret</internal>", None),
        ("a<internal>x\ny</internal>b<internal>z</internal>", "ab"),
        ("<internal>open", "<internal>open"),
    ],
)
def test_what_the_chat_may_see(result, expected):
    assert visible(result) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("@Andy hello", True),
        ("  @andy", True),
        ("@ANDY, you there?", True),
        ("@Andy's list", True),
        ("@Andyman", False),
        ("hello @Andy", False),
        ("Andy", False),
    ],
)
def test_the_trigger_stands_at_the_start_as_a_word(text, expected):
    assert addresses(text, "Andy") is expected
