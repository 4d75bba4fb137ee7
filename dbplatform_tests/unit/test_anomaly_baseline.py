"""Whether a value is judged by its past: seasons, growth, faults that stay out of it, and the ways back in."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from dbplatform.quality.anomaly.baseline import Rules, judged
from dbplatform.quality.anomaly.choice import chosen_season
from dbplatform.quality.anomaly.points import Judged, Point
from dbplatform.quality.anomaly.seasons import Calendar
from dbplatform_tests.drills.matrix import cases
from dbplatform_tests.made_series import MAKERS, Series, made

UTC_CALENDAR = Calendar(ZoneInfo("UTC"))
START = datetime(2026, 1, 5, 6, tzinfo=UTC)  # a Monday
CLEAN = ["weekly_clean", "month_days_clean", "hourly_clean", "wandering"]
FAULTY = [name for name in MAKERS if name not in CLEAN and name != "weekly_small_drops"]
QUICK = ["weekly_drops", "growing_total", "drift", "constant", "irregular", "summer_time"]


def series(values: Sequence[float], *, every: timedelta = timedelta(days=1), start: datetime = START) -> list[Point]:
    return [Point(at=start + index * every, value=float(value)) for index, value in enumerate(values)]


def rules(**options: Any) -> Rules:
    return Rules(**{"kind": "number", "calendar": UTC_CALENDAR, **options})


def noise(count: int, seed: int = 1) -> Any:
    return np.random.default_rng(seed).standard_normal(count)


def walked(made_series: Series) -> tuple[set[int], int]:
    """The alarms of a made series by their indexes, and how many values were judged."""
    points = [
        Point(at=at, value=float(value), rows=made_series.rows)
        for at, value in zip(made_series.at, made_series.values, strict=True)
    ]
    calendar = Calendar(ZoneInfo(made_series.zone))
    found = judged(points, Rules(kind=made_series.kind, calendar=calendar, season=made_series.season))  # type: ignore[arg-type]
    places = {point.at: index for index, point in enumerate(points)}
    asked = [one for one in found if places[one.point.at] >= made_series.learning]
    known = [one for one in asked if one.expected is not None]
    assert len(known) > 50, "enough past for most of them"
    return {places[one.point.at] for one in known if one.anomalous}, len(known)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("name", cases(*CLEAN, sample=CLEAN))
def test_a_clean_seasonal_series_raises_no_alarm(name: str, seed: int) -> None:
    assert walked(made(name, seed))[0] == set()


@pytest.mark.parametrize("name", cases(*FAULTY, sample=QUICK))
def test_a_known_fault_is_found_and_hardly_anything_else(name: str) -> None:
    found = missed = false = asked = 0
    for seed in (1, 2):
        one = made(name, seed)
        alarms, number = walked(one)
        known = {index for first, last in [*one.faults, *one.unknown] for index in range(first, last)}
        hits = [any(index in alarms for index in range(first, last)) for first, last in one.faults]
        found, missed = found + sum(hits), missed + len(hits) - sum(hits)
        false, asked = false + len(alarms - known), asked + number
    assert found >= 9 * missed
    assert found > 0
    assert false <= 0.015 * asked


@pytest.mark.parametrize(
    ("name", "season"),
    [
        ("weekly_drops", "day_of_week"),
        ("growing_total", "day_of_week"),
        ("month_days", "day_of_month"),
        ("hourly_outage", "hour_of_day"),
        ("summer_time", "hour_of_day"),
        ("heavy_tails", "none"),
        ("wandering", "day_of_week"),
        ("zero_inflated", "none"),
    ],
)
def test_the_season_of_a_series_is_found(name: str, season: str) -> None:
    one = made(name, 3)
    points = [Point(at=at, value=float(value)) for at, value in zip(one.at, one.values, strict=True)]
    assert chosen_season(points, one.kind, Calendar(ZoneInfo(one.zone))) == season  # type: ignore[arg-type]


def last(values: Sequence[float], **options: Any) -> Judged:
    return judged(series(values), rules(**options))[-1]


def test_a_value_is_judged_by_those_before_it_alone() -> None:
    values = [*(100 + noise(40)), 900.0]
    alone = judged(series(values), rules())
    with_more = judged(series([*values, 5, 5, 5]), rules())
    assert with_more[: len(alone)] == alone, "what comes later changes no judgement"
    assert alone[-1].anomalous
    assert alone[-1].high is not None
    assert alone[-1].high < 120, "the value under test is not in its own range"


def test_an_anomalous_value_moves_neither_the_level_nor_the_width_of_what_follows() -> None:
    calm = [*(100 + noise(40)), 100.5, 101.0]
    spoiled = [*calm[:40], 1_000_000.0, 101.0]
    assert last(spoiled).anomalous is False
    assert (last(spoiled).low, last(spoiled).high) == pytest.approx((last(calm).low, last(calm).high), rel=0.02)


def test_too_little_past_is_no_judgement() -> None:
    found = judged(series([*(100 + noise(9)), 1e9]), rules(season="none"))
    assert [one.expected for one in found] == [None] * 10
    assert (found[-1].comparable, found[-1].anomalous) == (9, False)
    weekly = judged(series(100 + noise(27)), rules(season="day_of_week"))
    assert weekly[-1].comparable == 3, "three Saturdays before the fourth"
    assert all(one.expected is None for one in weekly)
    assert judged(series(100 + noise(29)), rules(season="day_of_week"))[-1].expected is not None


def test_least_history_is_in_comparable_values() -> None:
    found = judged(series(100 + noise(40)), rules(season="day_of_week", least_history=2))
    assert next(index for index, one in enumerate(found) if one.expected is not None) == 14


def test_a_constant_series_expects_its_value_and_nothing_else() -> None:
    for kind in ("total", "rate", "number"):
        assert last([249] * 40, kind=kind).anomalous is False
        assert last([249] * 40, kind=kind).low == pytest.approx(249)
        assert last([*[249] * 40, 250], kind=kind).anomalous, kind
    assert last([0] * 40, kind="rate").anomalous is False
    assert last([0.1 + 0.2, *[0.3] * 40]).anomalous is False, "rounding is no fault"


def test_a_share_of_few_rows_is_what_chance_makes_of_it() -> None:
    def ratio(rows: int) -> bool:
        points = [Point(at=START + timedelta(days=day), value=0.0, rows=rows) for day in range(40)]
        spoiled = Point(at=START + timedelta(days=40), value=1 / rows, rows=rows)
        return judged([*points, spoiled], rules(kind="ratio"))[-1].anomalous

    assert ratio(1_000) is False, "one null of a thousand rows, where none was before"
    points = [Point(at=START + timedelta(days=day), value=0.0, rows=1_000) for day in range(40)]
    many = Point(at=START + timedelta(days=40), value=0.02, rows=1_000)
    assert judged([*points, many], rules(kind="ratio"))[-1].anomalous


def test_a_level_that_lasts_becomes_the_new_normal_after_the_declared_time() -> None:
    values = [*(100 + noise(60)), *(130 + noise(30, seed=2))]
    for days in (3, 7, 12):
        found = judged(series(values), rules(new_normal_after=timedelta(days=days)))
        alarms = [index - 60 for index, one in enumerate(found) if one.anomalous]
        assert alarms == list(range(days + 1)), f"it alarms as long as that, and then no more ({days})"


def test_a_spike_is_no_new_normal_however_much_later_the_next_one_comes() -> None:
    values = 100 + noise(90)
    values[[60, 75]] = 150
    found = judged(series(values), rules())
    assert [index for index, one in enumerate(found) if one.anomalous] == [60, 75]


def test_a_weekly_season_survives_a_new_level() -> None:
    week = np.array([10_000, 10_500, 11_000, 10_500, 10_000, 5_000, 3_000])
    values = np.tile(week, 16) * np.exp(0.02 * noise(112))
    values[70:] *= 2
    found = judged(series(np.round(values)), rules(kind="rate", season="day_of_week"))
    assert [index for index, one in enumerate(found) if one.anomalous] == list(range(70, 78))
    assert found[-1].high is not None
    assert found[-1].high < 8_000, "a Sunday is still a Sunday"


def test_what_was_accepted_three_times_is_the_new_normal_at_once() -> None:
    points = series([*(100 + noise(60)), *(130 + noise(10, seed=2))])
    accepted = [Point(at=p.at, value=p.value, accepted=60 <= index < 63) for index, p in enumerate(points)]
    found = judged(accepted, rules(new_normal_after=timedelta(days=30)))
    assert [index for index, one in enumerate(found) if one.anomalous] == [60, 61, 62]


def test_what_recurs_widens_the_range_until_it_is_no_anomaly() -> None:
    values = 100 + noise(150)
    values[40::8] = 140
    found = judged(series(values), rules())
    alarms = [index for index, one in enumerate(found) if one.anomalous]
    assert alarms[0] == 40
    assert alarms[-1] < 90, "an eighth of all values is no exception"


def test_a_slow_drift_within_the_range_is_told_as_one() -> None:
    values = np.concatenate([20 + noise(90), 20 + noise(40, seed=2) + 0.15 * np.arange(40)])
    found = [one for one in judged(series(values), rules())[90:] if one.anomalous]
    assert found
    assert found[0].drifted
    assert found[0].low is not None
    assert found[0].high is not None
    assert found[0].low <= found[0].point.value <= found[0].high


@pytest.mark.parametrize(
    ("direction", "up", "down"), [("up", True, False), ("down", False, True), ("both", True, True)]
)
def test_only_the_declared_direction_alarms_and_has_an_end(direction: str, up: bool, down: bool) -> None:
    calm = [*(100 + noise(40))]
    above, below = last([*calm, 200], direction=direction), last([*calm, 0], direction=direction)
    assert (above.anomalous, below.anomalous) == (up, down)
    assert (above.high is not None, above.low is not None) == (up, down)


def test_runs_in_quick_succession_are_one_evidence() -> None:
    points = series(100 + noise(30))
    points += [Point(at=points[-1].at + timedelta(seconds=index), value=500) for index in range(1, 20)]
    found = judged(points, rules(season="day_of_week"))
    assert len(found) == 30, "of a day the last one counts"
    assert found[-1].anomalous, "the earlier ones of the same day are no witnesses for it"


def test_missing_days_and_odd_hours_do_not_shift_the_week() -> None:
    week = np.array([100, 105, 110, 105, 100, 50, 30])
    keep = np.random.default_rng(5).random(140) > 0.3
    jitter = np.random.default_rng(6).integers(-5, 15, 140)
    points = [
        Point(at=START + timedelta(days=day, hours=int(jitter[day])), value=float(week[day % 7] + noise(140)[day]))
        for day in range(140)
        if keep[day]
    ]
    found = judged(points, rules(season="day_of_week"))
    assert not any(one.anomalous for one in found)
    assert found[-1].expected == pytest.approx(week[points[-1].at.weekday()], abs=3)


def test_an_hour_is_that_of_the_time_zone_on_both_sides_of_summer_time() -> None:
    zone = Calendar(ZoneInfo("Europe/Berlin"))
    winter, summer = datetime(2026, 3, 28, 8, tzinfo=UTC), datetime(2026, 3, 30, 7, tzinfo=UTC)
    assert zone.key("hour_of_day", winter) == zone.key("hour_of_day", summer) == 9
    assert zone.slot("day_of_week", datetime(2026, 3, 28, 23, 30, tzinfo=UTC)) == "2026-03-29"


def test_the_last_day_of_a_month_is_comparable_whatever_its_number() -> None:
    ends = [datetime(2026, 1, 31, tzinfo=UTC), datetime(2026, 2, 28, tzinfo=UTC), datetime(2026, 4, 30, tzinfo=UTC)]
    assert {UTC_CALENDAR.key("day_of_month", at) for at in ends} == {-1}
    assert UTC_CALENDAR.key("day_of_month", datetime(2026, 2, 15, tzinfo=UTC)) == 15


def test_values_that_are_no_numbers_and_empty_series_are_no_evidence() -> None:
    assert judged([], rules()) == []
    values = [*(100 + noise(20)), float("nan"), float("inf"), 100.0]
    assert len(judged(series(values), rules())) == 21


@pytest.mark.parametrize("value", [0.0, 1e-300, 1e300, -1e300, 5e-324])
@pytest.mark.parametrize("kind", ["number", "total", "rate", "ratio", "age"])
def test_extreme_values_are_judged_without_a_stumble(kind: str, value: float) -> None:
    if value < 0 and kind != "number":
        value = -value
    found = judged(series([*[value] * 20, value]), rules(kind=kind))
    assert found[-1].anomalous is False
