"""The wire format survives the trip, and says exactly what NanoClaw v1 says."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from echo_agent import output
from nanoclaw_runtime.contract import wire

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
SECRET = "sk-very-secret-value"

INPUTS = st.builds(
    wire.ContainerInput,
    prompt=TEXT,
    session_id=st.none() | TEXT,
    group_folder=TEXT,
    chat_jid=TEXT,
    is_main=st.booleans(),
    is_scheduled_task=st.none() | st.booleans(),
    assistant_name=st.none() | TEXT,
    secrets=st.none() | st.dictionaries(TEXT, TEXT),
)
OUTPUTS = st.builds(
    wire.ContainerOutput,
    status=st.sampled_from(wire.OutputStatus),
    result=st.none() | TEXT,
    new_session_id=st.none() | TEXT,
    error=st.none() | TEXT,
)


@given(INPUTS)
def test_input_survives_the_trip(given_input):
    assert wire.ContainerInput.model_validate_json(given_input.encode()) == given_input


@given(OUTPUTS)
def test_output_survives_the_trip_on_one_line(answer):
    line = answer.model_dump_json(by_alias=True)
    assert "\n" not in line
    assert wire.ContainerOutput.model_validate_json(line) == answer


@given(TEXT)
def test_a_follow_up_survives_the_trip(text):
    assert json.loads(wire.FollowUp(text=text).encode()) == {"type": "message", "text": text}


def test_input_has_the_fields_of_nanoclaw_and_no_null():
    full = wire.ContainerInput(
        prompt="p",
        session_id="s",
        group_folder="main",
        chat_jid="j",
        is_main=True,
        is_scheduled_task=True,
        assistant_name="Andy",
        secrets={"ANTHROPIC_API_KEY": "k"},
    )
    assert json.loads(full.encode()) == {
        "prompt": "p",
        "sessionId": "s",
        "groupFolder": "main",
        "chatJid": "j",
        "isMain": True,
        "isScheduledTask": True,
        "assistantName": "Andy",
        "secrets": {"ANTHROPIC_API_KEY": "k"},
    }
    least = wire.ContainerInput(prompt="p", group_folder="main", chat_jid="j", is_main=False)
    assert json.loads(least.encode()) == {"prompt": "p", "groupFolder": "main", "chatJid": "j", "isMain": False}


def test_secrets_do_not_show_when_an_input_is_printed():
    shown = wire.ContainerInput(prompt="p", group_folder="g", chat_jid="j", is_main=True, secrets={"KEY": SECRET})
    assert SECRET not in repr(shown) + str(shown)


def test_fields_a_newer_agent_adds_are_ignored():
    answer = wire.ContainerOutput.model_validate_json('{"status": "success", "result": null, "usage": {"tokens": 3}}')
    assert answer == wire.ContainerOutput(status=wire.OutputStatus.SUCCESS)


@pytest.mark.parametrize("line", ['{"result": "x"}', '{"status": "done"}', '{"status": "success", "result": 3}', "[]"])
def test_what_is_no_output_is_refused(line):
    with pytest.raises(ValidationError):
        wire.ContainerOutput.model_validate_json(line)


@given(
    st.lists(
        st.tuples(
            st.integers(10**12, 10**13 - 1), st.text("0123456789abcdefghijklmnopqrstuvwxyz", min_size=4, max_size=4)
        )
    )
)
def test_name_order_of_follow_ups_is_time_order(stamps):
    files = [wire.input_file(*stamp) for stamp in stamps]
    assert sorted(files) == [wire.input_file(*stamp) for stamp in sorted(stamps)]


def test_the_echo_agent_prints_the_markers_of_the_contract():
    assert (output.START, output.END) == (wire.OUTPUT_START, wire.OUTPUT_END)
