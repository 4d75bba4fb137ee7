"""The grid of partitions: calendar arithmetic without a database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dbplatform.partitioning.bounds import (
    FIRST,
    HIGHEST,
    LAST,
    LOWEST,
    Bounds,
    cell,
    check_interval,
    covered_until,
    covering_key,
    following,
    key_of,
    pieces,
    suffix,
)
from dbplatform.partitioning.plan import partition_name
from dbplatform.partitioning.policy import PartitionPolicy
from dbplatform.postgres.words import Interval

INTERVALS = st.one_of(
    st.integers(1, 40).map(lambda n: Interval(months=n)),
    st.integers(1, 400).map(lambda n: Interval(days=n)),
    st.sampled_from([1, 2, 3, 4, 6, 8, 12]).map(lambda n: Interval(microseconds=n * 3_600_000_000)),
    st.sampled_from([1, 5, 15, 30]).map(lambda n: Interval(microseconds=n * 60_000_000)),
)
MOMENTS = st.datetimes(max_value=datetime.max - timedelta(microseconds=1), timezones=st.just(UTC))  # noqa: DTZ901


def day(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@given(INTERVALS, MOMENTS)
def test_a_cell_covers_its_moment_and_every_other_moment_of_it_gives_the_same_cell(
    interval: Interval, moment: datetime
) -> None:
    one = cell(interval, moment)
    assert moment in one
    assert cell(interval, one.lower) == one
    assert cell(interval, one.upper - timedelta(microseconds=1)) == one


@given(INTERVALS, MOMENTS)
def test_the_next_cell_starts_where_the_last_one_ends(interval: Interval, moment: datetime) -> None:
    one = cell(interval, moment)
    if one.upper != LAST:
        assert following(interval, one, 1).lower == one.upper
    if one.lower != FIRST:
        assert cell(interval, one.lower - timedelta(microseconds=1)).upper == one.lower


ZONES = st.sampled_from(sorted(available_timezones() - {"Factory", "localtime"})).map(ZoneInfo)
CALENDAR = st.one_of(
    st.integers(1, 40).map(lambda n: Interval(months=n)), st.integers(1, 400).map(lambda n: Interval(days=n))
)


@given(CALENDAR, MOMENTS, ZONES)
def test_in_every_time_zone_cells_cover_each_moment_once(interval: Interval, moment: datetime, zone: ZoneInfo) -> None:
    one = cell(interval, moment, zone)
    assert moment in one
    assert cell(interval, one.lower, zone) == one
    assert cell(interval, one.upper - timedelta(microseconds=1), zone) == one
    if one.has_upper:
        assert following(interval, one, 1, zone).lower == one.upper
    if one.has_lower:
        assert cell(interval, one.lower - timedelta(microseconds=1), zone).upper == one.lower


@given(ZONES, st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001
def test_a_day_begins_at_midnight_of_its_zone_whatever_the_clocks_do(zone: ZoneInfo, moment: datetime) -> None:
    one = cell(Interval(days=1), moment, zone)
    before, first = (point.astimezone(zone) for point in (one.lower - timedelta(microseconds=1), one.lower))
    assert before.date() != first.date() or before.replace(tzinfo=None) >= first.replace(tzinfo=None)
    names = [suffix(Interval(days=1), point, zone) for point in (one.lower, one.upper)]
    assert names[0] != names[1]


def test_a_day_of_23_or_25_hours_is_one_cell() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    spring, autumn = (cell(Interval(days=1), day(text), berlin) for text in ("2026-03-29T12:00", "2026-10-25T12:00"))
    assert spring == Bounds(day("2026-03-28T23:00"), day("2026-03-29T22:00"))
    assert autumn == Bounds(day("2026-10-24T22:00"), day("2026-10-25T23:00"))
    assert suffix(Interval(days=1), spring.lower, berlin) == "p2026_03_29"


@given(st.integers(1, 10**12), st.integers(LOWEST, HIGHEST - 1))
def test_numbers_have_a_grid_too_below_zero_as_above(step: int, number: int) -> None:
    one = cell(step, number)
    assert number in one
    assert cell(step, one.lower) == cell(step, one.upper - 1) == one
    if one.has_upper:
        assert following(step, one, 1).lower == one.upper
    if one.has_lower:
        assert cell(step, one.lower - 1).upper == one.lower
        assert suffix(step, one.lower) != suffix(step, -one.lower - 1)


@given(st.integers(1, 50), st.lists(st.integers(-300, 300), min_size=2, max_size=12, unique=True), st.integers(1, 400))
def test_pieces_of_numbers_cover_the_span_once(step: int, cuts: list[int], length: int) -> None:
    cuts.sort()
    taken = [Bounds(a, b) for a, b in zip(cuts[::2], cuts[1::2], strict=False)]
    together = sorted([*pieces(step, Bounds(-250, -250 + length), taken), *taken])
    assert all(before.upper <= after.lower for before, after in pairwise(together))
    assert covered_until(-250, together) >= -250 + length


@given(
    st.one_of(
        st.integers(1, 5).map(lambda n: Interval(months=n)),
        st.integers(5, 40).map(lambda n: Interval(days=n)),
    ),
    st.lists(st.integers(0, 700), min_size=2, max_size=12, unique=True),
    st.integers(0, 300),
    st.integers(1, 400),
)
def test_pieces_and_existing_ranges_cover_the_span_once(
    interval: Interval, cuts: list[int], start: int, length: int
) -> None:
    origin = day("2024-01-01T03:00:00")
    moments = [origin + timedelta(days=cut) for cut in sorted(cuts)]
    taken = [Bounds(a, b) for a, b in zip(moments[::2], moments[1::2], strict=False)]
    span = Bounds(origin + timedelta(days=start), origin + timedelta(days=start + length))
    made = list(pieces(interval, span, taken))
    together = sorted([*made, *taken])
    for before, after in pairwise(together):
        assert before.upper <= after.lower
    assert covered_until(span.lower, together) >= span.upper
    assert all(span.lower <= one.lower < one.upper <= span.upper for one in made)


@given(st.one_of(INTERVALS, CALENDAR), MOMENTS, ZONES)
def test_a_key_names_one_cell(interval: Interval, moment: datetime, zone: ZoneInfo) -> None:
    try:
        check_interval(interval)
    except ValueError:
        return
    bounds = cell(interval, moment, zone)
    key = key_of(interval, moment, zone)
    found = covering_key(interval, key, zone)
    if bounds.has_lower:
        assert found == bounds
    assert key_of(interval, found.lower, zone) == key


@given(st.integers(1, 10**12), st.integers(LOWEST, HIGHEST - 1))
def test_a_key_of_numbers_names_one_cell(step: int, number: int) -> None:
    assert covering_key(step, key_of(step, number)) == cell(step, number)


def test_months_quarters_and_years_start_where_the_calendar_says() -> None:
    moment = day("2026-02-28T23:59:59")
    assert cell(Interval(months=1), moment) == Bounds(day("2026-02-01"), day("2026-03-01"))
    assert cell(Interval(months=3), moment) == Bounds(day("2026-01-01"), day("2026-04-01"))
    assert cell(Interval(months=12), moment) == Bounds(day("2026-01-01"), day("2027-01-01"))


def test_weeks_start_on_mondays_and_days_at_midnight_in_utc() -> None:
    berlin = datetime(2026, 1, 7, 0, 30, tzinfo=timezone(timedelta(hours=1)))
    assert cell(Interval(days=7), berlin).lower == day("2026-01-05")
    assert cell(Interval(days=7), berlin).lower.weekday() == 0
    assert cell(Interval(days=1), berlin).lower == day("2026-01-06")


def test_hours_are_aligned_to_the_day() -> None:
    six = Interval(microseconds=6 * 3_600_000_000)
    assert cell(six, day("2026-01-05T07:15:00")) == Bounds(day("2026-01-05T06:00:00"), day("2026-01-05T12:00:00"))


@pytest.mark.parametrize(
    ("words", "says"),
    [("1 month 3 days", "mixes"), ("1 day 6 hours", "mixes"), ("5 hours", "divide a day"), ("30 hours", "divide")],
)
def test_an_interval_without_a_grid_is_refused_in_one_sentence(words: str, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        PartitionPolicy.model_validate({"table": "t", "column": "at", "interval": words})


def test_24_hours_are_a_day() -> None:
    assert check_interval(Interval.parse("48 hours")) == Interval(days=2)


@pytest.mark.parametrize(
    ("start", "means"),
    [
        ("auto", "auto"),
        ("13 months", Interval(months=13)),
        ("P1Y", Interval(months=12)),
        ("2025-01-01", day("2025-01-01")),
        ("2025-01-01T02:00:00+02:00", day("2025-01-01")),
        (day("2025-01-01").date(), day("2025-01-01")),
    ],
)
def test_start_may_be_auto_a_time_or_a_length(start: object, means: object) -> None:
    policy = PartitionPolicy.model_validate({"table": "t", "column": "at", "interval": "1 month", "start": start})
    assert policy.start == means


@pytest.mark.parametrize(
    "wrong",
    [
        {"start": "yesterday"},
        {"premake": 0},
        {"premake": "4"},
        {"premakes": 4},
        {"interval": 0},
        {"interval": True},
        {"start": 5},
        {"interval": 1000, "start": "2026-01-01"},
        {"interval": 1000, "time_zone": "Europe/Berlin"},
        {"interval": "6 hours", "time_zone": "Europe/Berlin"},
        {"time_zone": "Europe/Atlantis"},
        {"move_at_most": 0},
    ],
)
def test_an_impossible_value_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        PartitionPolicy.model_validate({"table": "t", "column": "at", "interval": "1 month", **wrong})


def test_names_are_as_fine_as_the_lower_bound_needs() -> None:
    month, week, hour = Interval(months=1), Interval(days=7), Interval(microseconds=3_600_000_000)
    assert suffix(month, day("2026-01-01")) == "p2026_01"
    assert suffix(month, day("2026-01-15")) == "p2026_01_15"
    assert suffix(week, day("2026-01-05")) == "p2026_01_05"
    assert suffix(week, day("2026-01-05T06:30:00")) == "p2026_01_05_0630"
    assert suffix(hour, day("2026-01-05T06:00:00")) == "p2026_01_05_0600"


@given(st.text(min_size=1, max_size=63), st.text(min_size=1, max_size=63))
def test_names_fit_63_bytes_and_stay_apart(one: str, other: str) -> None:
    names = [partition_name(table, Interval(months=1), day("2026-01-01")) for table in (one, other)]
    assert all(len(name.encode()) <= 63 and name.endswith("_p2026_01") for name in names)
    assert (names[0] == names[1]) == (one == other)
