"""Arithmetic of partitions: a grid of half-open ranges, in time or in whole numbers. Knows no database.

Month grids are aligned to January of year 0 (``3 months`` are quarters, ``12 months`` are years), day grids to Monday
0001-01-01 (``1 week`` starts on Mondays), grids of less than a day to midnight, grids of numbers to 0. Months and days
begin at midnight of a time zone, UTC unless another is asked for; a day of 23 or 25 hours is one cell. Bounds are
always in UTC. Times lie in the years 1 to 9999, numbers in those of a bigint; a cell that reaches over either end is
cut there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, overload

from dbplatform.postgres.words import Interval

#: A place on the partition key: a datetime in UTC, or a whole number. All points of one table are of one kind.
Point = Any
#: The width of a partition: a length of time, or how many numbers.
Step = Interval | int

FIRST = datetime.min.replace(tzinfo=UTC)
LAST = datetime.max.replace(tzinfo=UTC)
LOWEST = -(2**63)
HIGHEST = 2**63

_DAY = timedelta(days=1)
_MICROSECOND = timedelta(microseconds=1)
_DAY_MICROSECONDS = _DAY // _MICROSECOND


@dataclass(frozen=True, slots=True, order=True)
class Bounds:
    """``[lower, upper)``; ``FIRST`` and ``LAST``, ``LOWEST`` and ``HIGHEST``, stand for no limit."""

    lower: Point
    upper: Point

    def __contains__(self, point: Point) -> bool:
        return bool(self.lower <= point < self.upper)

    def __str__(self) -> str:
        return f"[{point_text(self.lower)}, {point_text(self.upper)})"

    @property
    def has_lower(self) -> bool:
        """Whether it has a limit below."""
        return self.lower not in (FIRST, LOWEST)

    @property
    def has_upper(self) -> bool:
        """Whether it has a limit above."""
        return self.upper not in (LAST, HIGHEST)


def point_text(point: Point) -> str:
    """A point as people read it: ISO 8601, or the number."""
    return str(point.isoformat()) if isinstance(point, datetime) else str(point)


@overload
def check_interval(interval: Interval) -> Interval: ...
@overload
def check_interval(interval: Step) -> Step: ...
def check_interval(interval: Step) -> Step:
    """The interval in the form that a grid uses; raises ValueError with a sentence when it cannot make one.

    24 hours are a day. A part of a day must divide it, because each day starts a partition.
    """
    if isinstance(interval, int):
        return interval
    whole_days, rest = divmod(interval.microseconds, _DAY_MICROSECONDS)
    if sum(map(bool, (interval.months, interval.days, interval.microseconds))) != 1:
        raise ValueError(f"the interval {str(interval)!r} mixes months, days and hours; write one of them")
    if interval.microseconds and not rest:
        return Interval(days=whole_days)
    if rest and (whole_days or _DAY_MICROSECONDS % rest):
        raise ValueError(f"the interval {str(interval)!r} does not divide a day; write 1, 2, 3, 4, 6, 8 or 12 hours")
    return interval


def cell(step: Step, point: Point, zone: tzinfo = UTC) -> Bounds:
    """The range of the grid that covers ``point``."""
    if isinstance(step, int):
        lower = point // step * step
        return Bounds(max(lower, LOWEST), min(lower + step, HIGHEST))
    step = check_interval(step)
    if step.microseconds:
        zone = UTC  # an hour of the clock may come twice, or not at all
    wall = _wall(point, zone)
    if step.months:
        index = (wall.year * 12 + wall.month - 1) // step.months
        lower, upper = _month(index * step.months), _month((index + 1) * step.months)
    else:
        width = step.timedelta // _MICROSECOND
        index = (wall - _WALL_FIRST) // _MICROSECOND // width
        lower, upper = _plus(index * width), _plus((index + 1) * width)
    return Bounds(_utc(lower, zone), _utc(upper, zone))


def cells(step: Step, span: Bounds, zone: tzinfo = UTC) -> Iterator[Bounds]:
    """The ranges of the grid from the one that covers ``span.lower`` until ``span.upper`` is reached, in order."""
    point = span.lower
    while point < span.upper:
        one = cell(step, point, zone)
        yield one
        point = one.upper


def following(step: Step, one: Bounds, steps: int, zone: tzinfo = UTC) -> Bounds:
    """The cell ``steps`` after ``one``."""
    for _ in range(steps):
        if not one.has_upper:
            break
        one = cell(step, one.upper, zone)
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


def pieces(step: Step, span: Bounds, taken: Iterable[Bounds], zone: tzinfo = UTC) -> Iterator[Bounds]:
    """The cells of the grid within ``span``, cut so that none overlaps ``taken`` and nothing is left uncovered."""
    for gap in gaps(span, taken):
        for one in cells(step, gap, zone):
            yield Bounds(max(one.lower, gap.lower), min(one.upper, gap.upper))


def covered_until(point: Point, taken: Iterable[Bounds]) -> Point:
    """The end of the coverage that reaches without a gap from ``point`` onwards; ``point`` when it is uncovered."""
    until = point
    for one in sorted(taken):
        if one.lower <= until < one.upper:
            until = one.upper
    return until


def suffix(step: Step, lower: Point, zone: tzinfo = UTC) -> str:
    """The end of a partition's name: as fine as the grid needs, or finer where a piece starts inside a cell.

    ``p2026_01`` (months), ``p2026_01_05`` (days), ``p2026_01_05_0600`` (hours), ``p20000`` and ``pm10000`` (numbers
    from 20000 and from -10000): two pieces never share one.
    """
    if isinstance(step, int):
        return f"p{lower}".replace("-", "m")
    wall = _wall(lower, UTC if check_interval(step).microseconds else zone)
    whole_month = wall == wall.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    whole_day = wall == wall.replace(hour=0, minute=0, second=0, microsecond=0)
    if lower != cell(step, lower, zone).lower and not whole_day:
        wall = _wall(lower, UTC)  # a wall clock may show one time twice
    text = f"p{wall.year:04d}_{wall.month:02d}"
    if step.months and whole_month:
        return text
    text += f"_{wall.day:02d}"
    if check_interval(step).microseconds == 0 and whole_day:
        return text
    text += f"_{wall.hour:02d}{wall.minute:02d}"
    if wall.second or wall.microsecond:
        text += f"{wall.second:02d}"
    if wall.microsecond:
        text += f"_{wall.microsecond:06d}"
    return text


def key_format(step: Step) -> str | None:
    """How the lower bound of a cell becomes the key of its period, by ``strftime``; None for numbers."""
    step = check_interval(step)
    if isinstance(step, int):
        return None
    if step.months:
        return "%Y-%m" if step.months % 12 else "%Y"
    if step.days:
        return "%Y-%m-%d"
    return "%Y-%m-%d-%H:%M:%S.%f" if step.microseconds % 60_000_000 else "%Y-%m-%d-%H:%M"


def key_of(step: Step, point: Point, zone: tzinfo = UTC) -> str:
    """The key of the cell that covers ``point``: ``2026-03``, ``2026-03-15``, ``1000000``."""
    lower, form = cell(step, point, zone).lower, key_format(step)
    if form is None:
        return str(lower)
    wall = _wall(lower, UTC if _is_part_of_a_day(step) else zone)
    return f"{wall.year:04d}{wall.strftime(form.removeprefix('%Y'))}"


def covering_key(step: Step, key: str, zone: tzinfo = UTC) -> Bounds:
    """The cell that covers what a key says; raises ValueError for a text that says no point."""
    form = key_format(step)
    if form is None:
        return cell(step, int(key))
    wall = datetime.strptime(key, form)  # noqa: DTZ007
    return cell(step, _utc(wall, UTC if _is_part_of_a_day(step) else zone), zone)


def _is_part_of_a_day(step: Step) -> bool:
    """Whether cells are counted in UTC, whatever the zone: an hour of a clock may come twice, or not at all."""
    return isinstance(step, Interval) and check_interval(step).microseconds > 0


_WALL_FIRST, _WALL_LAST = FIRST.replace(tzinfo=None), LAST.replace(tzinfo=None)


def _wall(moment: datetime, zone: tzinfo) -> datetime:
    """What a clock of the zone shows, without its zone."""
    try:
        return moment.astimezone(zone).replace(tzinfo=None, fold=0)
    except OverflowError:
        return moment.astimezone(UTC).replace(tzinfo=None)


def _utc(wall: datetime, zone: tzinfo) -> datetime:
    """When a clock of the zone first shows that time; the ends of the calendar stay what they are."""
    if wall in (_WALL_FIRST, _WALL_LAST):
        return wall.replace(tzinfo=UTC)
    try:
        return wall.replace(tzinfo=zone).astimezone(UTC)
    except OverflowError:
        return FIRST if wall.year == 1 else LAST


def _month(index: int) -> datetime:
    year, month = divmod(index, 12)
    if year < 1:
        return _WALL_FIRST
    return _WALL_LAST if year > 9999 else datetime(year, month + 1, 1)  # noqa: DTZ001


def _plus(microseconds: int) -> datetime:
    try:
        return _WALL_FIRST + timedelta(microseconds=microseconds)
    except OverflowError:
        return _WALL_LAST
