"""What a call used, what that costs, and whether a group may call: numbers from bytes and moments."""

import contextlib
import json
import sqlite3
from datetime import UTC, date, datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanoclaw_runtime.contract.gateway import Limits, Price
from nanoclaw_runtime.domain.errors import StoreFailed
from nanoclaw_runtime.gateway.ledger import Entry, Ledger
from nanoclaw_runtime.gateway.limits import UNDER_WAY, Minutes, spent_too_much
from nanoclaw_runtime.gateway.usage import BODY_LIMIT, LINE_LIMIT, Counted, Usage, UsageReader, cost, price_of

STREAM = "\n".join(
    f"event: {event['type']}\ndata: {json.dumps(event, ensure_ascii=False)}\n"
    for event in (
        {
            "type": "message_start",
            "message": {
                "model": "claude-x",
                "usage": {
                    "input_tokens": 11,
                    "cache_creation_input_tokens": 2,
                    "cache_read_input_tokens": 3,
                    "output_tokens": 1,
                },
            },
        },
        {"type": "ping"},
        {"type": "content_block_delta", "delta": {"text": 'é "usage": {"output_tokens": 999}'}},
        {"type": "message_delta", "usage": {"output_tokens": 5}},
        {"type": "message_delta", "usage": {"output_tokens": 42}},
        {"type": "message_stop"},
    )
).encode()
WHOLE = json.dumps({"model": "claude-x", "usage": {"input_tokens": 11, "output_tokens": 42}}).encode()
DAY = date(2026, 11, 22)


def read(content_type, *chunks):
    reader = UsageReader(content_type)
    for chunk in chunks:
        reader.feed(chunk)
    reader.close()
    return reader.counted


def pieces(data, cuts):
    places = [0, *sorted(cuts), len(data)]
    return [data[begin:end] for begin, end in pairwise(places)]


@given(st.lists(st.integers(0, len(STREAM))), st.sampled_from([STREAM, STREAM.replace(b"\n", b"\r\n")]))
def test_a_stream_tells_its_usage_however_it_is_cut_into_pieces(cuts, stream):
    counted = read("text/event-stream; charset=utf-8", *pieces(stream, cuts))
    assert counted == Counted("claude-x", Usage(input=11, output=42, cache_write=2, cache_read=3))


@given(st.lists(st.integers(0, len(WHOLE))))
def test_an_answer_in_one_piece_tells_its_usage(cuts):
    assert read("application/json", *pieces(WHOLE, cuts)) == Counted("claude-x", Usage(input=11, output=42))


@given(st.lists(st.binary()), st.sampled_from(["text/event-stream", "application/json", "", "text/plain"]))
def test_bytes_that_mean_nothing_count_nothing_and_break_nothing(chunks, content_type):
    assert read(content_type, *chunks) == Counted()


@pytest.mark.parametrize(
    "usage",
    [None, [], "10", {"input_tokens": -1}, {"input_tokens": True}, {"input_tokens": 1e3}, {"input_tokens": 2**63}],
)
def test_a_usage_that_is_none_counts_nothing(usage):
    assert read("application/json", json.dumps({"usage": usage}).encode()).usage == Usage()


def test_of_a_stream_that_is_cut_off_each_piece_counts_as_a_token():
    begin, _, _ = STREAM.partition(b"event: message_delta")
    delta = b'data: {"type":"content_block_delta","delta":{"text":"x"}}\n'
    assert read("text/event-stream", begin, delta * 9).usage.output == 10


def test_lines_and_bodies_without_an_end_are_passed_over_and_not_kept():
    reader = UsageReader("text/event-stream")
    for _ in range(5):
        reader.feed(b"data: " + b"x" * LINE_LIMIT)
    assert len(reader._held) <= 2 * LINE_LIMIT + 12
    reader.feed(b"\n" + STREAM)
    reader.close()
    assert reader.counted.usage.output == 42
    assert read("application/json", b" " * BODY_LIMIT, WHOLE) == Counted()


def test_a_price_is_for_a_million_tokens_and_the_cache_has_its_usual_share():
    usage = Usage(input=1_000_000, output=100_000, cache_write=100_000, cache_read=1_000_000)
    assert cost(usage, Price(input=3, output=15)) == pytest.approx(3 + 1.5 + 0.375 + 0.3)
    assert cost(usage, Price(input=3, output=15, cache_write=0, cache_read=1)) == pytest.approx(3 + 1.5 + 1)


def test_the_longest_name_a_model_begins_with_has_its_price():
    prices = {name: Price(input=number, output=0) for number, name in enumerate(["claude", "claude-haiku", "gpt"])}
    assert price_of(prices, "claude-haiku-4-5") == prices["claude-haiku"]
    assert price_of(prices, "claude-sonnet") == prices["claude"]
    assert price_of(prices, "other") is None
    assert price_of({"": Price(input=1, output=1)}, "other") is not None


def called(minutes, folder, *moments, tokens=0):
    for moment in moments:
        minutes.begin(folder, moment)
        minutes.end(folder, tokens, moment)


def test_calls_a_minute_are_those_of_the_last_sixty_seconds():
    minutes, limits = Minutes(), Limits(requests_per_minute=2)
    called(minutes, "a", 100, 130)
    found = minutes.exceeded("a", limits, 140)
    assert (found.limit, found.seconds) == ("requests", 20)
    assert minutes.exceeded("b", limits, 140) is None
    assert minutes.exceeded("a", limits, 160) is None


def test_tokens_a_minute_come_back_when_enough_of_them_are_old():
    minutes, limits = Minutes(), Limits(tokens_per_minute=100)
    called(minutes, "a", 100, tokens=10)
    called(minutes, "a", 110, 120, tokens=60)
    assert minutes.exceeded("a", limits, 125).seconds == 45
    assert minutes.exceeded("a", limits, 169).seconds == 1
    assert minutes.exceeded("a", limits, 170) is None


@given(
    st.lists(st.tuples(st.floats(0, 300), st.integers(0, 50)), max_size=30).map(sorted),
    st.floats(300, 400),
    st.integers(1, 200),
)
def test_who_waits_as_long_as_told_may_call_and_not_much_earlier(calls, now, most):
    minutes, limits = Minutes(), Limits(tokens_per_minute=most, requests_per_minute=5)
    for moment, tokens in calls:
        called(minutes, "a", moment, tokens=tokens)
    waited = 0
    while (found := minutes.exceeded("a", limits, now)) is not None:
        assert found.seconds <= 60
        if found.seconds > 1:
            assert minutes.exceeded("a", limits, now + found.seconds - 1.01) is not None
        now += found.seconds
        waited += 1
    assert waited <= 2  # once for each of the two limits


def test_a_group_has_so_many_calls_under_way_and_not_more():
    minutes = Minutes()
    for _ in range(UNDER_WAY):
        assert minutes.exceeded("a", Limits(), 0) is None
        minutes.begin("a", 0)
    assert minutes.exceeded("a", Limits(), 1000).limit == "concurrent"
    minutes.end("a", 0, 1000)
    assert minutes.exceeded("a", Limits(), 1000) is None


def test_a_day_that_is_used_up_ends_at_midnight_utc():
    found = spent_too_much(5, Limits(cost_per_day=5), datetime(2026, 11, 22, 23, 59, 30, tzinfo=UTC))
    assert (found.limit, found.seconds, found.worth_waiting) == ("cost", 30, False)
    assert spent_too_much(4.99, Limits(cost_per_day=5), datetime.now(UTC)) is None
    assert spent_too_much(1e9, Limits(), datetime.now(UTC)) is None


def opened(file, today=DAY):
    errors = []
    ledger = Ledger.open(file, today, on_error=lambda: errors.append(1))
    return ledger, errors


def test_the_ledger_keeps_a_row_a_day_group_and_model(tmp_path):
    ledger, _ = opened(tmp_path / "usage.db")
    for folder, model in (("a", "x"), ("a", "x"), ("a", "y"), ("b", "x")):
        ledger.add(Entry(DAY, folder, model, Usage(1, 2, 3, 4), 0.5))
    assert (ledger.spent("a", DAY), ledger.spent("b", DAY), ledger.spent("c", DAY)) == (1.5, 0.5, 0)
    ledger.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "usage.db")) as found:
        rows = found.execute("SELECT * FROM usage ORDER BY folder, model").fetchall()
    day = str(DAY)
    assert rows == [
        (day, "a", "x", 2, 2, 4, 6, 8, 1),
        (day, "a", "y", 1, 1, 2, 3, 4, 0.5),
        (day, "b", "x", 1, 1, 2, 3, 4, 0.5),
    ]


def test_a_days_cost_survives_a_restart_and_the_next_day_begins_at_nothing(tmp_path):
    ledger, _ = opened(tmp_path / "usage.db")
    ledger.add(Entry(DAY, "a", "x", Usage(), 2.5))
    ledger.close()
    again, _ = opened(tmp_path / "usage.db")
    tomorrow = date(2026, 11, 23)
    assert (again.spent("a", DAY), again.spent("a", tomorrow)) == (2.5, 0)
    again.add(Entry(tomorrow, "a", "x", Usage(), 1))
    assert again.spent("a", tomorrow) == 1
    again.close()


def test_a_clock_that_is_set_back_does_not_begin_a_day_anew(tmp_path):
    ledger, _ = opened(tmp_path / "usage.db")
    ledger.add(Entry(DAY, "a", "x", Usage(), 2))
    ledger.add(Entry(date(2026, 11, 23), "a", "x", Usage(), 3))
    ledger.add(Entry(DAY, "a", "x", Usage(), 4))
    assert ledger.spent("a", DAY) == 6
    ledger.close()
    again, _ = opened(tmp_path / "usage.db", date(2026, 11, 23))
    assert (again.spent("a", DAY), again.spent("a", date(2026, 11, 23))) == (6, 3)
    again.close()


def test_nobody_waits_for_a_minute_that_is_to_come():
    minutes, limits = Minutes(), Limits(requests_per_minute=1, tokens_per_minute=1)
    called(minutes, "a", 10_000, tokens=5)
    assert minutes.exceeded("a", limits, 100) is None


@pytest.mark.parametrize("model", ["\ud800", "x" * 129, "a\nb", "", "a b"])
def test_what_is_no_name_of_a_model_is_no_label(model):
    told = {"model": model, "usage": {"input_tokens": 1}}
    assert read("application/json", json.dumps(told).encode()) == Counted("", Usage(input=1))


def test_days_long_past_are_dropped(tmp_path):
    ledger, _ = opened(tmp_path / "usage.db", date(2020, 1, 1))
    ledger.add(Entry(date(2020, 1, 1), "a", "x", Usage(), 1))
    ledger.close()
    again, _ = opened(tmp_path / "usage.db")
    assert again._connection.execute("SELECT COUNT(*) FROM usage").fetchone() == (0,)
    again.close()


def test_what_cannot_be_written_is_told_and_still_counts(tmp_path):
    ledger, errors = opened(tmp_path / "usage.db")
    ledger._connection.execute("DROP TABLE usage")
    ledger.add(Entry(DAY, "a", "x", Usage(), 1))
    assert ledger.spent("a", DAY) == 1
    ledger.close()
    assert errors == [1]


def test_a_file_that_is_no_database_is_refused_with_the_remedy(tmp_path):
    (tmp_path / "usage.db").write_bytes(b"something else" * 100)
    with pytest.raises(StoreFailed, match="check the gateway's claim"):
        opened(tmp_path / "usage.db")
