"""The values of metrics in each day or hour of a time column, measured by one query of a bounded window.

Days and hours are those of the check's time zone; a column without a zone is UTC, a date is the day that it says. The
condition on the column stands alone, so that an index or the partitions bound what is read.

What is not measured: the period that goes on, those whose rows may still come (``lag``), and the first one in the
table, which may have begun before its rows. A period before that is what earlier runs have found in it: rows that
were archived since are no fault. A period without rows counts as 0 where rows or values are counted; a mean of
nothing is no value, which is missed where there usually is one (``silent``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from psycopg import sql

from dbplatform.postgres.catalog import columns
from dbplatform.postgres.connection import SnapshotConnection
from dbplatform.postgres.identifiers import Relation
from dbplatform.quality.anomaly.points import Memory, Point
from dbplatform.quality.anomaly.seasons import Calendar, Season
from dbplatform.quality.checks.base import both
from dbplatform.quality.checks.conditions import COUNT, column_of

if TYPE_CHECKING:
    from dbplatform.quality.checks.anomaly import Anomaly

_COUNTS = ("row_count", "distinct_values")
_USUAL = timedelta(days=28)


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Whole periods, half open, and what was measured in them."""

    start: datetime
    end: datetime
    zone: ZoneInfo
    """Whose days and hours they are; that of a date is UTC."""
    measured: tuple[Point, ...]
    """Only periods with a value; one without rows has none."""
    first: datetime | None
    """The first period in which the table has a row at all, whatever ``where`` says."""


def measured(connection: SnapshotConnection, check: Anomaly, relation: Relation, now: datetime) -> Window:
    """Read the window that ends before the period of ``now``; raises ``psycopg.Error``."""
    return measured_together(connection, [check], relation, now)[0]


def measured_together(
    connection: SnapshotConnection, checks: Sequence[Anomaly], relation: Relation, now: datetime
) -> list[Window]:
    """The window of each of some checks, of one time column by one unit in one time zone, by one query of the longest.

    Raises ``psycopg.Error``.
    """
    by, hourly = checks[0].by, checks[0].hourly
    dates = any(column.name == by and column.type == "date" for column in columns(connection, relation))
    zone = ZoneInfo("UTC" if dates else checks[0].time_zone)
    ends = [_begun(now - check.lag.timedelta if check.lag else now, zone, hourly=hourly) for check in checks]
    starts = [
        _begun(end - timedelta(days=check.window_days), zone, hourly=hourly)
        for check, end in zip(checks, ends, strict=True)
    ]
    query = _statement(checks, relation, zone.key, _moment(min(starts)), _moment(max(ends)))
    rows = connection.execute(sql.Composed([query]), binary=True).fetchall()
    return [_window(rows, place, start, end, zone) for place, (start, end) in enumerate(zip(starts, ends, strict=True))]


def _window(rows: Sequence[tuple[Any, ...]], place: int, start: datetime, end: datetime, zone: ZoneInfo) -> Window:
    """What the rows of the query say of the check at ``place`` in its own window."""
    own = [(row[0], row[1], row[2 + 2 * place], row[3 + 2 * place]) for row in rows if start <= row[0] < end]
    points = tuple(Point(at=at, value=float(value), rows=passing) for at, _, passing, value in own if value is not None)
    first = next((at for at, present, _, _ in own if present), None)
    return Window(start=start, end=end, zone=zone, measured=points, first=first)


def statement(
    check: Anomaly, relation: Relation, zone: str, start: sql.Composable, end: sql.Composable
) -> sql.Composable:
    """For each period with rows: its beginning, its rows, those that pass ``where``, the value."""
    return _statement([check], relation, zone, start, end)


def _statement(
    checks: Sequence[Anomaly], relation: Relation, zone: str, start: sql.Composable, end: sql.Composable
) -> sql.Composable:
    """For each period with rows: its beginning, its rows, and for each check those that pass ``where``, the value."""
    assert checks[0].by is not None
    by = column_of(relation, checks[0].by)
    measures = [part for check in checks for part in (_filtered(COUNT, check.where_sql), _value(check, relation))]
    return sql.SQL(
        "select date_trunc({unit}, {by}::timestamptz, {zone}) as period, count(*), {measures}\nfrom {table} "
        "where {by} >= {start} and {by} < {end}\ngroup by 1 order by 1"
    ).format(
        unit=sql.Literal("hour" if checks[0].hourly else "day"),
        by=by,
        zone=sql.Literal(zone),
        measures=sql.SQL(", ").join(measures),
        table=relation.identifier,
        start=start,
        end=end,
    )


def series(check: Anomaly, window: Window, memory: Memory) -> list[Point]:
    """The values of all periods, oldest first: as the table has them, before its first row as they were remembered."""
    now = {point.at: point for point in window.measured}
    before = {point.at: point for point in memory.points if window.start <= point.at < window.end}
    # A window that begins in the middle of the rows begins with a whole period.
    partial = window.first if window.first is not None and window.first > window.start else None
    points = []
    known = False
    for at in _periods(window, before, hourly=check.hourly):
        point = now.get(at)
        if (partial is not None and at <= partial) or window.first is None:
            point = before.get(at, point if known else None)
        known = known or point is not None or (window.first is not None and at >= window.first)
        if point is None and known and check.metric in _COUNTS and (partial is None or at != partial):
            point = Point(at=at, value=0.0, rows=0)
        if point is not None:
            points.append(Point(at=at, value=point.value, rows=point.rows, accepted=at in memory.accepted))
    return points


def silent(check: Anomaly, window: Window, points: Sequence[Point], season: Season) -> list[datetime]:
    """The whole periods after the newest value of which there should be one, too.

    Not the one in which the table begins, and none of a weekday (with hours: of an hour of the week; where the season
    is the month: of a day of the month) that had no value in the 28 days before the newest: where nothing happens on
    Sundays, this one tells nothing.
    """
    kind: Season = season if season == "day_of_month" else "hour_of_week" if check.hourly else "day_of_week"
    calendar, last = Calendar(window.zone), points[-1].at
    usual = {calendar.key(kind, point.at) for point in points if point.at > last - _USUAL}
    periods = _periods(window, {point.at: point for point in points}, hourly=check.hourly)
    return [at for at in periods if at > last and at != window.first and calendar.key(kind, at) in usual]


def _periods(window: Window, before: dict[datetime, Point], *, hourly: bool) -> Iterator[datetime]:
    """The beginnings of all periods; those of days may be 23 or 25 hours apart."""
    zone = window.zone
    known = {_day(at, zone): at for at in [*before, *(point.at for point in window.measured)]}
    at = window.start
    while at < window.end:
        yield at if hourly else known.get(_day(at, zone), at)
        at = at + timedelta(hours=1) if hourly else _begun(at + timedelta(hours=36), zone, hourly=False)


def _day(at: datetime, zone: ZoneInfo) -> str:
    return at.astimezone(zone).date().isoformat()


def _begun(at: datetime, zone: ZoneInfo, *, hourly: bool) -> datetime:
    """The beginning of the hour or the local day."""
    local = at.astimezone(zone)
    if hourly:
        return (at - timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)).astimezone(
            UTC
        )
    return datetime.combine(local.date(), time(), zone).astimezone(UTC)


def _value(check: Anomaly, relation: Relation) -> sql.Composable:
    if check.column is None:
        return _filtered(COUNT, check.where_sql)
    column = column_of(relation, check.column)
    match check.metric:
        case "null_ratio":
            nulls = _filtered(COUNT, both(check.where_sql, sql.SQL("{} is null").format(column)))
            return sql.SQL("{}::float8 / nullif({}, 0)").format(nulls, _filtered(COUNT, check.where_sql))
        case "mean":
            aggregate = sql.SQL("avg({})").format(column)
        case _:
            aggregate = sql.SQL("count(distinct {})").format(column)
    return sql.SQL("({})::float8").format(_filtered(aggregate, check.where_sql))


def _filtered(aggregate: sql.Composable, condition: sql.Composable | None) -> sql.Composable:
    return aggregate if condition is None else sql.SQL("{} filter (where {})").format(aggregate, condition)


def _moment(at: datetime) -> sql.Composable:
    return sql.SQL("{}::timestamptz").format(sql.Literal(at.isoformat()))
