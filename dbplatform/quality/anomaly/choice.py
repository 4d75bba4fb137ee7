"""Which season a series has, where none is declared: the one that lets its values be told from each other best."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dbplatform.quality.anomaly.baseline import Array, Kind, median, running_mean, scaled
from dbplatform.quality.anomaly.points import Point
from dbplatform.quality.anomaly.seasons import CYCLE, Calendar, Season

_TURNS = 3  # of a season that must have been seen
_WORTH = 0.8  # of the error without a season that is left with one worth having
_FINER_IS_WORTH = 0.8  # of the coarser one's error that a season of more keys must leave
_CLIPPED = 0.97  # the quantile at which errors are cut, so that a single fault decides nothing
_DAYS: dict[Season, float] = {"hour_of_day": 1, "hour_of_week": 7, "day_of_week": 7, "day_of_month": 31}


def chosen_season(points: Sequence[Point], kind: Kind, calendar: Calendar) -> Season:
    """The season of a series, from its past: leave the value that is judged out.

    A value is foretold by the others of its key, never by itself. Hours are looked at where there are at least four
    values a day, else days.
    """
    if len(points) < _TURNS:
        return "none"
    span = (points[-1].at - points[0].at).total_seconds() / 86_400
    hours = len({calendar.slot("hour_of_day", point.at) for point in points})
    often = hours >= 4 * max(span, 1)
    best: Season = "none"
    least = _WORTH
    for season in ("hour_of_day", "hour_of_week") if often else ("day_of_week", "day_of_month"):
        if span >= _TURNS * _DAYS[season]:
            left = _left(points, season, kind, calendar)
            if left < least:
                best, least = season, left * _FINER_IS_WORTH
    return best


def _left(points: Sequence[Point], season: Season, kind: Kind, calendar: Calendar) -> float:
    """How much of the error a season leaves: 1 and more where it explains nothing."""
    last = calendar.last_of_each_slot(points, season)
    keys = np.array([calendar.key(season, point.at) for point in last])
    values = scaled(np.array([point.value for point in last]), kind)
    distance = values - running_mean(values, CYCLE[season])
    without = np.abs(distance - median(distance))
    ceiling = np.quantile(without, _CLIPPED)
    with_season = np.concatenate([_foretold_by_others(distance[keys == key]) for key in np.unique(keys)])
    total = float(np.minimum(without, ceiling).sum())
    return float(np.minimum(with_season, ceiling).sum()) / total if total else 1.0


def _foretold_by_others(values: Array) -> Array:
    """How far each is from the median of the others; of a single one, from nothing."""
    if len(values) == 1:
        return np.abs(values)
    return np.array([abs(value - median(np.delete(values, place))) for place, value in enumerate(values)])
