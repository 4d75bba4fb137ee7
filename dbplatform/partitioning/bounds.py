"""Calendar arithmetic of partitions: a grid of half-open ranges in UTC. Knows no database.

Month grids are aligned to January of year 0 (``3 months`` are quarters, ``12 months`` are years), day grids to Monday
0001-01-01 (``1 week`` starts on Mondays), grids of less than a day to midnight. Times lie in the years 1 to 9999; a
cell that reaches over either end is cut there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from dbplatform.postgres.words import Interval

FIRST = datetime.min.replace(tzinfo=UTC)
LAST = datetime.max.replace(tzinfo=UTC)

_DAY = timedelta(days=1)
_MICROSECOND = timedelta(microseconds=1)
_DAY_MICROSECONDS = _DAY // _MICROSECOND


@dataclass(frozen=True, slots=True, order=True)
class Bounds:
    """``[lower, upper)``, UTC; ``FIRST`` and ``LAST`` stand for no limit."""

    lower: datetime
    upper: datetime

    def __contains__(self, moment: datetime) -> bool:
        return self.lower <= moment < self.upper

    def __str__(self) -> str:
        return f"[{self.lower.isoformat()}, {self.upper.isoformat()})"


def check_interval(interval: Interval) -> Interval:
    """The interval in the form that a grid uses; raises ValueError with a sentence when it cannot make one.

    24 hours are a day. A part of a day must divide it, because each day starts a partition.
    """
    whole_days, rest = divmod(interval.microseconds, _DAY_MICROSECONDS)
    if sum(map(bool, (interval.months, interval.days, interval.microseconds))) != 1:
        raise ValueError(f"the interval {str(interval)!r} mixes months, days and hours; write one of them")
    if interval.microseconds and not rest:
        return Interval(days=whole_days)
    if rest and (whole_days or _DAY_MICROSECONDS % rest):
        raise ValueError(f"the interval {str(interval)!r} does not divide a day; write 1, 2, 3, 4, 6, 8 or 12 hours")
    return interval


def cell(interval: Interval, moment: datetime) -> Bounds:
    """The range of the grid that covers ``moment``."""
    interval = check_interval(interval)
    moment = moment.astimezone(UTC)
    if interval.months:
        index = (moment.year * 12 + moment.month - 1) // interval.months
        return Bounds(_month(index * interval.months), _month((index + 1) * interval.months))
    step = interval.timedelta // _MICROSECOND
    index = (moment - FIRST) // _MICROSECOND // step
    return Bounds(FIRST + index * step * _MICROSECOND, _plus((index + 1) * step))


def cells(interval: Interval, span: Bounds) -> Iterator[Bounds]:
    """The ranges of the grid from the one that covers ``span.lower`` until ``span.upper`` is reached, in order."""
    moment = span.lower
    while moment < span.upper:
        one = cell(interval, moment)
        yield one
        moment = one.upper


def following(interval: Interval, one: Bounds, steps: int) -> Bounds:
    """The cell ``steps`` after ``one``."""
    for _ in range(steps):
        if one.upper == LAST:
            break
        one = cell(interval, one.upper)
    return one


def gaps(span: Bounds, taken: Iterable[Bounds]) -> Iterator[Bounds]:
    """What of ``span`` is not covered by ``taken`` (which do not overlap), in order."""
    lower = span.lower
    for one in sorted(taken):
        if one.upper <= lower:
            continue
        if one.lower >= span.upper:
            break
        if lower < one.lower:
            yield Bounds(lower, one.lower)
        lower = one.upper
    if lower < span.upper:
        yield Bounds(lower, span.upper)


def pieces(interval: Interval, span: Bounds, taken: Iterable[Bounds]) -> Iterator[Bounds]:
    """The cells of the grid within ``span``, cut so that none overlaps ``taken`` and no time is left uncovered."""
    for gap in gaps(span, taken):
        for one in cells(interval, gap):
            yield Bounds(max(one.lower, gap.lower), min(one.upper, gap.upper))


def covered_until(moment: datetime, taken: Iterable[Bounds]) -> datetime:
    """The end of the coverage that reaches without a gap from ``moment`` onwards; ``moment`` when it is uncovered."""
    until = moment
    for one in sorted(taken):
        if one.lower <= until < one.upper:
            until = one.upper
    return until


def suffix(interval: Interval, lower: datetime) -> str:
    """The end of a partition's name: as fine as the grid needs, or finer where a piece starts inside a cell.

    ``p2026_01`` (months), ``p2026_01_05`` (days), ``p2026_01_05_0600`` (hours): two pieces never share one.
    """
    whole_month = lower == lower.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    whole_day = lower == lower.replace(hour=0, minute=0, second=0, microsecond=0)
    text = f"p{lower.year:04d}_{lower.month:02d}"
    if interval.months and whole_month:
        return text
    text += f"_{lower.day:02d}"
    if check_interval(interval).microseconds == 0 and whole_day:
        return text
    text += f"_{lower.hour:02d}{lower.minute:02d}"
    if lower.second or lower.microsecond:
        text += f"{lower.second:02d}"
    if lower.microsecond:
        text += f"_{lower.microsecond:06d}"
    return text


def _month(index: int) -> datetime:
    year, month = divmod(index, 12)
    if year < 1:
        return FIRST
    return LAST if year > 9999 else datetime(year, month + 1, 1, tzinfo=UTC)


def _plus(microseconds: int) -> datetime:
    try:
        return FIRST + timedelta(microseconds=microseconds)
    except OverflowError:
        return LAST
