"""What an anomaly check says: passed, failed, or accepted as long as it learns.

A check with too little past has looked at nothing that could fail: it has not passed. It has not errored either,
because nothing is to be mended. It is ``accepted``, as a failure is that somebody answers for until a day, and that
ends by itself: when there is enough past, or after ``PATIENCE``, when it has errored.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from dbplatform.quality.anomaly.baseline import Kind, Rules, judged
from dbplatform.quality.anomaly.choice import chosen_season
from dbplatform.quality.anomaly.periods import Window, series, silent
from dbplatform.quality.anomaly.points import Judged, Memory, Point
from dbplatform.quality.anomaly.seasons import WORDS, Calendar, Season
from dbplatform.quality.checks.base import Outcome, Status
from dbplatform.quality.checks.measures import age_words, number_words

if TYPE_CHECKING:
    from dbplatform.quality.checks.anomaly import Anomaly

PATIENCE = timedelta(days=400)
"""How long a check may learn: long enough for every season that can be declared."""

_WIDTHS = {"low": 6.0, "medium": 4.0, "high": 3.0}
_KINDS: dict[str, Kind] = {
    "row_count": "total",
    "distinct_values": "total",
    "null_ratio": "ratio",
    "mean": "number",
    "freshness": "age",
}


def outcome_of_run(check: Anomaly, memory: Memory, now: datetime, considered: int, measured: Any = None) -> Outcome:
    """The outcome of one value of the whole table, after those of earlier runs."""
    value: Any = considered
    if check.metric == "null_ratio":
        value = measured / considered if considered else 0.0
    elif check.column is not None:
        value = measured
    number = float("nan") if value is None or isinstance(value, timedelta) else float(value)
    if number != number or number in (float("inf"), float("-inf")):
        message = f"{_subject(check)} is {'not a number' if value is not None else 'none'}: there is no value to judge."
        return Outcome(status="errored", message=message, considered_rows=considered)
    point = Point(at=now, value=number, rows=considered)
    found, rules = _judge(check, [*memory.points, point], ZoneInfo(check.time_zone))
    last = found[-1]
    status: Status
    if last.expected is None:
        first = memory.points[0].at if memory.points else now
        status, message = _learning(check, last, rules, patient=now - first < PATIENCE)
    else:
        status = "failed" if last.anomalous else "passed"
        message = f"{_subject(check)} is {_words(check, number)}, {_beside(check, last, rules)}{_streak(found)}."
    return Outcome(status=status, message=message, considered_rows=considered, value=number, judged=(last,))


def outcome_by_period(check: Anomaly, memory: Memory, now: datetime, window: Window) -> Outcome:
    """The outcome of the periods that no earlier run has judged; at least that of the newest one."""
    points = series(check, window, memory)
    if not points and memory.points:
        since = _day(window, memory.points[-1].at)
        return Outcome(
            status="errored", message=f"{_subject(check)} has no value since {since}: nothing can be judged."
        )
    if not points:
        return Outcome(
            status="accepted",
            message=f"not judged yet: no whole {_unit(check)} of {check.by} has rows since {window.start:%Y-%m-%d}.",
        )
    found, rules = _judge(check, points, window.zone)
    until = max((point.at for point in memory.points), default=found[-1].point.at - timedelta(microseconds=1))
    new = [one for one in found if one.point.at > until] or found[-1:]
    wrong = [one for one in new if one.anomalous]
    shown = wrong[-1] if wrong else new[-1]
    missing = silent(check, window, points, rules.season)
    status: Status
    if not wrong and missing:
        since = _period(check, window.zone, points[-1].at)
        status, message = "errored", f"{_subject(check)} has no value since that {since}, and should have."
    elif not wrong and window.first is None:
        status, message = (
            "errored",
            f"{_subject(check)} is not known: no row has {check.by} since {_day(window, window.start)}.",
        )
    elif all(one.expected is None for one in new):
        span = found[-1].point.at - found[0].point.at
        patient = span < timedelta(days=check.window_days) - timedelta(days=2)
        status, message = _learning(check, new[-1], rules, patient=patient)
    else:
        status = "failed" if wrong else "passed"
        words = f"{_subject(check)} {_period(check, window.zone, shown.point.at)} is {_words(check, shown.point.value)}"
        also = ", ".join(_period(check, window.zone, one.point.at) for one in wrong[:-1][-5:])
        message = f"{words}, {_beside(check, shown, rules)}{f', like {also}' if also else ''}."
    return Outcome(
        status=status,
        message=message,
        considered_rows=sum(one.point.rows or 0 for one in new),
        value=shown.point.value,
        judged=tuple(found),
    )


def _judge(check: Anomaly, points: Sequence[Point], zone: ZoneInfo) -> tuple[list[Judged], Rules]:
    kind = _KINDS[check.metric]
    if check.by is not None and kind == "total":
        kind = "rate"
    calendar = Calendar(zone)
    season: Season
    season = chosen_season(points[:-1], kind, calendar) if check.seasonality == "auto" else check.seasonality
    rules = Rules(
        kind=kind,
        calendar=calendar,
        season=season,
        width=_WIDTHS[check.sensitivity],
        direction=check.direction or ("up" if check.metric == "freshness" else "both"),
        least_history=check.min_history,
        new_normal_after=check.new_normal_after.timedelta,
    )
    return judged(points, rules), rules


def _learning(check: Anomaly, last: Judged, rules: Rules, *, patient: bool) -> tuple[Status, str]:
    since = f" since {last.since:%Y-%m-%d}" if last.since else ""
    have = f"{last.comparable} of the {rules.needed} values{WORDS[rules.season]} that it needs{since}"
    if last.comparable >= rules.needed:
        have = f"too few values{since} to know how they vary"
    value = f"{_subject(check)} is {_words(check, last.point.value)}"
    if patient:
        return "accepted", f"{value}; not judged yet: there are {have}."
    return "errored", f"{value}; it cannot be judged: after so long there are {have}. Lower min_history."


def _beside(check: Anomaly, one: Judged, rules: Rules) -> str:
    assert one.since is not None
    low, high = (None if end is None else _words(check, end) for end in (one.low, one.high))
    if low is None or high is None:
        range_ = f"at most {high}" if low is None else f"at least {low}"
    else:
        range_ = low if low == high else f"{low} to {high}"
    past = f"by {one.comparable} values{WORDS[rules.season]} since {one.since:%Y-%m-%d}"
    if one.drifted:
        return f"as is expected ({range_}, {past}), but the last values together have moved away from those before"
    return f"where {range_} is expected {past}" if one.anomalous else f"as expected: {range_} {past}"


def _streak(found: Sequence[Judged]) -> str:
    """Since when values are anomalous, where this one is not the first."""
    streak = 0
    while streak < len(found) and found[-1 - streak].anomalous:
        streak += 1
    return f", for {streak} values since {found[-streak].point.at:%Y-%m-%d %H:%M} UTC" if streak > 1 else ""


def _subject(check: Anomaly) -> str:
    return {
        "row_count": "the number of rows",
        "null_ratio": f"the share of nulls in {check.column}",
        "mean": f"the mean of {check.column}",
        "freshness": f"the age of the newest {check.column}",
        "distinct_values": f"the number of different values of {check.column}",
    }[check.metric] + (f" where {check.where}" if check.where else "")


def _words(check: Anomaly, value: float) -> str:
    return age_words(value).removesuffix(" old") if check.metric == "freshness" else number_words(value)


def _unit(check: Anomaly) -> str:
    return "hour" if check.hourly else "day"


def _day(window: Window, at: datetime) -> str:
    return f"{at.astimezone(window.zone):%Y-%m-%d}"


def _period(check: Anomaly, zone: ZoneInfo, at: datetime) -> str:
    local = at.astimezone(zone)
    return f"in the hour from {local:%Y-%m-%d %H:%M}" if check.hourly else f"on {local:%Y-%m-%d}"
