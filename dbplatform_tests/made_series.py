"""Made series with known faults, drawn from a seed: what values are, and where a fault lies.

A fault is a half-open range of indexes; whoever alarms in it has found it. After the first ``GRACE`` values of a
lasting change neither an alarm nor silence counts: by then it may be the new normal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np

START = datetime(2025, 1, 1, 6, tzinfo=UTC)
GRACE = 7


@dataclass(slots=True)
class Series:
    """Values with their times, and what is known about them."""

    name: str
    kind: str
    season: str
    period: int
    at: list[datetime]
    values: np.ndarray
    faults: list[tuple[int, int]] = field(default_factory=list)
    unknown: list[tuple[int, int]] = field(default_factory=list)
    rows: int | None = None
    learning: int = 60
    """Values that no method is asked about."""
    zone: str = "UTC"


Maker = Callable[[np.random.Generator], Series]
MAKERS: dict[str, Maker] = {}


def maker(function: Maker) -> Maker:
    """Make a series known by the name of its function."""
    MAKERS[function.__name__] = function
    return function


def made(name: str, seed: int) -> Series:
    """The series of that name and seed."""
    series = MAKERS[name](np.random.default_rng([seed, *name.encode()]))
    series.name = name
    return series


def _days(count: int, **options: object) -> Series:
    at = [START + timedelta(days=index) for index in range(count)]
    return Series("", "rate", "none", 7, at, np.zeros(count), **options)  # type: ignore[arg-type]


def _weekly(random: np.random.Generator, count: int = 180, level: float = 10_000, noise: float = 0.05) -> Series:
    """Orders per day: full weekdays, half Saturdays, a third on Sundays."""
    series = _days(count)
    shape = np.array([1.0, 1.05, 1.1, 1.05, 1.0, 0.5, 0.33])
    week = shape[[at.weekday() for at in series.at]]
    series.values = np.round(level * week * np.exp(noise * random.standard_normal(count)))
    series.season = "day_of_week"
    return series


def _hit(series: Series, random: np.random.Generator, factor: float, number: int = 3) -> Series:
    """Single values that are ``factor`` times what they were, at least nine values apart."""
    places = np.arange(series.learning + 5, len(series.values) - 5, 9)
    for place in sorted(random.choice(places, number, replace=False)):
        series.values[place] = np.round(series.values[place] * factor)
        series.faults.append((int(place), int(place) + 1))
    return series


def _lasting(series: Series, place: int) -> Series:
    series.faults.append((place, place + GRACE))
    series.unknown.append((place + GRACE, len(series.values)))
    return series


@maker
def weekly_clean(random: np.random.Generator) -> Series:
    """No fault."""
    return _weekly(random)


@maker
def weekly_spikes(random: np.random.Generator) -> Series:
    """Three days with 1.6 times their rows."""
    return _hit(_weekly(random), random, 1.6)


@maker
def weekly_drops(random: np.random.Generator) -> Series:
    """Three days with 60 % of their rows: a working day still has more than a Saturday."""
    return _hit(_weekly(random), random, 0.6)


@maker
def weekly_missing_batch(random: np.random.Generator) -> Series:
    """Three days without a row."""
    return _hit(_weekly(random), random, 0.0)


@maker
def weekly_doubled_load(random: np.random.Generator) -> Series:
    """Three days that were loaded twice."""
    return _hit(_weekly(random, noise=0.1), random, 2.0)


@maker
def weekly_level_shift(random: np.random.Generator) -> Series:
    """From some day on a third less."""
    series = _weekly(random)
    place = int(random.integers(100, 140))
    series.values[place:] = np.round(series.values[place:] * 0.67)
    return _lasting(series, place)


@maker
def growing_weekly(random: np.random.Generator) -> Series:
    """Grows by 0.7 % a day, three times 60 %."""
    series = _weekly(random)
    series.values = np.round(series.values * np.exp(0.007 * np.arange(len(series.values))))
    return _hit(series, random, 0.6)


@maker
def growing_total(random: np.random.Generator) -> Series:
    """The rows of a table that grows on working days; on three days nothing came, and comes later."""
    series = _weekly(random, level=1_000)
    daily = series.values.copy()
    _hit(series, random, 0.0)
    for first, last in list(series.faults):
        while series.at[first].weekday() > 4:  # nothing on a Sunday is hard to tell from little
            series.faults.remove((first, last))
            first, last = first + 2, last + 2
            series.faults.append((first, last))
    arrived = daily.copy()
    for first, _ in series.faults:
        arrived[first + 1] += arrived[first]
        arrived[first] = 0
    series.kind = "total"
    series.values = 50_000 + np.cumsum(arrived)
    return series


@maker
def level_drop(random: np.random.Generator) -> Series:
    """A mean without season, which falls by five standard deviations for good."""
    series = _days(160)
    series.kind = "number"
    series.values = 20 + random.standard_normal(160)
    place = int(random.integers(90, 130))
    series.values[place:] -= 5
    return _lasting(series, place)


@maker
def drift(random: np.random.Generator) -> Series:
    """A mean that moves by a fifth of its standard deviation each day, for forty days."""
    series = _days(160)
    series.kind = "number"
    series.values = 20 + random.standard_normal(160)
    place = int(random.integers(90, 115))
    series.values[place:] += 0.2 * np.arange(1, 161 - place)
    series.faults.append((place + 10, min(place + 40, 160)))
    series.unknown += [(place, place + 10), (place + 40, 160)]
    return series


@maker
def heavy_tails(random: np.random.Generator) -> Series:
    """Noise of Student's t with three degrees of freedom, three spikes of 20 scales."""
    series = _days(180)
    series.kind = "number"
    series.values = 100 + random.standard_t(3, 180)
    series = _hit(series, random, 1.0)
    for place, _ in series.faults:
        series.values[place] += 20 * random.choice([-1, 1])
    return series


@maker
def month_days(random: np.random.Generator) -> Series:
    """Five times the rows on the first of a month, thrice on its last day; once the first is as any other day."""
    series = _days(425)
    series.season, series.learning, series.period = "day_of_month", 125, 30
    values = 2_000 * np.exp(0.06 * random.standard_normal(425))
    first = np.array([at.day == 1 for at in series.at])
    last = np.array([(at + timedelta(days=1)).day == 1 for at in series.at])
    values[first] *= 5
    values[last] *= 3
    series.values = np.round(values)
    place = int(random.choice(np.flatnonzero(first)[6:12]))
    series.values[place] = np.round(series.values[place] / 5)
    series.faults.append((place, place + 1))
    return series


@maker
def month_days_clean(random: np.random.Generator) -> Series:
    """No fault."""
    series = month_days(random)
    ((place, _),) = series.faults
    series.values[place] *= 5
    series.faults.clear()
    return series


def _hourly(random: np.random.Generator, days: int = 28) -> Series:
    count = days * 24
    at = [START + timedelta(hours=index) for index in range(count)]
    hour = np.array([moment.hour for moment in at])
    rate = 400 * (1.1 + np.sin((hour - 8) / 24 * 2 * np.pi)) ** 2 + 5
    values = random.poisson(rate * np.exp(0.05 * random.standard_normal(count))).astype(float)
    return Series("", "rate", "hour_of_day", 24, at, values, learning=24 * 12)


@maker
def hourly_clean(random: np.random.Generator) -> Series:
    """No fault: busy days, nearly empty nights."""
    return _hourly(random)


@maker
def hourly_outage(random: np.random.Generator) -> Series:
    """Two hours of a working day without a row, and one of a night with as many as by day."""
    series = _hourly(random)
    day, night = random.choice(np.arange(14, 27), 2, replace=False)
    start = int(day) * 24 + 6  # noon: the series begins at six
    series.values[start : start + 2] = 0
    series.faults.append((start, start + 2))
    place = int(night) * 24 + 20
    series.values[place] = 900
    series.faults.append((place, place + 1))
    return series


@maker
def constant(random: np.random.Generator) -> Series:
    """A table of reference: always 249 rows, once 248."""
    series = _days(120)
    series.kind = "total"
    series.values = np.full(120, 249.0)
    place = int(random.integers(70, 110))
    series.values[place] = 248
    series.faults.append((place, place + 1))
    return series


@maker
def zero_inflated(random: np.random.Generator) -> Series:
    """No row on two days of three, else about eight; once 200."""
    series = _days(180)
    series.values = np.where(random.random(180) < 0.67, 0, random.poisson(8, 180)).astype(float)
    place = int(random.integers(90, 170))
    series.values[place] = 200
    series.faults.append((place, place + 1))
    return series


@maker
def null_ratio(random: np.random.Generator) -> Series:
    """Two per cent of nulls in 5,000 rows, three times five per cent."""
    series = _days(150, rows=5_000)
    series.kind = "ratio"
    series.values = random.binomial(5_000, 0.02, 150) / 5_000
    for place in random.choice(np.arange(65, 145, 9), 3, replace=False):
        series.values[place] = random.binomial(5_000, 0.05) / 5_000
        series.faults.append((int(place), int(place) + 1))
    return series


@maker
def irregular(random: np.random.Generator) -> Series:
    """Weekly orders, looked at at odd times, days left out and days looked at twice; three times a half of them."""
    series = _hit(_weekly(random, count=220), random, 0.5, number=3)
    keep = random.random(220) > 0.15
    for first, _ in series.faults:
        keep[first] = True
    places = np.flatnonzero(keep)
    new = {int(old): index for index, old in enumerate(places)}
    series.faults = [(new[first], new[first] + 1) for first, _ in series.faults]
    series.at = [series.at[place] + timedelta(minutes=int(random.integers(-300, 900))) for place in places]
    series.values = series.values[places]
    series.learning = 45
    return series


@maker
def weekly_small_drops(random: np.random.Generator) -> Series:
    """Three days with 78 % of their rows: five standard deviations."""
    return _hit(_weekly(random), random, 0.78)


@maker
def wandering(random: np.random.Generator) -> Series:
    """A weekly load whose level wanders: each day's deviation is 0.8 of the last one's and something new. No fault."""
    series = _weekly(random, noise=0.0)
    level = np.zeros(180)
    for index in range(1, 180):
        level[index] = 0.8 * level[index - 1] + 0.06 * random.standard_normal()
    series.values = np.round(series.values * np.exp(level))
    return series


@maker
def wandering_drops(random: np.random.Generator) -> Series:
    """The same, with three days of half their rows."""
    return _hit(wandering(random), random, 0.5)


@maker
def summer_time(random: np.random.Generator) -> Series:
    """Visits by the hours of Berlin over the night in which its clocks change; once a morning without any."""
    zone = ZoneInfo("Europe/Berlin")
    start = datetime(2025, 3, 10, tzinfo=UTC)
    at = [start + timedelta(hours=index) for index in range(28 * 24)]
    hour = np.array([moment.astimezone(zone).hour for moment in at])
    rate = np.where((hour >= 8) & (hour < 20), 600, 30)
    values = random.poisson(rate * np.exp(0.05 * random.standard_normal(len(at)))).astype(float)
    place = 24 * 24 + 8
    values[place : place + 3] = 0
    return Series(
        "", "rate", "hour_of_day", 24, at, values, faults=[(place, place + 3)], learning=24 * 12, zone="Europe/Berlin"
    )


@maker
def rare_events(random: np.random.Generator) -> Series:
    """Mostly no rows; a batch of about 40 every tenth day or so, at no fixed interval; once 2,000."""
    series = _days(240, learning=90)
    series.values = np.where(random.random(240) < 0.1, random.poisson(40, 240), 0).astype(float)
    place = int(random.integers(120, 230))
    series.values[place] = 2_000
    series.faults.append((place, place + 1))
    return series
