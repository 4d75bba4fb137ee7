"""The rows that a default partition holds, and into which ranges of the grid they belong. Only reads.

Rows at infinity, and those outside of the years 1 to 9999, belong into none: they stay where they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo

from psycopg import sql

from dbplatform.partitioning.bounds import Bounds, cell, check_interval
from dbplatform.partitioning.existing import ExistingPartitions
from dbplatform.partitioning.policy import PartitionPolicy
from dbplatform.postgres.connection import AnyConnection


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldRows:
    """How many rows the default partition holds, and the cells of the grid that at least one of them lies in."""

    rows: int = 0
    cells: tuple[Bounds, ...] = ()


def occupied_cells(connection: AnyConnection, policy: PartitionPolicy, existing: ExistingPartitions) -> HeldRows:
    """What the default partition holds; reads it from end to end, under ACCESS SHARE."""
    if existing.default is None:
        return HeldRows()
    column = sql.Identifier(policy.column)
    one, bucket = _one_and_bucket(policy, existing.column_type, column)
    statement = sql.SQL("select count(*), {one} from {default} group by {bucket}").format(
        one=one, default=existing.default.identifier, bucket=bucket
    )
    zone = zone_of(policy, existing.column_type)
    rows, cells = 0, set()
    for count, point in connection.execute(statement):
        rows += count
        if point is not None:
            place = point.replace(tzinfo=UTC) if isinstance(point, datetime) else point
            cells.add(cell(policy.interval, place, zone))
    return HeldRows(rows=rows, cells=tuple(sorted(cells)))


def rows_in(
    connection: AnyConnection,
    policy: PartitionPolicy,
    existing: ExistingPartitions,
    ranges: Sequence[tuple[str, str]],
) -> list[int]:
    """How many rows of the default partition lie in each of the ranges; reads it once.

    The ranges are literals of their bounds, in their order, and do not overlap.
    """
    if existing.default is None or not ranges:
        return [0] * len(ranges)
    statement = sql.SQL(
        "select place, count(*) from (select {column} as key, width_bucket({column}, {lowers}::{type}[]) as place"
        " from {default}) as held where place > 0 and key < ({uppers}::{type}[])[place] group by place"
    ).format(
        column=sql.Identifier(policy.column),
        type=sql.SQL(existing.column_type),
        default=existing.default.identifier,
        lowers=sql.Literal([lower for lower, _ in ranges]),
        uppers=sql.Literal([upper for _, upper in ranges]),
    )
    counts = [0] * len(ranges)
    for place, count in connection.execute(statement):
        counts[place - 1] = count
    return counts


def zone_of(policy: PartitionPolicy, column_type: str) -> tzinfo:
    """The time zone of the grid; a column without zone holds its own wall time."""
    return policy.zone if column_type == "timestamp with time zone" else UTC


def _one_and_bucket(
    policy: PartitionPolicy, column_type: str, column: sql.Identifier
) -> tuple[sql.Composable, sql.Composable]:
    """An expression for one point of a bucket, and one that puts all rows of a bucket into the same cell."""
    step = check_interval(policy.interval)
    if isinstance(step, int):
        return sql.SQL("min({})").format(column), sql.SQL("floor({}::numeric / {})").format(column, sql.Literal(step))
    inside = sql.SQL("{} >= '0001-01-02' and {} < '9999-12-31'").format(column, column)
    point = sql.SQL("min({})::timestamp").format(column)
    wall = sql.SQL("timezone({}, {})" if column_type == "timestamp with time zone" else "{1}::timestamp").format(
        sql.Literal(policy.time_zone), column
    )
    if step.microseconds:
        bucket = sql.SQL("date_bin({}::interval, {}::timestamp, '0001-01-01')").format(
            sql.Literal(f"{step.microseconds} microseconds"), column
        )
    else:
        bucket = sql.SQL("date_trunc({}, {})").format(sql.Literal("month" if step.months else "day"), wall)
    return (
        sql.SQL("case when bool_and({}) then {} end").format(inside, point),
        sql.SQL("{}, case when {} then {} end").format(inside, inside, bucket),
    )
