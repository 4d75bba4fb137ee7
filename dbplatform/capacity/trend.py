"""How fast something grows, and when it reaches a limit: a range, never one number. No database here.

A series is looked at once a day. What it grows by is the median of the slopes between all pairs of days (Theil 1950,
Sen 1968), so that no single day decides. A step (an archive, a repack, a load) is not growth: a day that lies far
outside of all others is taken out of the trend and told, unless it recurs, for then it belongs to the growth. Where the
last weeks grow otherwise than the time before, they alone count.

How uncertain that is comes from the series itself: how far it wanders from its trend in blocks of a week, which also
holds what is alike from week to week, and how much a single day is off. Both widen with the distance. How often the
truth lies in the range was measured on made series: ``docs/how-to/capacity.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

#: So much history is needed before anything is said.
MIN_DAYS: Final = 14
#: Older values say nothing about growth.
WINDOW_DAYS: Final = 180
#: Nothing is said of a time that is further away than so many times the history, nor than five years.
FAR: Final = 4
FARTHEST_DAYS: Final = 1_826
#: The share of cases in which the truth is meant to lie in the range.
SURE: Final = 0.90

_WEEK: Final = 7
#: A step: so many times what days differ by, so many days of growth, and this share of the level at least.
_STEP_SPREADS, _STEP_DAYS, _STEP_SHARE = 12.0, 20.0, 0.005
#: From so many steps upwards, or downwards, they are part of the growth: two loads are no accident.
_UP_RECURS, _DOWN_RECURS = 2, 3
#: The last weeks count alone when they differ by so many standard errors.
_CHANGE_ERRORS, _CHANGE_DAYS = 2.5, 28
#: Of what a block of a week wanders, at least this share is taken for a true change of the level.
_LEAST_WANDER: Final = 0.2

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sample:
    """A value at an aware time."""

    at: datetime
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A jump that is no growth, and the day on which it was seen."""

    at: datetime
    size: float

    def as_json(self) -> dict[str, Any]:
        """One entry of ``steps``."""
        return {"at": self.at.isoformat(), "size": self.size}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """The growth of one series: per day, with the range in which it lies in nine of ten cases.

    ``wander`` is the variance by which the level strays in a day, ``noise`` that of a single value, ``ripple`` that of
    a day around its week; ``sureness`` the quantile of Student's t by which a range is as wide as it is.
    """

    at: datetime
    days: int
    """The history that it rests on, in days."""
    level: float
    """The newest value."""
    per_day: float
    per_day_low: float
    per_day_high: float
    steps: tuple[Step, ...]
    """What was left out."""
    recurring: bool
    """Steps recur, so they are in the growth."""
    changed_at: datetime | None
    """From then on it grows otherwise, and nothing before counts."""
    wander: float
    noise: float
    ripple: float
    sureness: float

    @property
    def horizon_days(self) -> int:
        """Nothing is said of a time further away."""
        return min(FARTHEST_DAYS, FAR * self.days)

    def ahead(self, days: Floats) -> tuple[Floats, Floats, Floats]:
        """The level at these distances in days from now: low end, middle and high end of the range."""
        spread = self.sureness * np.sqrt(
            2 * self.ripple + self.wander * days + _slope_variance(self.wander, self.noise, self.days) * days**2
        )
        middle = self.level + self.per_day * days
        return middle - spread, middle, middle + spread

    def as_json(self) -> dict[str, Any]:
        """``growth`` of an entry."""
        return {
            "at": self.at.isoformat(),
            "history_days": self.days,
            "level": self.level,
            "per_day": self.per_day,
            "per_day_low": self.per_day_low,
            "per_day_high": self.per_day_high,
            "steps": [step.as_json() for step in self.steps],
            "steps_recur": self.recurring,
            "changed_at": self.changed_at.isoformat() if self.changed_at else None,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Until:
    """In how many days a limit is reached: none where it is not within ``horizon_days``.

    In nine of ten cases it lies between ``low`` and ``high``; ``likely`` is where the trend itself crosses.
    """

    low: float | None
    likely: float | None
    high: float | None
    horizon_days: int

    @property
    def words(self) -> str:
        """``between 40 and 90 days``; ``not within 360 days``."""
        if self.low is None:
            return f"not within {self.horizon_days:,} days"
        if self.high is None:
            return f"from {_days(self.low)} on, or not within {self.horizon_days:,} days"
        if self.high < 1:
            return "now"
        low, high = f"{self.low:,.0f}", f"{self.high:,.0f}"
        return f"in {_days(self.high)}" if low == high else f"between {low} and {high} days"

    def as_json(self) -> dict[str, Any]:
        """``days`` of a limit."""
        return {"low": self.low, "likely": self.likely, "high": self.high, "horizon": self.horizon_days}


def _days(count: float) -> str:
    return "1 day" if round(count) == 1 else f"{count:,.0f} days"


def trend(samples: Sequence[Sample]) -> Trend | None:
    """The growth of a series, in any order; None where fewer than ``MIN_DAYS`` days of it were seen."""
    known = sorted(samples, key=lambda sample: sample.at)[-50_000:]
    values = _daily(known) if known else np.zeros(0)
    if len(values) <= MIN_DAYS:
        return None
    at = known[-1].at
    smooth, steps, block, recurring = _without_steps(values)
    changed = _changed(smooth, block, lag=block if recurring else 1)
    used = smooth if changed is None else smooth[-changed - 1 :]
    days = len(used) - 1
    slope = _slope(used, block if recurring else 1)
    wander, noise = _uncertainty(np.diff(used), block)
    # A clock of whole bytes or connections is never more certain than that.
    sureness = _student(1.5 * days / block - 1)
    error = sureness * _slope_variance(wander, noise, days) ** 0.5
    return Trend(
        at=at,
        days=days,
        level=float(values[-1]),
        per_day=slope,
        per_day_low=slope - error,
        per_day_high=slope + error,
        steps=tuple(Step(at=at - timedelta(days=len(values) - 1 - index), size=float(size)) for index, size in steps),
        recurring=recurring,
        changed_at=None if changed is None else at - timedelta(days=changed),
        wander=wander,
        noise=noise,
        ripple=_ripple(used, block),
        sureness=sureness,
    )


def until(found: Trend, limit: float) -> Until:
    """When the level rises to ``limit``."""
    days = np.arange(found.horizon_days + 1, dtype=np.float64)
    low, middle, high = found.ahead(days)
    if found.level >= limit:
        return Until(low=0.0, likely=0.0, high=0.0, horizon_days=found.horizon_days)
    return Until(
        low=_first(days, high, limit),
        likely=_first(days, middle, limit),
        high=_first(days, low, limit),
        horizon_days=found.horizon_days,
    )


def _first(days: Floats, level: Floats, limit: float) -> float | None:
    """The day on which a level first reaches a limit."""
    reached = np.flatnonzero(level >= limit)
    return float(days[reached[0]]) if len(reached) else None


def _daily(samples: Sequence[Sample]) -> Floats:
    """A value for each day back from the newest sample, gaps filled evenly; nothing where too few days were seen."""
    newest = samples[-1].at
    age = np.array([(newest - sample.at) / timedelta(days=1) for sample in samples])
    value = np.array([sample.value for sample in samples], dtype=np.float64)
    recent = age <= WINDOW_DAYS
    age, value = age[recent], value[recent]
    seen = len(np.unique(np.floor(age)))
    if seen < MIN_DAYS:
        return np.zeros(0)
    whole = np.arange(int(age.max()), -1, -1, dtype=np.float64)
    return np.interp(-whole, -age, value)


def _without_steps(values: Floats) -> tuple[Floats, list[tuple[int, float]], int, bool]:
    """The series without its steps, these with their places, the length of the blocks in which it is alike, and whether
    steps recur."""
    rates = np.diff(values)
    centre = float(np.median(rates))
    spread = 1.4826 * float(np.median(np.abs(rates - centre)))
    least = max(_STEP_SPREADS * spread, _STEP_DAYS * abs(centre), _STEP_SHARE * float(np.abs(values).max()))
    shifts: list[list[int]] = []
    for place in np.flatnonzero(np.abs(rates - centre) > least):
        if shifts and place == shifts[-1][-1] + 1 and (rates[place] > centre) == (rates[place - 1] > centre):
            shifts[-1].append(int(place))
        else:
            shifts.append([int(place)])
    up = [shift for shift in shifts if rates[shift[0]] > centre]
    down = [shift for shift in shifts if rates[shift[0]] <= centre]
    block, once = _WEEK, list[list[int]]()
    for direction, recurs in ((up, _UP_RECURS), (down, _DOWN_RECURS)):
        if len(direction) < recurs:
            once += direction
        else:
            spacing = float(np.mean(np.diff([shift[0] for shift in direction])))
            block = max(block, min(round(spacing), len(rates) // 2))
    smooth, found = rates.copy(), []
    for shift in once:
        found.append((shift[-1] + 1, float(np.sum(rates[shift] - centre))))
        smooth[shift] = centre
    # Earlier values move, so that the newest one stays what it is.
    without = values[-1] - np.append(np.cumsum(smooth[::-1])[::-1], 0.0)
    return without, sorted(found), block, len(once) < len(shifts)


def _changed(values: Floats, block: int, *, lag: int) -> int | None:
    """The days at the end that grow otherwise than those before; None where they do not, or that cannot be told."""
    recent = max(_CHANGE_DAYS, (len(values) - 1) // 3, block)
    before = len(values) - 1 - recent
    if before < max(_CHANGE_DAYS, block):
        return None
    first, last = values[: before + 1], values[before:]
    slopes = _slope(first, lag), _slope(last, lag)
    apart = np.concatenate([np.diff(first) - np.mean(np.diff(first)), np.diff(last) - np.mean(np.diff(last))])
    wander, noise = _uncertainty(apart, block)
    variance = _slope_variance(wander, noise, before) + _slope_variance(wander, noise, recent)
    return recent if abs(slopes[1] - slopes[0]) > _CHANGE_ERRORS * variance**0.5 else None


def _slope(values: Floats, lag: int) -> float:
    """The median of the slopes between all pairs of days, of such that are a multiple of ``lag`` apart."""
    first, second = np.triu_indices(len(values), 1)
    if lag > 1:
        alike = (second - first) % lag == 0
        first, second = first[alike], second[alike]
    return float(np.median((values[second] - values[first]) / (second - first)))


def _uncertainty(rates: Floats, block: int) -> tuple[float, float]:
    """The variance by which the level strays in a day, and that of a single value around its level.

    A value that is off makes the next day's growth err the other way, so noise shows as a negative covariance of
    neighbours, and does not add up over blocks of twice the length as straying does. What is alike from block to block
    is neither.
    """
    apart = rates - np.mean(rates)
    varies, noise = _of_blocks(apart, block), 0.0
    if len(apart) >= 3 * block:
        steady = varies - _of_blocks(apart, 2 * block) / 2
        noise = max(0.0, min(-float(np.mean(apart[1:] * apart[:-1])), steady))
    return max(varies - 2 * noise, _LEAST_WANDER * varies) / block, noise


def _of_blocks(apart: Floats, block: int) -> float:
    """The variance of the growth of a block. Overlapping ones around a mean of their own vary too little."""
    sums = np.convolve(apart, np.ones(block), mode="valid")
    return float(np.mean(sums**2)) / max(1 - block / len(apart), 0.25)


def _ripple(values: Floats, block: int) -> float:
    """The variance of values around the mean of their block: the newest one, and that at the limit, are off by it."""
    odd = block | 1
    middle = np.convolve(values, np.ones(odd) / odd, mode="valid")
    return float(np.var(values[odd // 2 : odd // 2 + len(middle)] - middle))


def _slope_variance(wander: float, noise: float, days: int) -> float:
    """Of a slope fitted through a path that strays (6/5, Durlauf and Phillips 1988) and whose values are noisy."""
    return 1.2 * wander / days + 12 * noise / days**3


def _student(freedom: float) -> float:
    """The quantile of Student's t for ``SURE``, by Cornish and Fisher's expansion (Abramowitz and Stegun 26.7.5)."""
    z, v = 1.6448536269514722, max(2.0, freedom)
    assert SURE == 0.90
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / v ** (power + 1) for power, term in enumerate(terms))
