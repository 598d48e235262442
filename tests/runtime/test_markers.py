"""Outputs are found whatever the chunking, the noise and the cuts of the log."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanoclaw_runtime.contract.wire import OUTPUT_END, OUTPUT_START
from nanoclaw_runtime.ipc.markers import CHUNK, LINE_COST, MOST_PENDING, MarkerParser


def output(result: str | None = "hi", **extra: object) -> bytes:
    body = json.dumps({"status": "success", "result": result} | extra)
    return f"{OUTPUT_START}\n{body}\n{OUTPUT_END}\n".encode()


def results(data: bytes) -> list[str | None]:
    parser = MarkerParser()
    return [found.result for found in parser.feed(data) + parser.close()]


def kubelet_log(stdout: bytes, foreign: bytes, at_chunk: int) -> bytes:
    """The merged log of a pod: `foreign`, a line of stderr, lands behind chunk `at_chunk` of the JSON line."""
    start, body, end = stdout.splitlines(keepends=True)
    cut = at_chunk * CHUNK
    return start + body[:cut] + foreign + body[cut:] + end


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(b"", [], id="nothing"),
        pytest.param(b"npm notice\n" + output() + b"bye\n", ["hi"], id="noise around"),
        pytest.param(output("a") + output("b"), ["a", "b"], id="two in order"),
        pytest.param(output(None), [None], id="null result"),
        pytest.param(output()[:-1], ["hi"], id="no newline at the very end"),
        pytest.param(output().replace(b"\n", b"\r\n"), ["hi"], id="carriage returns"),
        pytest.param(output(f"say {OUTPUT_END} twice"), [f"say {OUTPUT_END} twice"], id="end marker in the text"),
        pytest.param(output().replace(b"\n{", b"\nstderr line\n{"), ["hi"], id="foreign line before the JSON"),
        pytest.param(output().replace(b"}\n", b"}\nstderr line\n"), ["hi"], id="foreign line behind the JSON"),
        pytest.param(output().replace(b'\n{"', b'\nno newline{"'), ["hi"], id="foreign text before the JSON"),
        pytest.param(b"no newline" + output(), ["hi"], id="foreign text before the start marker"),
        pytest.param(output().replace(b"\n{", b'\n{"level":"info"}\n{'), ["hi"], id="foreign JSON before ours"),
        pytest.param(f"{OUTPUT_START}\nnot json\n{OUTPUT_END}\n".encode() + output(), ["hi"], id="junk between"),
        pytest.param(f"{OUTPUT_START}\nlost".encode() + b"\n" + output(), ["hi"], id="start without end"),
        pytest.param(f"{OUTPUT_END}\n".encode() + output(), ["hi"], id="end without start"),
        pytest.param(output("né 🐈"), ["né 🐈"], id="multi-byte"),
        pytest.param(output().replace(b"hi", rb"half \ud83d pair"), ["half � pair"], id="half a surrogate pair"),
        pytest.param(output().replace(b'"success"', b'"perhaps"') + output("b"), ["b"], id="unknown status"),
        pytest.param(output().replace(b'"hi"', b"5") + output("b"), ["b"], id="result of a wrong type"),
    ],
)
def test_outputs_are_found(data, expected):
    assert results(data) == expected


@given(st.data())
def test_chunking_does_not_matter(data):
    stream = b"noise\n" + output("é" * 30) + b"stderr\n" + output(None) + output("z", newSessionId="s")
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    parser = MarkerParser()
    found = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += parser.feed(stream[start:end])
    assert [item.result for item in found + parser.close()] == ["é" * 30, None, "z"]


def test_a_long_output_may_come_in_one_piece_with_its_start_and_without_its_end():
    stream, parser = output("x" * 100_000), MarkerParser()
    assert parser.feed(stream[:70_000]) == []
    assert [found.result for found in parser.feed(stream[70_000:])] == ["x" * 100_000]


@pytest.mark.parametrize("at_chunk", [1, 2, 3])
@pytest.mark.parametrize(
    "foreign",
    [b"one line\n", b"one\ntwo\nthree\n", b'{"level":"info"}\n'],
    ids=["a line", "three lines", "json"],
)
def test_a_long_line_cut_by_the_log_is_put_together(at_chunk, foreign):
    text = "x" * (4 * CHUNK)
    assert results(kubelet_log(output(text), foreign, at_chunk)) == [text]


def test_foreign_lines_at_several_cuts_of_one_line():
    text = "y" * (4 * CHUNK)
    log = kubelet_log(output(text), b"late\n", 3)
    cut = len(OUTPUT_START) + 1 + CHUNK
    assert results(log[:cut] + b"early\n" + log[cut:]) == [text]


@given(st.binary(max_size=300))
def test_no_bytes_upset_the_parser(junk):
    parser = MarkerParser()
    parser.feed(f"{OUTPUT_START}\n".encode() + junk)
    parser.feed(b"\n" + f"{OUTPUT_END}\n".encode())
    assert [found.result for found in parser.feed(b"\n" + output())] == ["hi"]


def test_an_endless_line_without_a_marker_is_not_kept():
    parser = MarkerParser()
    for _ in range(64):
        parser.feed(b"x" * CHUNK)
    assert len(parser._partial) <= 2 * CHUNK
    assert [found.result for found in parser.feed(b"\n" + output())] == ["hi"]


def test_an_output_of_endless_empty_lines_is_not_kept():
    parser = MarkerParser()
    parser.feed(f"{OUTPUT_START}\n".encode())
    for _ in range(100):
        parser.feed(b"\n" * 10_000)
    assert len(parser._inside) <= MOST_PENDING // LINE_COST + 1
    assert [found.result for found in parser.feed(f"{OUTPUT_END}\n".encode() + output())] == ["hi"]


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b'{"', id="short beginnings"),
        pytest.param(b'{"' + b"x" * CHUNK + b"}", id="long ones with an end"),
        pytest.param(b'{"' + b"x" * CHUNK, id="long ones without"),
    ],
)
def test_lines_that_all_might_begin_an_output_cost_little(line):
    lines = (line + b"\n") * (2 * 1024 * 1024 // len(line))
    begun = time.process_time()
    assert results(f"{OUTPUT_START}\n".encode() + lines + f"{OUTPUT_END}\n".encode() + output()) == ["hi"]
    assert time.process_time() - begun < 10


def test_dropped_outputs_are_counted():
    parser = MarkerParser()
    parser.feed(f"{OUTPUT_START}\nnonsense\n{OUTPUT_END}\n".encode())
    assert parser.dropped == 1
