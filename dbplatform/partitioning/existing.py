"""The partitions that a table has, as the catalog knows them: from their bounds, never from their names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from dbplatform.partitioning.bounds import FIRST, HIGHEST, LAST, LOWEST, Bounds, Point
from dbplatform.partitioning.errors import (
    NotPartitioned,
    UnreadableBound,
    UnsuitableColumn,
    UnsuitableInterval,
    WrongKind,
    WrongPartitionKey,
)
from dbplatform.partitioning.policy import PartitionPolicy
from dbplatform.postgres import catalog
from dbplatform.postgres.connection import AnyConnection
from dbplatform.postgres.identifiers import Relation
from dbplatform.postgres.words import Interval

_KEY = """
    select k.partstrat::text, k.partnatts, pg_get_partkeydef(c.oid), a.attname, format_type(a.atttypid, null)
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    join pg_partitioned_table k on k.partrelid = c.oid
    left join pg_attribute a on a.attrelid = c.oid and a.attnum = k.partattrs[0] and a.attnum > 0
    where n.nspname = %s and c.relname = %s
"""

_PARTITIONS = """
    select cn.nspname, c.relname, pg_get_expr(c.relpartbound, c.oid), i.inhdetachpending
    from pg_inherits i
    join pg_class p on p.oid = i.inhparent
    join pg_namespace pn on pn.oid = p.relnamespace
    join pg_class c on c.oid = i.inhrelid
    join pg_namespace cn on cn.oid = c.relnamespace
    where pn.nspname = %s and p.relname = %s
    order by 1, 2
"""

_LIMIT = r"\((?:(MINVALUE|MAXVALUE)|'?([^')]*)'?)\)"
_RANGE = re.compile(f"FOR VALUES FROM {_LIMIT} TO {_LIMIT}")
TIME_TYPES = ("timestamp with time zone", "timestamp without time zone", "date")
#: The lowest and the highest number of each type.
NUMBER_TYPES = {
    "smallint": (-(2**15), 2**15 - 1),
    "integer": (-(2**31), 2**31 - 1),
    "bigint": (-(2**63), 2**63 - 1),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExistingPartition:
    """A partition by range. While ``detaching`` its range is still taken, but new rows do not reach it."""

    relation: Relation
    bounds: Bounds
    detaching: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ExistingPartitions:
    """All partitions of one table, in the order of their ranges."""

    partitions: tuple[ExistingPartition, ...]
    default: Relation | None
    column_type: str

    @property
    def taken(self) -> tuple[Bounds, ...]:
        """Every range that a new partition must not touch."""
        return tuple(one.bounds for one in self.partitions)

    @property
    def covering(self) -> tuple[Bounds, ...]:
        """Every range whose rows find a partition of their own."""
        return tuple(one.bounds for one in self.partitions if not one.detaching)


def read_existing(connection: AnyConnection, policy: PartitionPolicy) -> ExistingPartitions:
    """What the catalog says about the table of a policy, which must be partitioned by range of its one column.

    Needs a session in UTC, as ``connect`` makes it. Raises ``TableMissing``, ``NotPartitioned``,
    ``WrongPartitionKey``, ``UnsuitableColumn``, ``UnsuitableInterval`` and ``WrongKind``.
    """
    table = policy.table
    catalog.require_table(connection, table)
    column_type = _check_key(connection, policy)
    found: list[ExistingPartition] = []
    default = None
    for schema, name, bound, detaching in connection.execute(_PARTITIONS, (table.schema, table.name)).fetchall():
        relation = Relation(schema, name)
        if bound == "DEFAULT":
            default = relation
        else:
            bounds = _bounds(relation, bound, column_type)
            found.append(ExistingPartition(relation=relation, bounds=bounds, detaching=detaching))
    found.sort(key=lambda one: one.bounds)
    return ExistingPartitions(partitions=tuple(found), default=default, column_type=column_type)


def _check_key(connection: AnyConnection, policy: PartitionPolicy) -> str:
    row = connection.execute(_KEY, (policy.table.schema, policy.table.name)).fetchone()
    if row is None:
        raise NotPartitioned(
            table=str(policy.table),
            hint="Convert it: partition convert with --table; or create it with PARTITION BY RANGE in a migration.",
        )
    strategy, key_columns, definition, column, column_type = row
    if strategy != "r" or key_columns != 1 or column != policy.column:
        raise WrongPartitionKey(
            table=str(policy.table),
            actual=definition,
            column=policy.column,
            hint="Declare the column that the table is partitioned by.",
        )
    if column_type not in (*TIME_TYPES, *NUMBER_TYPES):
        raise UnsuitableColumn(
            column=column,
            table=str(policy.table),
            type=column_type,
            hint="Partition the table by a column of times or whole numbers.",
        )
    numbers = column_type in NUMBER_TYPES
    if numbers != isinstance(policy.interval, int):
        raise WrongKind(
            column=column,
            table=str(policy.table),
            type=column_type,
            interval=policy.interval,
            hint="Write a number, such as 1000000." if numbers else "Write a length of time, such as 1 month.",
        )
    if column_type == "date" and isinstance(policy.interval, Interval) and policy.interval.microseconds:
        raise UnsuitableInterval(
            column=column, table=str(policy.table), interval=str(policy.interval), hint="Write days or months."
        )
    return str(column_type)


def _bounds(partition: Relation, bound: str, column_type: str) -> Bounds:
    match = _RANGE.fullmatch(bound)
    if match is None:
        raise UnreadableBound(partition=str(partition), bound=bound, hint="Please report it with this text.")
    lower_limit, lower, upper_limit, upper = match.groups()
    limit = _number if column_type in NUMBER_TYPES else _moment
    try:
        return Bounds(limit(lower, lower_limit), limit(upper, upper_limit))
    except ValueError as error:
        raise UnreadableBound(partition=str(partition), bound=bound, hint="Please report it with this text.") from error


def _number(text: str | None, limit: str | None) -> Point:
    if text is None:
        return LOWEST if limit == "MINVALUE" else HIGHEST
    return int(text)


def _moment(text: str | None, limit: str | None) -> Point:
    """A bound as a time; what lies outside the years 1 to 9999 becomes their first or last moment."""
    if text is None:
        return FIRST if limit == "MINVALUE" else LAST
    if text == "-infinity" or text.endswith(" BC"):
        return FIRST
    if text == "infinity" or re.match(r"\d{5,}-", text):
        return LAST
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
