"""Lines out of chunks, however they are cut."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as some

from nanoclaw_runtime.kube.lines import LineSplitter


@given(lines=some.lists(some.binary(min_size=1).map(lambda line: line.replace(b"\n", b"x"))), data=some.data())
def test_any_chunking_gives_the_same_lines(lines: list[bytes], data: some.DataObject) -> None:
    text = b"".join(line + b"\n" for line in lines)
    cuts = sorted(data.draw(some.lists(some.integers(0, len(text)), max_size=8)))
    splitter = LineSplitter()
    found = []
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        found += splitter.feed(text[start:end])
    assert found == [line for line in lines if line.strip()]


def test_a_line_without_its_end_is_kept_back() -> None:
    splitter = LineSplitter()
    assert splitter.feed(b"whole\nhal") == [b"whole"]
    assert splitter.feed(b"f") == []
    assert splitter.feed(b"\n") == [b"half"]


def test_a_line_of_many_megabytes_passes() -> None:
    splitter = LineSplitter()
    for _ in range(160):
        assert splitter.feed(b"x" * 65536) == []
    assert [len(line) for line in splitter.feed(b"\n")] == [160 * 65536]
