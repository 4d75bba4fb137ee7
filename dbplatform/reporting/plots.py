"""The geometry of wide plots over time: a history, and what is to come of it. Numbers in, SVG path data out.

As with the small charts, words stand beside the picture and not in it: it stretches to the width of the page, and its
lines keep their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from dbplatform.capacity.trend import Sample, Trend, Until
from dbplatform.monitoring.kind import Unit
from dbplatform.monitoring.words import value_words

_WIDTH, _HEIGHT = 640, 200
_MOST_POINTS = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """One picture, and the words of its axes. ``band`` and ``middle`` are what is expected, from ``today`` on."""

    width: int
    height: int
    label: str
    line: str
    band: str
    middle: str
    limit: float | None
    """The height of the limit; none where it lies outside of the picture."""
    today: float | None
    steps: tuple[float, ...]
    top: str
    bottom: str
    left: str
    right: str


def amount(value: float, unit: Unit) -> str:
    """A value in words; a count with all its digits."""
    return f"{value:,.0f}" if unit == "count" else value_words(value, unit)


def history_plot(samples: Sequence[Sample], unit: Unit, *, since: datetime, until: datetime) -> Plot | None:
    """Values from ``since`` to ``until``; none where there are fewer than two."""
    seen = _thinned([one for one in samples if since <= one.at < until])
    if len(seen) < 2:
        return None
    values = [one.value for one in seen]
    low, high = _bounds(min(values), max(values))
    high = min(high, 1.0) if unit == "ratio" and max(values) <= 1 else high
    at = _Frame(since, until, low, high)
    return Plot(
        width=_WIDTH,
        height=_HEIGHT,
        label=f"from {amount(min(values), unit)} to {amount(max(values), unit)}, at the end {amount(values[-1], unit)}",
        line=_path([at.point(one.at, one.value) for one in seen]),
        band="",
        middle="",
        limit=None,
        today=None,
        steps=(),
        top=amount(high, unit),
        bottom=amount(low, unit),
        left=f"{since:%d %b}",
        right=f"{until - timedelta(days=1):%d %b}",
    )


def forecast_plot(
    samples: Sequence[Sample], unit: Unit, found: Trend | None, days: Until | None, limit: float | None
) -> Plot | None:
    """The history of a series with the range in which it is expected, and its limit where that is in sight."""
    if len(samples) < 2:
        return None
    first, now = samples[0].at, samples[-1].at
    past = max((now - first) / timedelta(days=1), 1.0)
    ahead = _ahead(found, days, past)
    end = now + timedelta(days=ahead)
    seen = _thinned(samples)
    values = [one.value for one in seen]
    coming = np.linspace(0, ahead, 60)
    lower, middle, upper = found.ahead(coming) if found is not None and ahead else (coming[:0],) * 3
    in_sight = limit is not None and days is not None and days.low is not None
    highest = max([*values, *upper.tolist(), *([limit] if in_sight and limit is not None else [])])
    if in_sight and limit is not None:
        highest = min(highest, 1.15 * limit)
    low, high = _bounds(max(0.0, min([*values, *lower.tolist()])), highest)
    at = _Frame(first, end, low, high)
    times = [now + timedelta(days=float(day)) for day in coming] if len(upper) else []
    above = [at.point(when, value) for when, value in zip(times, upper.tolist(), strict=True)]
    below = [at.point(when, value) for when, value in zip(times, lower.tolist(), strict=True)]
    words = f"from {amount(values[0], unit)} to {amount(values[-1], unit)} in {past:,.0f} days"
    return Plot(
        width=_WIDTH,
        height=_HEIGHT,
        label=f"{words}; {days.words}" if days is not None else words,
        line=_path([at.point(one.at, one.value) for one in seen]),
        band=f"M{'L'.join(f'{x:g} {y:g}' for x, y in [*above, *reversed(below)])}z" if above else "",
        middle=_path([at.point(when, value) for when, value in zip(times, middle.tolist(), strict=True)])
        if times
        else "",
        limit=at.y(limit) if in_sight and limit is not None else None,
        today=at.x(now) if ahead else None,
        steps=tuple(at.x(step.at) for step in found.steps) if found is not None else (),
        top=amount(high, unit),
        bottom=amount(low, unit),
        left=f"{first:%d %b %Y}",
        right=f"{end:%d %b %Y}",
    )


def _ahead(found: Trend | None, days: Until | None, past: float) -> float:
    """How many days of what is to come are shown: until the limit, where that is in sight, else half as long as was."""
    if found is None:
        return 0.0
    if days is None or days.low is None:
        return min(past / 2, float(found.horizon_days))
    reach = days.high or days.likely or days.horizon_days
    return float(min(max(1.15 * reach, past / 4), days.horizon_days, 3 * past))


def _bounds(low: float, high: float) -> tuple[float, float]:
    """The lowest and highest value of the picture; from zero, unless that would press the line flat."""
    if low < 0.6 * high:
        return 0.0, high * 1.02
    room = max(high - low, abs(high) * 0.01, 1e-9) * 0.15
    return max(0.0, low - room), high + room


def _thinned(samples: Sequence[Sample]) -> list[Sample]:
    """At most so many points as a screen can show."""
    every = max(1, len(samples) // _MOST_POINTS)
    kept = list(samples[::every])
    return kept if not samples or kept[-1] is samples[-1] else [*kept, samples[-1]]


@dataclass(frozen=True, slots=True)
class _Frame:
    """From times and values to points of a picture."""

    since: datetime
    until: datetime
    low: float
    high: float

    def x(self, at: datetime) -> float:
        return round(_WIDTH * float((at - self.since) / (self.until - self.since)), 1)

    def y(self, value: float) -> float:
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(_HEIGHT - 2 - share * (_HEIGHT - 4), 1)

    def point(self, at: datetime, value: float) -> tuple[float, float]:
        return self.x(at), self.y(value)


def _path(points: Sequence[tuple[float, float]]) -> str:
    return f"M{'L'.join(f'{x:g} {y:g}' for x, y in points)}" if points else ""
