"""Whether a value is what its own past lets expect.

The series is walked from its beginning, and each value is judged by what came before it alone:

1. **Season.** What values of the same hour, weekday or day of the month have in common: the median of their distance
   from the running mean of a full turn.
2. **Level.** Four simple forecasts of what is left (the median of a long past, of a short one, the last value with
   the usual step, a Theil-Sen line); the one whose past errors were smallest is used. So a stationary series has a
   long memory, in which a slow drift shows, and one that grows has a slope.
3. **Width.** How far that forecast has missed before: the median of its past errors, or, for heavy tails, their
   quantile of 97.5 %, whichever is wider, times the sensitivity; at least what chance alone does to counts and
   shares. Where the past was constant, nothing else is expected.

A value outside is left out of what follows: it moves neither level nor width. Two ways lead back: a level that has
lasted for ``new_normal_after``, or that was accepted three times in a row, is the new normal (the past is moved to
it, and keeps its season); and what recurs, more than one value in twenty, widens the range.

Counts are judged as logarithms, so that a Saturday may be half a Friday whatever the level is. The method is measured
in ``benchmarks/anomaly``.

Sources: P. J. Rousseeuw, C. Croux, Alternatives to the Median Absolute Deviation, JASA 88 (1993); P. K. Sen,
Estimates of the Regression Coefficient Based on Kendall's Tau, JASA 63 (1968).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Literal

import numpy as np

from dbplatform.quality.anomaly.points import Judged, Point
from dbplatform.quality.anomaly.seasons import CYCLE, LEAST, WALKED, Calendar, Season

Array = np.ndarray[Any, np.dtype[Any]]
Direction = Literal["up", "down", "both"]
Kind = Literal["total", "rate", "ratio", "number", "age"]
"""A number of rows in all; of rows in a period, which chance moves; a share of rows; any number; seconds of age."""

_MEMORY = 100  # how many past errors give the width
_FEWEST_ERRORS = 6
_TAIL = 0.975
_TAIL_OF_NORMAL = 2.2414  # that quantile of |error| in standard deviations, where errors are normal
_MAD_OF_NORMAL = 0.6745  # the median of |error|, likewise
_BETTER = 0.85  # of the simpler forecast's error another must have, to be preferred
_RECURRING = 0.05
_CYCLES = 10  # of a season, from which it is learned
_DRIFT = 7  # values that together show a drift
_OF_A_MEDIAN = 0.5  # the standard deviation of such a median, in those of one value
_TO_ADOPT = 3  # values that a new normal is at least made of
_SAME_SIDE = 0.8
_MINUTE = 60.0  # the standard deviation of an age that nobody cares about, in seconds
_NOTHING = 1e-9  # what rounding makes of a constant, relative to it
_ROUNDED = 1e-3  # of a row: what a logarithm there and back may cost


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How a series is judged. ``width`` is in robust standard deviations, ``least_history`` in comparable values."""

    kind: Kind
    calendar: Calendar
    season: Season = "none"
    width: float = 4.0
    direction: Direction = "both"
    least_history: int | None = None
    new_normal_after: timedelta = timedelta(days=7)

    @property
    def needed(self) -> int:
        """How many comparable values a value needs to be judged."""
        return self.least_history or LEAST[self.season]


def judged(points: Sequence[Point], rules: Rules) -> list[Judged]:
    """Each value of a series, oldest first, beside what those before it lead to expect.

    Only the last value of an hour or day counts, and only the newest ``WALKED``. Values that are no finite number are
    left out.
    """
    finite = [point for point in points if math.isfinite(point.value)]
    walk = _Walk(rules.calendar.last_of_each_slot(finite, rules.season)[-WALKED[rules.season] :], rules)
    return [walk.judge(index) for index in range(len(walk.points))]


class _Walk:
    """A series on its way from its first value to its last, scaled so that what is usual adds up."""

    def __init__(self, points: Sequence[Point], rules: Rules) -> None:
        self.points, self.rules = points, rules
        self.cycle = CYCLE[rules.season]
        self.days = np.array([point.at.timestamp() / 86_400 for point in points])
        self.scaled = scaled(np.array([point.value for point in points]), rules.kind)
        keys = [rules.calendar.key(rules.season, point.at) for point in points]
        self.keys = np.unique(np.array(keys, dtype=int), return_inverse=True)[1]
        self.season = np.zeros(len(set(keys)))
        self.errors = np.full((len(points), len(FORECASTS)), np.nan)
        self.moves = np.full(len(points), np.nan)
        self.chosen = np.zeros(len(points), dtype=int)
        self.side = np.zeros(len(points), dtype=int)
        """1: above the range, -1: below it."""
        self.left_out = np.zeros(len(points), dtype=bool)

    def judge(self, index: int) -> Judged:
        """One value, after all before it."""
        point, used = self.points[index], np.flatnonzero(~self.left_out[:index])
        comparable = used[self.keys[used] == self.keys[index]]
        found = Judged(
            point=point,
            comparable=int(comparable.size),
            since=self.points[comparable[0]].at if comparable.size else None,
        )
        if not comparable.size or used.size < 2:
            return found
        self._learn_season(index)
        own = float(self.season[self.keys[index]])
        level = self.scaled[used] - self.season[self.keys[used]]
        forecasts = np.array([forecast(self.days[used], level, self.days[index]) for forecast in FORECASTS])
        forecasts += own
        best = self.chosen[index] = self._best(index)
        missed = self._missed(index, best)
        error = self.scaled[index] - forecasts
        if comparable.size >= min(2, self.rules.needed - 1):  # before, the season is not known
            self.errors[index] = error
        self.moves[index] = move = _move(level, self.scaled[index] - own)
        if comparable.size < self.rules.needed or missed.size < _FEWEST_ERRORS:
            return found
        half = self._half_width(missed, forecasts[best])
        constant = self.rules.kind == "rate" and half < 2 * _NOTHING * (1 + abs(forecasts[best]))
        chance = (0.0, 0.0) if constant else by_chance(forecasts[best], point.rows, self.rules)
        below, above = max(half, chance[0]), max(half, chance[1])
        outside = not -below <= error[best] <= above
        drifted = not outside and best == 0 and self._drifted(index, max(below, above))
        side = 0
        if outside or drifted:
            self.side[index] = side = 1 if (error[best] if outside else move) > 0 else -1
            self.left_out[index] = True
            self._adopt(index)
        return replace(self._ranged(found, forecasts[best], below, above, side), drifted=drifted)

    def _drifted(self, index: int, half: float) -> bool:
        """Whether the last values together lie further from those before than chance and their own past explain.

        ``half`` is the half width of the range of one value.
        """
        past = np.abs(self.moves[: max(0, index - _DRIFT)])
        past = past[~np.isnan(past)][-_MEMORY:]
        usual = median(past) / _MAD_OF_NORMAL * self.rules.width if past.size else 0.0
        return bool(abs(self.moves[index]) > max(half * _OF_A_MEDIAN, usual))

    def _learn_season(self, index: int) -> None:
        """What the keys have in common, from all values before; a fault spoils one of several turns."""
        if self.rules.season == "none" or index % max(1, self.cycle // 7):
            return
        first = max(0, index - _CYCLES * self.cycle)
        past, keys = self.scaled[first:index], self.keys[first:index]
        distance = past - running_mean(past, self.cycle)
        place, around = np.arange(len(past)), self.cycle // 2
        whole = (place >= around) & (place < len(past) - around)
        for key in np.unique(keys):
            own = keys == key
            self.season[key] = median(distance[own & whole] if np.any(own & whole) else distance[own])

    def _best(self, index: int) -> int:
        """The forecast that has missed least; a simpler one unless another is clearly better."""
        known = np.abs(self.errors[:index][~self.left_out[:index]][-_MEMORY:])
        known = known[~np.isnan(known[:, 0])]
        if len(known) < _FEWEST_ERRORS:
            return 0
        ceiling = 3 * np.sort(known, axis=0)[len(known) // 2] + 1e-12
        sums = np.minimum(known, ceiling).sum(axis=0)
        best = 0
        for other in range(1, len(FORECASTS)):
            if sums[other] < _BETTER * sums[best]:
                best = other
        return best

    def _missed(self, index: int, best: int) -> Array:
        """The past errors of a forecast; those of values that were left out only where such values recur."""
        known = np.flatnonzero(~np.isnan(self.errors[:index, best]))[-_MEMORY:]
        left_out = self.left_out[known]
        settled = self.days[known] < self.days[index] - self.rules.new_normal_after.total_seconds() / 86_400
        recurring = int(np.sum(left_out & settled)) >= max(_TO_ADOPT, _RECURRING * len(known))
        counted = ~left_out | settled if recurring else ~left_out
        missed: Array = np.abs(self.errors[known[counted], best])
        return missed

    def _half_width(self, missed: Array, expected: float) -> float:
        """Of the range of a forecast that has missed so before."""
        usual = median(missed) / _MAD_OF_NORMAL
        tail = float(np.quantile(missed, _TAIL)) / _TAIL_OF_NORMAL
        return self.rules.width * max(usual, tail) + _NOTHING * (1 + abs(expected))

    def _adopt(self, index: int) -> None:
        """Where the values of late lie on one side, and for long enough, they are the normal from here on."""
        recent = np.flatnonzero(self.days[: index + 1] >= self._long_ago(index))
        recent = np.arange(index + 1)[-max(len(recent), _TO_ADOPT) :]
        accepted = [point.accepted for point in self.points[index + 1 - _TO_ADOPT : index + 1]]
        if len(accepted) == _TO_ADOPT and all(accepted):
            recent = recent[-_TO_ADOPT:]
        side = self.side[index]
        same = self.side[recent] == side
        if len(recent) < _TO_ADOPT or not same[0] or np.mean(same) < _SAME_SIDE:
            return
        first = int(recent[0])
        while first and self.side[first - 1] == side:
            first -= 1
        moved = recent[same]
        self.scaled[:first] += median(self.errors[moved, self.chosen[moved]])
        self.left_out[first : index + 1] = False
        self.side[first : index + 1] = 0
        self.errors[first : index + 1] = np.nan
        self.moves[first : index + 1] = np.nan

    def _long_ago(self, index: int) -> float:
        return float(self.days[index]) - self.rules.new_normal_after.total_seconds() / 86_400

    def _ranged(self, found: Judged, expected: float, below: float, above: float, side: int) -> Judged:
        kind, direction = self.rules.kind, self.rules.direction
        low, middle, high = (unscaled(value, kind) for value in (expected - below, expected, expected + above))
        if kind in ("total", "rate") and math.ceil(low - _ROUNDED) <= math.floor(high + _ROUNDED):
            low, high = math.ceil(low - _ROUNDED), math.floor(high + _ROUNDED)
        return replace(
            found,
            expected=middle,
            low=None if direction == "up" else low,
            high=None if direction == "down" else high,
            anomalous=(side == 1 and direction != "down") or (side == -1 and direction != "up"),
        )


def median(values: Array) -> float:
    """The middle of some values; ten times as fast as NumPy's for a few."""
    ordered = np.sort(values)
    return float(ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


def _long(days: Array, level: Array, at: float) -> float:
    """The median of a long past."""
    return median(level[-90:])


def _short(days: Array, level: Array, at: float) -> float:
    """The median of a short past."""
    return median(level[-5:])


def _stepped(days: Array, level: Array, at: float) -> float:
    """The last value, gone on as fast as values usually do."""
    days, level = days[-30:], level[-30:]
    steps = np.diff(level) / np.maximum(np.diff(days), 1e-6)
    return float(level[-1] + median(steps) * (at - days[-1]))


def _line(days: Array, level: Array, at: float) -> float:
    """The line whose slope is the median of the slopes between all pairs."""
    days, level = days[-30:] - at, level[-30:]
    first, second = np.triu_indices(len(days), 1)
    slope = median((level[second] - level[first]) / np.maximum(days[second] - days[first], 1e-6))
    return median(level - slope * days)


#: From the simplest on.
FORECASTS = (_long, _short, _stepped, _line)


def _move(level: Array, value: float) -> float:
    """How far the median of the last values, this one with them, is from that of the long past before."""
    before, late = level[-90 : -_DRIFT + 1], level[-_DRIFT + 1 :]
    return median(np.append(late, value)) - median(before) if len(before) >= _DRIFT else math.nan


def running_mean(values: Array, width: int) -> Array:
    """The mean of a full turn around each value; at the ends of the part of it that there is."""
    weights = np.ones(width + 1 - width % 2)
    if not width % 2:
        weights[[0, -1]] = 0.5
    weights = weights[: 2 * len(values) - 1] if len(values) * 2 - 1 < len(weights) else weights
    around = len(weights) // 2
    sums = np.convolve(values, weights)[around : around + len(values)]
    numbers = np.convolve(np.ones(len(values)), weights)[around : around + len(values)]
    means: Array = sums / numbers
    return means


def by_chance(expected: float, rows: int | None, rules: Rules) -> tuple[float, float]:
    """How far below and above chance alone brings a count in a period, a share of rows or an age, in scaled values.

    The square root of a count that chance makes has a standard deviation of a half, whatever the count is.
    """
    match rules.kind:
        case "rate":
            root = math.sqrt(max(math.expm1(min(expected, 700.0)), 0.0) + 3 / 8)
            least, most = max(root - rules.width / 2, 0.0) ** 2 - 3 / 8, (root + rules.width / 2) ** 2 - 3 / 8
            return expected - math.log1p(max(least, -0.5)), math.log1p(most) - expected
        case "ratio" if rows:
            share = min(max(expected, 0.5 / rows), 1 - 0.5 / rows)
            half = rules.width * math.sqrt(share * (1 - share) / rows)
            return half, half
        case "age":
            return rules.width * _MINUTE, rules.width * _MINUTE
        case _:
            return 0.0, 0.0


def scaled(values: Array, kind: Kind) -> Array:
    """Counts of a period as logarithms of one more."""
    found: Array = np.log1p(values) if kind == "rate" else values.astype(float)
    return found


def unscaled(value: float, kind: Kind) -> float:
    """The number that a scaled one stands for, in the bounds of its kind."""
    if kind == "rate":
        return max(math.expm1(min(value, 700.0)), 0.0)
    if kind in ("number", "age"):
        return value
    return max(value, 0.0) if kind == "total" else min(max(value, 0.0), 1.0)
