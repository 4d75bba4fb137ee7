"""Makes the missing partitions, each in a short transaction of its own, without stopping readers or writers.

A partition is made as a table like its parent and then attached: ATTACH PARTITION takes SHARE UPDATE EXCLUSIVE on the
parent, where CREATE TABLE ... PARTITION OF takes ACCESS EXCLUSIVE (manual: "ALTER TABLE", "5.12 Table Partitioning").
The new table is empty, so validating it reads nothing and needs no helper CHECK. A default partition is locked ACCESS
EXCLUSIVE and read for the time of one attachment; foreign keys lock the table they refer to SHARE ROW EXCLUSIVE.
Where rows of its range lie in the default partition, they move in the same transaction (see ``move``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any

import psycopg
from psycopg import sql

from dbplatform import progress
from dbplatform.partitioning.bounds import Bounds, Point
from dbplatform.partitioning.build import alter, build_aside, newest_of
from dbplatform.partitioning.due import head_of
from dbplatform.partitioning.errors import NameTaken, PartitionFailed, PartitionNotThere
from dbplatform.partitioning.existing import ExistingPartition, ExistingPartitions, read_existing
from dbplatform.partitioning.held import occupied_cells
from dbplatform.partitioning.locks import LockOrder, locks_of
from dbplatform.partitioning.move import move_rows
from dbplatform.partitioning.plan import (
    NewPartition,
    TablePlan,
    horizon,
    horizon_json,
    literal,
    partition_json,
    plan_partitions,
)
from dbplatform.partitioning.policy import PartitionPolicy
from dbplatform.postgres.connection import AutocommitConnection
from dbplatform.postgres.identifiers import Relation
from dbplatform.postgres.locks import advisory_lock
from dbplatform.postgres.patience import Patience

LOCK = "partitions"


@dataclass(frozen=True, slots=True, kw_only=True)
class TableReport:
    """What was made for one table, and how it stands now, as read back from the catalog."""

    table: Relation
    created: tuple[NewPartition, ...]
    left: tuple[NewPartition, ...]
    existing: tuple[ExistingPartition, ...]
    default: Relation | None
    default_rows: int
    default_created: bool
    horizon: Point

    @property
    def moved(self) -> int:
        """How many rows went from the default partition into their own."""
        return sum(one.rows for one in self.created)

    def as_json(self) -> dict[str, Any]:
        """One entry of ``tables`` of the contract: ``create`` was made now, ``partitions`` are all there are."""
        return {
            "table": str(self.table),
            "existing": len(self.existing),
            "partitions": [partition_json(one.relation, one.bounds) for one in self.existing],
            "create": [one.as_json() for one in self.created],
            "retire": [],
            "default": str(self.default) if self.default else None,
            "creates_default": self.default_created,
            "default_rows": self.default_rows,
            "moved_rows": self.moved,
            "left_in_default": [one.as_json() for one in self.left],
            **horizon_json(self.horizon),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionReport:
    """What ``partition apply`` did."""

    tables: tuple[TableReport, ...]

    @property
    def created(self) -> int:
        """How many partitions were made."""
        return sum(len(table.created) for table in self.tables)

    def as_json(self) -> dict[str, Any]:
        """The document of ``partition apply --json``."""
        return {"tables": [table.as_json() for table in self.tables]}


def apply_partitions(
    connection: AutocommitConnection,
    policies: Sequence[PartitionPolicy],
    *,
    now: datetime,
    again: bool = False,
    within: Bounds | None = None,
    lock_timeout_ms: int = 2000,
    sleep: Callable[[float], None] = time.sleep,
) -> PartitionReport:
    """Make what ``plan_partitions`` finds missing, planned again under the advisory lock ``partitions``.

    Every partition is one transaction, so that a killed call leaves only whole ones and the next call goes on. Owner,
    grants, row-level security flags, storage options and statistics targets follow the parent and its newest partition.
    A transaction that cannot have its locks within ``lock_timeout_ms``, or meets a deadlock, is rolled back and tried
    again after a pause, ``TRIES`` times in all. Raises what ``plan_partitions`` raises, ``LockNotAcquired``,
    ``RowsHeld``, ``PartitionFailed``, and ``PartitionNotThere`` when the catalog does not confirm a partition.
    """
    patience = Patience(connection=connection, lock_timeout_ms=lock_timeout_ms, sleep=sleep)
    with advisory_lock(connection, LOCK, sleep=sleep):
        plan = patience.run(
            "the partitioned tables",
            lambda: plan_partitions(connection, policies, now=now, again=again, within=within),
        )
        return PartitionReport(tables=tuple(_apply_table(patience, table, now=now) for table in plan.tables))


def _apply_table(patience: Patience, plan: TablePlan, *, now: datetime) -> TableReport:
    connection = patience.connection
    task = f"partition {plan.table.words}"
    created: list[NewPartition] = []
    left = list(plan.left)
    for done, new in enumerate(plan.create):
        progress.report(task, done=done, total=len(plan.create), unit="partitions")
        made = _make(patience, plan, new)
        (created if made.rows <= plan.policy.move_at_most else left).append(made)
    progress.report(task, done=len(plan.create), total=len(plan.create), unit="partitions")
    if plan.makes_default:
        patience.run(str(plan.table), partial(_create_default, connection, plan))
    existing = patience.run(str(plan.table), lambda: read_existing(connection, plan.policy))
    there = {(one.relation, one.bounds) for one in existing.partitions}
    for new in created:
        if (new.relation, new.bounds) not in there:
            raise PartitionNotThere(
                name=str(new.relation),
                table=str(plan.table),
                bounds=str(new.bounds),
                hint="Another session has changed it meanwhile: apply again.",
            )
    return _report(patience, plan, existing, created, left, now=now)


def _report(
    patience: Patience,
    plan: TablePlan,
    existing: ExistingPartitions,
    created: list[NewPartition],
    left: list[NewPartition],
    *,
    now: datetime,
) -> TableReport:
    connection, policy = patience.connection, plan.policy
    held = patience.run(str(existing.default), lambda: occupied_cells(connection, policy, existing))
    head = patience.run(str(policy.table), lambda: head_of(connection, policy, existing.column_type, now=now))
    return TableReport(
        table=plan.table,
        created=tuple(created),
        left=tuple(sorted(left, key=lambda one: one.bounds)),
        existing=existing.partitions,
        default=existing.default,
        default_rows=held.rows,
        default_created=plan.makes_default,
        horizon=horizon(head, existing),
    )


def _make(patience: Patience, plan: TablePlan, new: NewPartition) -> NewPartition:
    """Make one partition, with the rows that the default one holds of it: as many as it says.

    More of them than one transaction may move: nothing is made. Rows may have come after the plan was made, so an
    attachment that meets some is tried again as a move.
    """
    connection, parent, default = patience.connection, plan.table, plan.default
    for moves in (False, True) if not new.rows else (True,):
        locks = LockOrder(patience.run(str(parent), partial(locks_of, connection, parent, default, moves=moves)))
        try:
            return patience.run(
                f"{parent}, its default partition or a table beside it",
                partial(_create, connection, plan, new, locks, moves),
            )
        except _TooManyRows as found:
            return replace(new, rows=found.rows)
        except PartitionFailed as error:
            if moves or default is None or not isinstance(error.__cause__, psycopg.errors.CheckViolation):
                raise
    raise AssertionError("the loop returns or raises")


class _TooManyRows(Exception):
    """Ends the transaction of a range whose rows one transaction may not move."""

    def __init__(self, rows: int) -> None:
        self.rows = rows


def _create(
    connection: AutocommitConnection, plan: TablePlan, new: NewPartition, locks: LockOrder, moves: bool
) -> NewPartition:
    try:
        locks.take(connection)
        build_aside(connection, plan.table, new.relation, newest=newest_of(plan.existing))
        if moves:
            assert plan.default is not None
            rows = move_rows(connection, plan.policy, plan.column_type, plan.default, new)
            new = replace(new, rows=rows)
            if rows > plan.policy.move_at_most:
                raise _TooManyRows(rows)
        bounds = sql.SQL("for values from ({}) to ({})").format(
            sql.Literal(literal(new.bounds.lower, plan.column_type)),
            sql.Literal(literal(new.bounds.upper, plan.column_type)),
        )
        attach = sql.SQL("attach partition {} {}").format(new.relation.identifier, bounds)
        alter(connection, plan.table, attach)
        return new
    except psycopg.OperationalError:  # a lock that is tried for again, or the session is lost
        raise
    except psycopg.Error as error:
        raise PartitionFailed(
            name=str(new.relation),
            table=str(plan.table),
            reason=error.diag.message_primary or str(error),
            hint=error.diag.message_detail or "Mend the cause and apply again.",
        ) from error


def _create_default(connection: AutocommitConnection, plan: TablePlan) -> None:
    child = default_name(plan.table)
    row = connection.execute("select to_regclass(%s) is null", (str(child),)).fetchone()
    if row != (True,):
        raise NameTaken(name=str(child), table=str(plan.table), hint="Rename that relation.")
    build_aside(connection, plan.table, child, newest=newest_of(plan.existing))
    alter(connection, plan.table, sql.SQL("attach partition {} default").format(child.identifier))


def default_name(table: Relation) -> Relation:
    """``flights_default``; a table name is cut where 63 bytes are not enough."""
    end = "_default"
    return Relation(table.schema, table.name.encode()[: 63 - len(end)].decode(errors="ignore") + end)
