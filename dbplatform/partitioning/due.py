"""Which partitions are due to be retired: by their bounds in the catalog, against what ``retain`` keeps. Only reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from psycopg import sql

from dbplatform.partitioning.bounds import FIRST, Bounds, Point, point_text
from dbplatform.partitioning.existing import NUMBER_TYPES, ExistingPartition, read_existing
from dbplatform.partitioning.policy import PartitionPolicy
from dbplatform.partitioning.retired import read_retired
from dbplatform.postgres.connection import AnyConnection
from dbplatform.postgres.identifiers import Relation


@dataclass(frozen=True, slots=True, kw_only=True)
class DuePartition:
    """A partition that is due; not attached: it was detached before, and its table is still there."""

    relation: Relation
    bounds: Bounds
    is_attached: bool


def read_due(connection: AnyConnection, policy: PartitionPolicy, *, now: datetime) -> tuple[Point, list[DuePartition]]:
    """The cutoff at the time ``now`` (aware), and what is due: the attached ones by their ranges, then the others."""
    existing = read_existing(connection, policy)
    cutoff = cutoff_of(policy, head_of(connection, policy, existing.column_type, now=now))
    attached = due_partitions(existing.partitions, cutoff)
    detached = [one for one in read_retired(connection, policy.table) if one.is_there]
    return cutoff, [
        *(DuePartition(relation=one.relation, bounds=one.bounds, is_attached=True) for one in attached),
        *(DuePartition(relation=one.relation, bounds=one.bounds, is_attached=False) for one in detached),
    ]


def head_of(connection: AnyConnection, policy: PartitionPolicy, column_type: str, *, now: datetime) -> Point:
    """Where new rows arrive: now, or the greatest number in the table; its start where it is empty."""
    if column_type not in NUMBER_TYPES:
        return now.astimezone(UTC)
    statement = sql.SQL("select max({}) from {}").format(sql.Identifier(policy.column), policy.table.identifier)
    row = connection.execute(statement).fetchone()
    assert row is not None
    return row[0] if row[0] is not None else (0 if policy.start == "auto" else policy.start)


def cutoff_of(policy: PartitionPolicy, head: Point) -> Point:
    """Rows before this are not kept any longer; ``head`` is now, or the greatest number."""
    assert policy.retain is not None
    if isinstance(policy.retain.keep, int):
        return head - policy.retain.keep
    try:
        return head - policy.retain.keep.relativedelta
    except (ValueError, OverflowError):
        return FIRST


def due_partitions(partitions: Sequence[ExistingPartition], cutoff: Point) -> tuple[ExistingPartition, ...]:
    """Those that hold nothing but rows before the cutoff. One that reaches beyond it stays, however wide it is."""
    return tuple(one for one in partitions if one.bounds.upper <= cutoff)


def condition_of(policy: PartitionPolicy, bounds: Bounds) -> str:
    """The range as a condition in SQL on a row: the same text for the same range, whatever its table is called."""
    limits = [(">=", bounds.lower)] * bounds.has_lower + [("<", bounds.upper)] * bounds.has_upper
    parts = [
        sql.SQL("{} {} {}").format(
            sql.Identifier(policy.column),
            sql.SQL(operator),
            sql.Literal(point if isinstance(point, int) else point_text(point)),
        )
        for operator, point in limits
    ]
    return (sql.SQL(" and ").join(parts) if parts else sql.SQL("true")).as_string(None)
