"""When a task runs next: NanoClaw's three kinds of schedule as functions of a moment and a time zone.

Cron expressions are those NanoClaw's agents are taught: five fields, or six with seconds in
front, names, ranges, steps, lists, `L`, `#`, `?` and `@daily` with its like. On the two odd days
of a year

- an hour that is named (`30 2 * * *`) comes once: at the end of the gap that swallowed it, and
  at the first of the two times it is repeated;
- every hour (`0 * * * *`) is every hour that passes.

Nothing runs more than once a minute, because NanoClaw looks once a minute: of several seconds an
expression names the first counts, and a shorter interval is stretched. Not here: who runs a
task, and what is kept of it.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo
from functools import partial
from typing import Final
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from nanoclaw_runtime.domain.errors import TaskInvalid
from nanoclaw_runtime.domain.tasks import TaskKind

SHORTEST: Final = timedelta(minutes=1)
"""Between the end of a run of an interval task and its next."""
LONGEST: Final = timedelta(days=36_525)
"""Of an interval: a century."""
LENGTH: Final = 255
"""Characters of a value; real ones have twenty."""

_MILLISECOND: Final = timedelta(milliseconds=1)
_PREDEFINED: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@hourly": "0 * * * *",
    "@minutely": "* * * * *",
    "@secondly": "* * * * * *",
    "@weekdays": "0 0 * * 1-5",
    "@weekends": "0 0 * * 0,6",
}
_EVERY_HOUR: Final = 24
_WITHOUT_SECONDS: Final = 5


def first_run(kind: TaskKind, value: str, *, now: datetime, zone: str) -> datetime:
    """When a task made at `now` runs first, in UTC; a moment in the past means at once.

    `zone` is the installation's IANA time zone. Raises TaskInvalid for a value that nobody can follow.
    """
    _bounded(kind, value)
    match kind:
        case TaskKind.CRON:
            return _next_match(value, now, ZoneInfo(zone))
        case TaskKind.INTERVAL:
            return now.astimezone(UTC) + _interval(value)
        case TaskKind.ONCE:
            return _moment(value, ZoneInfo(zone))


def following_run(kind: TaskKind, value: str, *, now: datetime, zone: str) -> datetime | None:
    """When a task whose run ended at `now` runs again, in UTC; None when it never does.

    Raises TaskInvalid like `first_run`.
    """
    _bounded(kind, value)
    match kind:
        case TaskKind.CRON:
            return _next_match(value, now, ZoneInfo(zone))
        case TaskKind.INTERVAL:
            return now.astimezone(UTC) + max(SHORTEST, _interval(value))
        case TaskKind.ONCE:
            return None


def _bounded(kind: TaskKind, value: str) -> None:
    if len(value) > LENGTH:
        raise _invalid(kind, value[:20] + "…", f"has more than {LENGTH} characters; shorten it")


def _interval(value: str) -> timedelta:
    invalid = partial(_invalid, TaskKind.INTERVAL, value)
    if not re.fullmatch(r"[0-9]+", value) or int(value) == 0:
        raise invalid("is no positive whole number; write milliseconds, such as 3600000 for an hour")
    if int(value) > LONGEST / _MILLISECOND:
        raise invalid(f"is above {LONGEST // _MILLISECOND}, a century; write a smaller number of milliseconds")
    return int(value) * _MILLISECOND


def _moment(value: str, zone: tzinfo) -> datetime:
    invalid = partial(_invalid, TaskKind.ONCE, value)
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise invalid("is no moment; write one like 2026-03-01T15:30:00") from None
    try:
        return _earliest(moment, zone) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError:
        raise invalid("is outside the years 1 to 9999; write a moment within them") from None


def _next_match(value: str, now: datetime, zone: tzinfo) -> datetime:
    """The first moment after `now` that the expression names."""
    expression = _normalised(value)
    here = now.astimezone(zone)
    try:
        ticks = CronSim(expression, here)
        hourly = len(ticks.hours) == _EVERY_HOUR
        if not hourly:  # named hours are looked for on the wall clock, which has no gaps and no repetitions
            ticks = CronSim(expression, here.replace(tzinfo=None))
        ticks.seconds = {min(ticks.seconds)}
        for tick in ticks:
            moment = tick.astimezone(UTC) if hourly else _earliest(tick, zone)
            if moment > now:
                return moment
    except CronSimError as error:
        problem = str(error).removeprefix("Bad ")
        raise _invalid(
            TaskKind.CRON, value, f"is no cron expression ({problem}); write five fields like 0 9 * * 1-5"
        ) from None
    except OverflowError:
        pass  # beyond the year 9999
    raise _invalid(TaskKind.CRON, value, "names a day that never comes; write one that some month has")


def _normalised(value: str) -> str:
    """The same expression with seconds, in the words of the library."""
    fields = _PREDEFINED.get(value.strip().lower(), value).replace("?", "*").split()
    if len(fields) == _WITHOUT_SECONDS:
        fields.insert(0, "0")
    if len(fields) == _WITHOUT_SECONDS + 1:
        fields[-3] = _without_star(fields[-3], "1-31")
        fields[-1] = _without_star(fields[-1], "0-7")
    return " ".join(fields)


def _without_star(field: str, everything: str) -> str:
    """A field that restricts days does not begin with a star: the library would let it restrict the other one, too."""
    return field if field == "*" else field.replace("*", everything)


def _earliest(wall: datetime, zone: tzinfo) -> datetime:
    """When clocks of the zone first show `wall`, or first show more."""
    moment = wall.replace(tzinfo=zone, fold=0)
    while moment.astimezone(UTC).astimezone(zone).replace(tzinfo=None, fold=0) != moment.replace(tzinfo=None):
        moment = moment.replace(second=0, microsecond=0) + timedelta(minutes=1)
    return moment.astimezone(UTC)


def _invalid(kind: TaskKind, value: str, problem: str) -> TaskInvalid:
    return TaskInvalid(f"value: {value!r} as {kind} {problem}")
