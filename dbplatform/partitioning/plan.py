"""Which partitions a table still needs. Only reads.

The wanted span reaches from the declared start to ``premake`` partitions after the one that covers now. What existing
partitions cover, whoever made them and however wide, stays as it is; the rest is filled with pieces of the grid.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from psycopg import sql

from dbplatform.errors import NotBuiltYet
from dbplatform.partitioning.bounds import FIRST, LAST, Bounds, cell, covered_until, following, pieces, suffix
from dbplatform.partitioning.errors import NameTaken, OutOfCalendar, TooManyPartitions
from dbplatform.partitioning.existing import ExistingPartition, ExistingPartitions, read_existing
from dbplatform.partitioning.policy import PartitionPolicy
from dbplatform.postgres.connection import AnyConnection
from dbplatform.postgres.identifiers import Relation
from dbplatform.postgres.words import Interval

#: More are a mistake in ``start`` rather than a wish: each one costs planning time in every query.
MOST_AT_ONCE = 10_000

_NAME_BYTES = 63


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPartition:
    """A partition to be made."""

    relation: Relation
    bounds: Bounds


@dataclass(frozen=True, slots=True, kw_only=True)
class TablePlan:
    """What one table has and still needs; ``horizon_days`` is what it has, in days from now without a gap."""

    policy: PartitionPolicy
    column_type: str
    existing: tuple[ExistingPartition, ...]
    create: tuple[NewPartition, ...]
    default_rows: int
    horizon_days: float

    @property
    def table(self) -> Relation:
        """The partitioned table."""
        return self.policy.table

    def as_json(self) -> dict[str, Any]:
        """One entry of ``tables`` of the contract."""
        return {
            "table": str(self.table),
            "existing": len(self.existing),
            "partitions": [partition_json(one.relation, one.bounds) for one in self.existing],
            "create": [partition_json(one.relation, one.bounds) for one in self.create],
            "retire": [],
            "default_rows": self.default_rows,
            "horizon_days": self.horizon_days,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionPlan:
    """The plans of all partitioned tables of a database."""

    tables: tuple[TablePlan, ...]

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to make."""
        return not any(table.create for table in self.tables)

    def as_json(self) -> dict[str, Any]:
        """The document of ``partition plan --json``."""
        return {"tables": [table.as_json() for table in self.tables]}


def plan_partitions(connection: AnyConnection, policies: Sequence[PartitionPolicy], *, now: datetime) -> PartitionPlan:
    """What is missing at the time ``now`` (aware).

    Takes ACCESS SHARE on the default partition when there is one, and counts its rows. Raises what
    ``read_existing`` raises, ``NameTaken``, ``TooManyPartitions``, and ``NotBuiltYet`` when the default partition
    holds rows that belong into a new one.
    """
    return PartitionPlan(tables=tuple(plan_table(connection, policy, now=now) for policy in policies))


def plan_table(connection: AnyConnection, policy: PartitionPolicy, *, now: datetime) -> TablePlan:
    """The plan of one table: see ``plan_partitions``."""
    now = now.astimezone(UTC)
    existing = read_existing(connection, policy)
    default_rows, default_oldest = _default_rows(connection, policy, existing)
    lower = cell(policy.interval, _start(policy, existing, default_oldest, now)).lower
    upper = following(policy.interval, cell(policy.interval, now), policy.premake).upper
    create = _new_partitions(policy, existing, Bounds(lower, upper))
    _check_names(connection, policy.table, create)
    if create and default_rows:
        _check_default(connection, policy, existing, create)
    return TablePlan(
        policy=policy,
        column_type=existing.column_type,
        existing=existing.partitions,
        create=create,
        default_rows=default_rows,
        horizon_days=horizon_days(now, existing),
    )


def horizon_days(now: datetime, existing: ExistingPartitions) -> float:
    """Days from now to the first moment whose rows find no partition (the default one does not count)."""
    return round((covered_until(now, existing.covering) - now) / timedelta(days=1), 3)


def partition_json(relation: Relation, bounds: Bounds) -> dict[str, Any]:
    """A partition as the contract shows it; null is no limit."""
    return {
        "name": relation.name,
        "lower": None if bounds.lower == FIRST else bounds.lower.isoformat(),
        "upper": None if bounds.upper == LAST else bounds.upper.isoformat(),
    }


def partition_name(table: str, interval: Interval, lower: datetime) -> str:
    """``flights_p2026_01``; a long table name is cut and gets a digest, so that 63 bytes are enough and stay unique."""
    end = "_" + suffix(interval, lower)
    if len((table + end).encode()) <= _NAME_BYTES:
        return table + end
    end = f"_{hashlib.sha256(table.encode()).hexdigest()[:8]}{end}"
    return table.encode()[: _NAME_BYTES - len(end)].decode(errors="ignore") + end


def _start(
    policy: PartitionPolicy, existing: ExistingPartitions, default_oldest: datetime | None, now: datetime
) -> datetime:
    if isinstance(policy.start, Interval):
        try:
            return now - policy.start.relativedelta
        except (ValueError, OverflowError) as error:
            raise OutOfCalendar(table=str(policy.table), hint="Write a later start.") from error
    if isinstance(policy.start, datetime):
        return min(now, policy.start)
    # Rows lie in partitions, so the oldest row is in the oldest partition or in the default one.
    ends = (one.lower if one.lower != FIRST else one.upper for one in existing.taken)
    known = [end for end in (*ends, default_oldest) if end is not None]
    return min([now, *known])


def _new_partitions(policy: PartitionPolicy, existing: ExistingPartitions, span: Bounds) -> tuple[NewPartition, ...]:
    create: list[NewPartition] = []
    for piece in pieces(policy.interval, span, existing.taken):
        if piece.lower == FIRST or piece.upper == LAST:
            raise OutOfCalendar(table=str(policy.table), hint="Write a later start, or a shorter interval.")
        if len(create) == MOST_AT_ONCE:
            raise TooManyPartitions(
                table=str(policy.table),
                lower=span.lower.isoformat(),
                interval=str(policy.interval),
                limit=MOST_AT_ONCE,
                hint="Write a later start, or a longer interval.",
            )
        name = partition_name(policy.table.name, policy.interval, piece.lower)
        create.append(NewPartition(relation=Relation(policy.table.schema, name), bounds=piece))
    return tuple(create)


def _check_names(connection: AnyConnection, table: Relation, create: Sequence[NewPartition]) -> None:
    row = connection.execute(
        "select c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace"
        " where n.nspname = %s and c.relname = any(%s) order by 1 limit 1",
        (table.schema, [one.relation.name for one in create]),
    ).fetchone()
    if row is not None:
        raise NameTaken(
            name=str(Relation(table.schema, row[0])),
            table=str(table),
            hint="Rename that relation; if it is a detached partition, attach it again.",
        )


def _default_rows(
    connection: AnyConnection, policy: PartitionPolicy, existing: ExistingPartitions
) -> tuple[int, datetime | None]:
    """How many rows the default partition holds, and the oldest of their times (infinite ones left out)."""
    if existing.default is None:
        return 0, None
    column = sql.Identifier(policy.column)
    row = connection.execute(
        sql.SQL(
            "select count(*), to_char((min({column}) filter (where {column} > '-infinity' and {column} < 'infinity'))"
            "::timestamp, 'YYYY-MM-DD HH24:MI:SS.US AD') from {default}"
        ).format(column=column, default=existing.default.identifier)
    ).fetchone()
    assert row is not None
    count, oldest = row
    if oldest is None:
        return int(count), None
    year = oldest.split("-", 1)[0]
    if oldest.endswith("BC"):
        return int(count), FIRST
    if len(year) > 4:
        return int(count), None
    return int(count), datetime.fromisoformat(oldest.removesuffix(" AD")).replace(tzinfo=UTC)


def _check_default(
    connection: AnyConnection, policy: PartitionPolicy, existing: ExistingPartitions, create: Sequence[NewPartition]
) -> None:
    """Existing and new partitions together cover this range, so what the default one holds of it belongs elsewhere."""
    assert existing.default is not None
    span = Bounds(create[0].bounds.lower, create[-1].bounds.upper)
    statement = sql.SQL("select count(*) from {default} where {column} >= {lower} and {column} < {upper}").format(
        default=existing.default.identifier,
        column=sql.Identifier(policy.column),
        lower=sql.Literal(literal(span.lower, existing.column_type)),
        upper=sql.Literal(literal(span.upper, existing.column_type)),
    )
    row = connection.execute(statement).fetchone()
    assert row is not None
    if row[0]:
        raise NotBuiltYet(
            what=f"Moving rows out of a default partition ({row[0]} rows of {existing.default} lie in {span}, "
            f"where {policy.table} needs new partitions)",
            hint="Move them by hand: detach the default partition, apply, insert its rows into the table.",
        )


def literal(moment: datetime, column_type: str) -> str:
    """The moment as the text of a bound: of a day for dates, of wall time in UTC for timestamps without zone."""
    if column_type == "date":
        return moment.date().isoformat()
    if column_type == "timestamp without time zone":
        return moment.replace(tzinfo=None).isoformat(sep=" ")
    return moment.isoformat(sep=" ")
