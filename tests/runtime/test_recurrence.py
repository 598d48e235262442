"""When tasks run: the schedules agents write, and the two odd days of a year."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanoclaw_runtime.domain.errors import TaskInvalid
from nanoclaw_runtime.domain.recurrence import first_run, following_run
from nanoclaw_runtime.domain.tasks import TaskKind

NOW = datetime(2026, 1, 1, tzinfo=UTC)  # a Thursday
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe")
HOUR = timedelta(hours=1)


def cron(expression, count=3, *, now=NOW, zone="UTC"):
    """The next runs on the zone's clocks."""
    runs = []
    for _ in range(count):
        now = following_run(TaskKind.CRON, expression, now=now, zone=zone)
        runs.append(now)
    return [f"{run.astimezone(ZoneInfo(zone)):%m-%d %H:%M}" for run in runs]


EXPRESSIONS = [
    pytest.param("0 9 * * 1-5", "01-01 09:00|01-02 09:00|01-05 09:00", id="working days"),
    pytest.param("*/20 * * * *", "01-01 00:20|01-01 00:40|01-01 01:00", id="steps"),
    pytest.param("5/20 * * * *", "01-01 00:05|01-01 00:25|01-01 00:45", id="steps from a minute"),
    pytest.param("10-30/10,55 0 * * *", "01-01 00:10|01-01 00:20|01-01 00:30", id="a list of ranges"),
    pytest.param("0 0 1 jan,JUL *", "07-01 00:00|01-01 00:00|07-01 00:00", id="names of months"),
    pytest.param("0 0 * * Sun", "01-04 00:00|01-11 00:00|01-18 00:00", id="names of days"),
    pytest.param("0 0 * * 7", "01-04 00:00|01-11 00:00|01-18 00:00", id="7 is Sunday, too"),
    pytest.param("0 0 * * 5-7", "01-02 00:00|01-03 00:00|01-04 00:00", id="a range to Sunday"),
    pytest.param("0 0 L * *", "01-31 00:00|02-28 00:00|03-31 00:00", id="last day of the month"),
    pytest.param("0 0 * * 5L", "01-30 00:00|02-27 00:00|03-27 00:00", id="last Friday of the month"),
    pytest.param("0 0 * * 1#2", "01-12 00:00|02-09 00:00|03-09 00:00", id="second Monday"),
    pytest.param("0 0 13 * ?", "01-13 00:00|02-13 00:00|03-13 00:00", id="a question mark restricts nothing"),
    pytest.param("0 0 13 * 5", "01-02 00:00|01-09 00:00|01-13 00:00", id="either of two days"),
    pytest.param("0 0 */10 * 5", "01-02 00:00|01-09 00:00|01-11 00:00", id="a step restricts days"),
    pytest.param("30 0 9 * * *", "01-01 09:00|01-02 09:00|01-03 09:00", id="seconds in front"),
    pytest.param("*/10 * * * * *", "01-01 00:01|01-01 00:02|01-01 00:03", id="never more than once a minute"),
    pytest.param("0 0 29 2 *", "02-29 00:00|02-29 00:00|02-29 00:00", id="once in four years"),
    pytest.param("  0  9\t* * *  ", "01-01 09:00|01-02 09:00|01-03 09:00", id="blanks"),
    pytest.param("@hourly", "01-01 01:00|01-01 02:00|01-01 03:00", id="hourly"),
    pytest.param("@Daily", "01-02 00:00|01-03 00:00|01-04 00:00", id="daily"),
    pytest.param("@weekly", "01-04 00:00|01-11 00:00|01-18 00:00", id="weekly"),
    pytest.param("@monthly", "02-01 00:00|03-01 00:00|04-01 00:00", id="monthly"),
    pytest.param("@yearly", "01-01 00:00|01-01 00:00|01-01 00:00", id="yearly"),
    pytest.param("@weekdays", "01-02 00:00|01-05 00:00|01-06 00:00", id="weekdays"),
    pytest.param("@weekends", "01-03 00:00|01-04 00:00|01-10 00:00", id="weekends"),
]


@pytest.mark.parametrize(("expression", "runs"), EXPRESSIONS)
def test_an_expression_names_the_moments_agents_mean(expression, runs):
    assert cron(expression) == runs.split("|")


def test_hours_are_those_of_the_installation():
    assert first_run(TaskKind.CRON, "0 9 * * *", now=NOW, zone="America/New_York") == NOW.replace(hour=14)
    assert first_run(TaskKind.CRON, "0 9 * * *", now=NOW, zone="Asia/Kolkata") == NOW.replace(hour=3, minute=30)


ODD_DAYS = [
    pytest.param("30 2 * * *", "Europe/Berlin", "2026-03-28T12", "03-29 03:00|03-30 02:30", id="in the gap: behind it"),
    pytest.param("*/15 2 * * *", "Europe/Berlin", "2026-03-28T12", "03-29 03:00|03-30 02:00", id="several: once"),
    pytest.param("15 2 * * *", "America/New_York", "2026-03-07T12", "03-08 03:00|03-09 02:15", id="gap in America"),
    pytest.param("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T12", "10-04 02:30|10-05 02:15", id="half an hour"),
    pytest.param("0 1,2,3 * * *", "Europe/Berlin", "2026-03-28T23", "03-29 01:00|03-29 03:00|03-30 01:00", id="merged"),
    pytest.param("30 2 * * *", "Europe/Berlin", "2026-10-24T12", "10-25 02:30|10-26 02:30", id="repeated: once"),
    pytest.param("*/30 2 * * *", "Europe/Berlin", "2026-10-24T12", "10-25 02:00|10-25 02:30|10-26 02:00", id="step"),
    pytest.param("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T12", "04-05 01:45|04-06 01:45", id="half repeated"),
    pytest.param(
        "0 */2 * * *", "Europe/Berlin", "2026-10-24T21", "10-25 00:00|10-25 02:00|10-25 04:00", id="even hours"
    ),
    pytest.param("0 0 * * *", "Africa/Cairo", "2026-04-23T12", "04-24 01:00|04-25 00:00", id="no midnight"),
]


@pytest.mark.parametrize(("expression", "zone", "now", "runs"), ODD_DAYS)
def test_a_named_hour_comes_once_on_odd_days(expression, zone, now, runs):
    expected = runs.split("|")
    assert cron(expression, len(expected), now=datetime.fromisoformat(f"{now}:00Z"), zone=zone) == expected


@pytest.mark.parametrize("day", ["2026-03-29", "2026-10-25"])
def test_every_hour_is_every_hour_that_passes(day):
    now = datetime.fromisoformat(f"{day}T00:00Z") - 3 * HOUR
    for _ in range(8):
        run = first_run(TaskKind.CRON, "0 * * * *", now=now, zone="Europe/Berlin")
        assert run == now + HOUR
        now = run


def test_a_run_that_ends_in_the_repeated_hour_does_not_repeat_it():
    ended = datetime(2026, 10, 25, 1, 10, tzinfo=UTC)  # 02:10 for the second time
    assert cron("30 2 * * *", 1, now=ended, zone="Europe/Berlin") == ["10-26 02:30"]


NEVER = ["0 0 30 2 *", "0 0 31 2,4,6,9,11 *", "0 0 0 30 2 ?", "0 0 */31 * 1#5,1#0", "0 0 30,31 feb *"]
NO_EXPRESSIONS = [
    "", " ", "0", "* * * *", "* * * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * 32 * *", "* * * 13 *",
    "* * * * 8", "*/0 * * * *", "5-1 * * * *", "a * * * *", "* * * foo *", "0 0 L-2 * *", "@never", "@", "- * * * *",
    ", * * * *", "1,, * * * *", "1/ * * * *", "٣ * * * *", f"{'9' * 100} * * * *", f"{'1,' * 5000}1 * * * *",
]  # fmt: skip


@pytest.mark.parametrize("expression", NEVER + NO_EXPRESSIONS)
def test_an_expression_nobody_can_follow_is_refused(expression):
    with pytest.raises(TaskInvalid, match=r"^value: '.* as cron .*; "):
        first_run(TaskKind.CRON, expression, now=NOW, zone="Europe/Berlin")


@pytest.mark.parametrize(
    "text", ["abc", "0", "-5", "1.5", "", " 5", "5 ", "+5", "1e3", "\u0665", "000", "9" * 300, "9" * 15]
)
def test_an_interval_is_a_positive_whole_number_of_milliseconds(text):
    with pytest.raises(TaskInvalid, match="as interval"):
        first_run(TaskKind.INTERVAL, text, now=NOW, zone="UTC")


def test_an_interval_counts_from_the_end_of_the_run():
    assert first_run(TaskKind.INTERVAL, "3600000", now=NOW, zone="UTC") == NOW + HOUR
    assert following_run(TaskKind.INTERVAL, "3600000", now=NOW + 7 * HOUR, zone="UTC") == NOW + 8 * HOUR


def test_a_short_interval_runs_once_a_minute():
    assert first_run(TaskKind.INTERVAL, "1", now=NOW, zone="UTC") == NOW + timedelta(milliseconds=1)
    assert following_run(TaskKind.INTERVAL, "1", now=NOW, zone="UTC") == NOW + timedelta(minutes=1)


MOMENTS = [
    pytest.param("2026-07-01T15:30:00", "2026-07-01T13:30", id="in the installation's zone"),
    pytest.param("2026-07-01 15:30", "2026-07-01T13:30", id="with a blank"),
    pytest.param("2026-07-01T15:30:00Z", "2026-07-01T15:30", id="in UTC"),
    pytest.param("2026-07-01T15:30:00.250+05:30", "2026-07-01T10:00:00.250", id="with an offset"),
    pytest.param("2020-01-01T00:00:00", "2019-12-31T23:00", id="in the past"),
    pytest.param("2026-03-29T02:30:00", "2026-03-29T01:00", id="in a gap"),
    pytest.param("2026-10-25T02:30:00", "2026-10-25T00:30", id="in a repeated hour"),
]


@pytest.mark.parametrize(("text", "moment"), MOMENTS)
def test_a_single_moment_is_read_in_the_zone_of_the_installation(text, moment):
    expected = datetime.fromisoformat(moment).replace(tzinfo=UTC)
    assert first_run(TaskKind.ONCE, text, now=NOW, zone="Europe/Berlin") == expected
    assert following_run(TaskKind.ONCE, text, now=NOW, zone="Europe/Berlin") is None


@pytest.mark.parametrize("text", ["", "soon", "2026-02-30T00:00", "12:30", "0001-01-01T00:00", "2026-07-01T25:00", "1"])
def test_what_is_no_moment_is_refused(text):
    with pytest.raises(TaskInvalid, match=r"as once .*; write"):
        first_run(TaskKind.ONCE, text, now=NOW, zone="Europe/Berlin")


moments = st.integers(-200_000_000, 600_000_000).map(lambda seconds: NOW + timedelta(seconds=seconds))
odd_moments = st.builds(
    lambda day, seconds: datetime.fromisoformat(day).replace(tzinfo=UTC) + timedelta(seconds=seconds),
    st.sampled_from(["2026-03-28", "2026-10-24", "2026-03-07", "2026-10-31", "2026-10-03", "2026-04-04"]),
    st.floats(0, 172_800),
)
minutes = st.integers(0, 59)
hours = st.integers(0, 23)
fields = st.tuples(
    st.one_of(minutes, minutes.map(lambda m: f"*/{m + 1}"), st.just("*")),
    st.one_of(hours, hours.map(lambda h: f"*/{h + 1}"), st.just("*"), st.just("1-3")),
    st.one_of(st.integers(1, 28), st.sampled_from(["*", "L", "*/2"])),
    st.one_of(st.integers(1, 12), st.sampled_from(["*", "mar,oct"])),
    st.one_of(st.integers(0, 7), st.sampled_from(["*", "?", "mon-fri", "1#2"])),
).map(lambda parts: " ".join(str(part) for part in parts))


@given(expression=fields, now=st.one_of(moments, odd_moments), zone=st.sampled_from(ZONES))
def test_the_next_run_is_later_and_on_a_full_minute(expression, now, zone):
    run = first_run(TaskKind.CRON, expression, now=now, zone=zone)
    assert run > now
    assert (run.second, run.microsecond) == (0, 0)


@given(expression=fields, now=odd_moments, later=st.floats(0, 86_400), zone=st.sampled_from(ZONES))
def test_whoever_asks_later_never_hears_an_earlier_run(expression, now, later, zone):
    first = first_run(TaskKind.CRON, expression, now=now, zone=zone)
    second = first_run(TaskKind.CRON, expression, now=now + timedelta(seconds=later), zone=zone)
    assert first <= second
    assert (second == first) is (now + timedelta(seconds=later) < first)


@given(minute=minutes, hour=hours, now=odd_moments, zone=st.sampled_from(ZONES))
def test_a_daily_task_runs_once_on_every_day_at_its_hour_or_behind_the_gap(minute, hour, now, zone):
    expression, here = f"{minute} {hour} * * *", ZoneInfo(zone)
    run = first_run(TaskKind.CRON, expression, now=now, zone=zone)
    following = first_run(TaskKind.CRON, expression, now=run, zone=zone)
    assert following.astimezone(here).date() - run.astimezone(here).date() == timedelta(days=1)
    clock = run.astimezone(here)
    wanted = clock.replace(hour=hour, minute=minute, fold=0)
    exists = wanted.astimezone(UTC).astimezone(here).replace(tzinfo=None) == wanted.replace(tzinfo=None)
    assert (
        (clock.hour, clock.minute) == (hour, minute)
        if exists
        else clock.replace(tzinfo=None) > wanted.replace(tzinfo=None)
    )


@given(text=st.one_of(st.text(max_size=40), st.text("0123456789*/-,L#?@ WMONHhaily", max_size=30)), now=odd_moments)
def test_no_text_does_worse_than_being_refused(text, now):
    for kind in TaskKind:
        try:
            run = first_run(kind, text, now=now, zone="Europe/Berlin")
        except TaskInvalid:
            continue
        assert run.tzinfo is UTC
