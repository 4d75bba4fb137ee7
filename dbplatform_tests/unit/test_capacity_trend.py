"""How fast something grows and until when: steps, too little history, and how often the truth lies in the range."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from dbplatform.capacity.trend import MIN_DAYS, Sample, trend, until
from dbplatform_tests.growth_series import coverage

NOW = datetime(2026, 10, 1, 2, tzinfo=UTC)


def series(values: Sequence[float]) -> list[Sample]:
    """A value a day, the last one now."""
    return [Sample(NOW - timedelta(days=len(values) - 1 - day), value) for day, value in enumerate(values)]


def wavy(days: int, per_day: float = 2.0) -> list[float]:
    """Growth that is a little different each day."""
    return [1_000 + per_day * day + (day * 7 % 5) * 0.3 for day in range(days)]


def test_growth_is_a_range_around_the_truth_and_the_limit_a_range_of_days() -> None:
    found = trend(series(wavy(61)))
    assert found is not None
    assert found.per_day_low < 2.0 < found.per_day_high
    assert found.per_day_high - found.per_day_low < 0.4
    told = until(found, found.level + 100)
    assert told.low is not None
    assert told.high is not None
    assert told.low <= 50 <= told.high
    assert told.words == f"between {told.low:.0f} and {told.high:.0f} days"


@pytest.mark.parametrize("days", [0, 1, MIN_DAYS - 1])
def test_too_little_history_says_nothing(days: int) -> None:
    assert trend(series(wavy(days))) is None


def test_many_values_of_few_days_are_still_too_little() -> None:
    assert trend([Sample(NOW - timedelta(minutes=5 * one), float(one)) for one in range(3_000)]) is None


@pytest.mark.parametrize("size", [-400.0, 300.0])
def test_a_step_is_no_growth_and_is_told(size: float) -> None:
    values = wavy(61)
    values[40:] = [value + size for value in values[40:]]
    found = trend(series(values))
    assert found is not None
    assert found.per_day == pytest.approx(2.0, abs=0.1)
    (step,) = found.steps
    assert step.size == pytest.approx(size, abs=2)
    assert step.at == NOW - timedelta(days=20)
    assert found.level == values[-1]


def test_a_step_over_several_days_is_one_step() -> None:
    values = wavy(61)
    values[40:] = [value - 100 * min(day + 1, 3) for day, value in enumerate(values[40:])]
    found = trend(series(values))
    assert found is not None
    assert [round(step.size, -1) for step in found.steps] == [-300]


def test_a_rebuild_that_takes_room_for_a_day_and_then_frees_some_is_no_growth() -> None:
    values = wavy(61)
    values[30] += 500
    values[31:] = [value - 200 for value in values[31:]]
    found = trend(series(values))
    assert found is not None
    assert found.per_day == pytest.approx(2.0, abs=0.1)
    assert sorted(round(step.size, -2) for step in found.steps) == [-700, 500]


def test_what_recurs_belongs_to_the_growth() -> None:
    loads = [1_000.0 + 70 * (day // 7) for day in range(91)]
    found = trend(series(loads))
    assert found is not None
    assert (found.recurring, found.steps) == (True, ())
    assert found.per_day == pytest.approx(10, abs=1)
    emptied = [1_000.0 + 3 * day - 84 * (day // 30) for day in range(121)]
    found = trend(series(emptied))
    assert found is not None
    assert found.recurring
    assert found.per_day == pytest.approx(0.2, abs=0.5)


def test_growth_that_changed_counts_from_then_on() -> None:
    values = [1_000 + 1.0 * day + (day * 7 % 5) * 0.3 for day in range(60)]
    values += [values[-1] + 6.0 * day + (day * 7 % 5) * 0.3 for day in range(1, 41)]
    found = trend(series(values))
    assert found is not None
    assert found.changed_at is not None
    assert found.per_day == pytest.approx(6.0, abs=0.5)


def test_what_does_not_grow_is_not_reached_and_no_time_is_told_beyond_the_horizon() -> None:
    found = trend(series([1_000.0 + (day * 7 % 5) for day in range(61)]))
    assert found is not None
    told = until(found, 5_000)
    assert (told.low, told.likely, told.high) == (None, None, None)
    assert told.words == "not within 240 days"


def test_a_limit_that_is_passed_is_now() -> None:
    found = trend(series(wavy(61)))
    assert found is not None
    assert until(found, 900).words == "now"


def test_days_without_a_value_are_bridged() -> None:
    values = series(wavy(91))
    found = trend([one for place, one in enumerate(values) if place % 3 or place == 0])
    assert found is not None
    assert found.per_day == pytest.approx(2.0, abs=0.1)


# The figures of many cases are in docs/how-to/capacity.md; here are few, and room for their chance.
@pytest.mark.parametrize(
    ("growth", "change"),
    [
        ("steady", None), ("noisy", None), ("wandering", None), ("weekly", None), ("bursts", None),
        ("weekly_load", None), ("flat", None), ("steady", "archived_once"), ("wandering", "loaded_once"),
        ("steady", "repacked"), ("steady", "faster"),
    ],
)  # fmt: skip
def test_the_truth_lies_in_the_range_in_about_nine_of_ten_cases(growth: str, change: str | None) -> None:
    assert coverage(growth, 40, history=90, change=change).share >= 0.8
