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


def test_a_prompt_of_no_messages_has_a_blank_line():
    assert prompt([]) == "<messages>\n\n</messages>"


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        pytest.param("you & me", "you &amp; me", id="ampersand"),
        pytest.param("a < b", "a &lt; b", id="less than"),
        pytest.param("a > b", "a &gt; b", id="greater than"),
        pytest.param('"quoted"', "&quot;quoted&quot;", id="quote"),
        pytest.param('<a href="x&amp;y">', "&lt;a href=&quot;x&amp;amp;y&quot;&gt;", id="all of them"),
        pytest.param("it's plain, isn't it?", "it's plain, isn't it?", id="nothing to escape"),
        pytest.param("", "", id="nothing at all"),
    ],
)
def test_markup_is_escaped_in_text_and_sender(text, escaped):
    assert f'<message sender="{escaped}" time="2026-02-23T12:00:00.005Z">{escaped}</message>' in prompt(
        [Line(text, NOON, text)]
    )


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        pytest.param(None, None, id="no result"),
        pytest.param("", None, id="an empty result"),
        pytest.param("Hello, Ann", "Hello, Ann", id="plain"),
        pytest.param("  hi \n", "hi", id="space around"),
        pytest.param("a <internal>hm</internal> b", "a  b", id="one thought"),
        pytest.param("<internal>first\n\nsecond</internal>\nb", "b", id="a thought of several lines"),
        pytest.param("a<internal>x</internal>b<internal>y</internal>c", "abc", id="several thoughts"),
        pytest.param("<internal>secret</internal>", None, id="nothing but a thought"),
        pytest.param("<internal>open", "<internal>open", id="a thought without an end"),
        pytest.param("<internal>x</internal>b <internal>", "b <internal>", id="a thought without an end behind one"),
        pytest.param("<internal>" * 200_000, "<internal>" * 200_000, id="more openings than time to look behind each"),
    ],
)
def test_what_the_chat_may_see(result, expected):
    assert visible(result) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("@Andy hello", True, id="at the start"),
        pytest.param("@ANDY, you there?", True, id="in capitals"),
        pytest.param("  \n@andy hi", True, id="behind space"),
        pytest.param("@Andy", True, id="alone"),
        pytest.param("@Andy's list", True, id="before an apostrophe"),
        pytest.param("@Andyman", False, id="a longer name"),
        pytest.param("hello @Andy", False, id="in the middle"),
        pytest.param("Andy, hello", False, id="without its sign"),
        pytest.param("", False, id="nothing"),
    ],
)
def test_the_trigger_stands_at_the_start_as_a_word(text, expected):
    assert addresses(text, "Andy") is expected


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        pytest.param("C.3", "@C.3 hello", True, id="a dot"),
        pytest.param("C.3", "@Cx3 hello", False, id="a dot is no other letter"),
        pytest.param("Zoë", "@zoË hello", True, id="letters of any language"),
        pytest.param("Zoë", "@Zoëlle hello", False, id="a longer name of any language"),
    ],
)
def test_a_name_is_meant_letter_by_letter(name, text, expected):
    assert addresses(text, name) is expected
