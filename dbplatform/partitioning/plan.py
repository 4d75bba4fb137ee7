"""Which partitions a table still needs. Only reads.

The wanted span reaches from the declared start to ``premake`` partitions after the one that covers now, or the greatest
number. Beyond it, every range that the default partition holds rows of is wanted, too. What existing partitions cover,
whoever made them and however wide, stays as it is; the rest is filled with pieces of the grid.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

from dbplatform.partitioning.bounds import (
    Bounds,
    Point,
    Step,
    cell,
    covered_until,
    following,
    pieces,
    point_text,
    suffix,
)
from dbplatform.partitioning.due import cutoff_of, due_partitions, head_of
from dbplatform.partitioning.errors import NameTaken, OutOfCalendar, TooManyPartitions
from dbplatform.partitioning.existing import NUMBER_TYPES, ExistingPartition, ExistingPartitions, read_existing
from dbplatform.partitioning.held import HeldRows, occupied_cells, rows_in, zone_of
from dbplatform.partitioning.locks import TableLock, locks_of
from dbplatform.partitioning.policy import PartitionPolicy
from dbplatform.partitioning.retired import read_retired
from dbplatform.postgres.connection import AnyConnection
from dbplatform.postgres.identifiers import Relation
from dbplatform.postgres.words import Interval

#: More are a mistake in ``start`` rather than a wish: each one costs planning time in every query.
MOST_AT_ONCE = 10_000

_NAME_BYTES = 63
_FINEST = Interval(microseconds=60_000_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPartition:
    """A partition to be made; ``rows`` of its range lie in the default partition and move into it."""

    relation: Relation
    bounds: Bounds
    rows: int = 0

    def as_json(self) -> dict[str, Any]:
        """One entry of ``create`` of the contract."""
        return {**partition_json(self.relation, self.bounds), "rows": self.rows}


@dataclass(frozen=True, slots=True, kw_only=True)
class TablePlan:
    """What one table has and still needs.

    ``left`` are ranges that keep their rows in the default partition, because one transaction may not move as many.
    ``horizon_days`` is what the table has, in days from now without a gap; for numbers it is None, and ``horizon`` says
    how many are left.
    """

    policy: PartitionPolicy
    column_type: str
    existing: tuple[ExistingPartition, ...]
    default: Relation | None
    create: tuple[NewPartition, ...]
    left: tuple[NewPartition, ...]
    default_rows: int
    horizon: Point
    retire: tuple[ExistingPartition, ...]
    locks: tuple[TableLock, ...]

    @property
    def table(self) -> Relation:
        """The partitioned table."""
        return self.policy.table

    @property
    def horizon_days(self) -> float | None:
        """The horizon in days; None for numbers."""
        days: float | None = horizon_json(self.horizon)["horizon_days"]
        return days

    @property
    def makes_default(self) -> bool:
        """Whether a default partition is declared and missing."""
        return self.policy.default and self.default is None

    def as_json(self) -> dict[str, Any]:
        """One entry of ``tables`` of the contract."""
        return {
            "table": str(self.table),
            "existing": len(self.existing),
            "partitions": [partition_json(one.relation, one.bounds) for one in self.existing],
            "create": [one.as_json() for one in self.create],
            "retire": [partition_json(one.relation, one.bounds) for one in self.retire],
            "default": str(self.default) if self.default else None,
            "creates_default": self.makes_default,
            "default_rows": self.default_rows,
            "left_in_default": [one.as_json() for one in self.left],
            **horizon_json(self.horizon),
            "locks": [lock.as_json() for lock in self.locks],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionPlan:
    """The plans of all partitioned tables of a database."""

    tables: tuple[TablePlan, ...]

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to make."""
        return not any(table.create or table.makes_default for table in self.tables)

    def as_json(self) -> dict[str, Any]:
        """The document of ``partition plan --json``."""
        return {"tables": [table.as_json() for table in self.tables]}


def plan_partitions(
    connection: AnyConnection,
    policies: Sequence[PartitionPolicy],
    *,
    now: datetime,
    again: bool = False,
    within: Bounds | None = None,
) -> PartitionPlan:
    """What is missing at the time ``now`` (aware), or of the span ``within`` alone.

    ``again``: what was retired counts as missing, too.

    Takes ACCESS SHARE on the default partition when there is one, and counts its rows; where the table is partitioned
    by numbers, on the table, for the greatest of them. Raises what ``read_existing`` raises, ``NameTaken``,
    ``OutOfCalendar`` and ``TooManyPartitions``.
    """
    plans = (plan_table(connection, policy, now=now, again=again, within=within) for policy in policies)
    return PartitionPlan(tables=tuple(plans))


def plan_table(
    connection: AnyConnection,
    policy: PartitionPolicy,
    *,
    now: datetime,
    again: bool = False,
    within: Bounds | None = None,
) -> TablePlan:
    """The plan of one table: see ``plan_partitions``."""
    existing = read_existing(connection, policy)
    head = head_of(connection, policy, existing.column_type, now=now)
    held = occupied_cells(connection, policy, existing)
    retired = [] if again else [one.bounds for one in read_retired(connection, policy.table)]
    wanted = _new_partitions(policy, existing, held, head, retired, within)
    _check_names(connection, policy.table, wanted)
    if held.rows:
        type_ = existing.column_type
        ranges = [(literal(one.bounds.lower, type_), literal(one.bounds.upper, type_)) for one in wanted]
        counts = rows_in(connection, policy, existing, ranges)
        wanted = tuple(replace(one, rows=rows) for one, rows in zip(wanted, counts, strict=True))
    create = tuple(one for one in wanted if one.rows <= policy.move_at_most)
    return TablePlan(
        policy=policy,
        column_type=existing.column_type,
        existing=existing.partitions,
        default=existing.default,
        create=create,
        left=tuple(one for one in wanted if one.rows > policy.move_at_most),
        default_rows=held.rows,
        horizon=horizon(head, existing),
        retire=due_partitions(existing.partitions, cutoff_of(policy, head)) if policy.retain else (),
        locks=locks_of(connection, policy.table, existing.default, moves=any(one.rows for one in create))
        if create
        else (),
    )


def horizon(head: Point, existing: ExistingPartitions) -> Point:
    """How far it is from ``head`` to the first point whose rows find no partition (the default one does not count)."""
    return covered_until(head, existing.covering) - head


def horizon_json(distance: Point) -> dict[str, Any]:
    """How far a table's partitions reach: in days, or in numbers."""
    if isinstance(distance, timedelta):
        return {"horizon_days": round(distance / timedelta(days=1), 3)}
    return {"horizon_days": None, "horizon_numbers": distance}


def partition_json(relation: Relation, bounds: Bounds) -> dict[str, Any]:
    """A partition as the contract shows it; null is no limit."""
    return {
        "name": relation.name,
        "lower": _json(bounds.lower) if bounds.has_lower else None,
        "upper": _json(bounds.upper) if bounds.has_upper else None,
    }


def _json(point: Point) -> Any:
    return point.isoformat() if isinstance(point, datetime) else point


def partition_name(table: str, interval: Step, lower: Point, zone: tzinfo = UTC) -> str:
    """``flights_p2026_01``; a long table name is cut and gets a digest, so that 63 bytes are enough and stay unique."""
    end = "_" + suffix(interval, lower, zone)
    if len((table + end).encode()) <= _NAME_BYTES:
        return table + end
    end = f"_{hashlib.sha256(table.encode()).hexdigest()[:8]}{end}"
    return table.encode()[: _NAME_BYTES - len(end)].decode(errors="ignore") + end


def _start(policy: PartitionPolicy, existing: ExistingPartitions, held: HeldRows, head: Point) -> Point:
    if isinstance(policy.start, Interval):
        try:
            return head - policy.start.relativedelta
        except (ValueError, OverflowError) as error:
            raise _out_of_calendar(policy, "Write a later start.") from error
    if policy.start != "auto":
        return min(head, policy.start)
    # Rows lie in partitions, so the oldest row is in the oldest partition or in the default one.
    ends = [one.lower if one.has_lower else one.upper for one in existing.taken]
    return min([head, *ends, *(one.lower for one in held.cells)])


def _new_partitions(
    policy: PartitionPolicy,
    existing: ExistingPartitions,
    held: HeldRows,
    head: Point,
    retired: Sequence[Bounds],
    within: Bounds | None,
) -> tuple[NewPartition, ...]:
    step, zone = policy.interval, zone_of(policy, existing.column_type)
    if within is not None:
        lower, upper = within.lower, within.upper
    else:
        lower = cell(step, _start(policy, existing, held, head), zone).lower
        upper = following(step, cell(step, head, zone), policy.premake, zone).upper
    # What was retired is not made again, unless rows have come for it since.
    retired = [one for one in retired if one.lower < upper]
    occupied = [
        one
        for one in held.cells
        if one.has_upper
        and (one.lower >= upper or any(_overlap(one, other) for other in retired))
        and (within is None or _overlap(one, within))
    ]
    known = {one.relation for one in existing.partitions}
    create: list[NewPartition] = []
    for place, span in enumerate((Bounds(lower, upper), *occupied)):
        away = [*existing.taken, *(one.bounds for one in create), *(retired if place == 0 else [])]
        for piece in pieces(step, span, away, zone):
            if not _can_hold(existing.column_type, piece):
                raise _out_of_calendar(policy, "Write a later start, or a shorter interval.")
            if len(create) == MOST_AT_ONCE:
                raise TooManyPartitions(
                    table=str(policy.table),
                    lower=point_text(lower),
                    interval=str(policy.interval),
                    limit=MOST_AT_ONCE,
                    hint="Write a later start, or a longer interval.",
                )
            name = partition_name(policy.table.name, step, piece.lower, zone)
            if Relation(policy.table.schema, name) in known:  # of a grid of another time zone or width
                name = partition_name(policy.table.name, _FINEST if isinstance(step, Interval) else step, piece.lower)
            create.append(NewPartition(relation=Relation(policy.table.schema, name), bounds=piece))
    return tuple(sorted(create, key=lambda one: one.bounds))


def _overlap(one: Bounds, other: Bounds) -> bool:
    return bool(one.lower < other.upper and other.lower < one.upper)


def _can_hold(column_type: str, bounds: Bounds) -> bool:
    """Whether both bounds can be written as values of the type."""
    lowest, highest = NUMBER_TYPES.get(column_type, (bounds.lower, bounds.upper))
    return bounds.has_lower and bounds.has_upper and bool(lowest <= bounds.lower and bounds.upper <= highest)


def _out_of_calendar(policy: PartitionPolicy, hint: str) -> OutOfCalendar:
    limit = "the numbers of its type" if isinstance(policy.interval, int) else "the years 1 to 9999"
    return OutOfCalendar(table=str(policy.table), limit=limit, hint=hint)


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


def literal(point: Point, column_type: str) -> str:
    """The point as the text of a bound: of a day for dates, of wall time in UTC for timestamps without zone."""
    if column_type in NUMBER_TYPES:
        return str(point)
    if column_type == "date":
        return str(point.date().isoformat())
    if column_type == "timestamp without time zone":
        point = point.replace(tzinfo=None)
    return str(point.isoformat(sep=" "))
