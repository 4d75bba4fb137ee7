"""Makes the missing partitions, each in a short transaction of its own, without stopping readers or writers.

A partition is made as a table like its parent and then attached: ATTACH PARTITION takes SHARE UPDATE EXCLUSIVE on the
parent, where CREATE TABLE ... PARTITION OF takes ACCESS EXCLUSIVE (manual: "ALTER TABLE", "5.12 Table Partitioning").
The new table is empty, so validating it reads nothing and needs no helper CHECK. A default partition is locked ACCESS
EXCLUSIVE and read for the time of one attachment; foreign keys lock the table they refer to SHARE ROW EXCLUSIVE.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

import psycopg
from psycopg import sql

from dbplatform import progress
from dbplatform.errors import LockNotAcquired
from dbplatform.partitioning.errors import PartitionFailed, PartitionNotThere
from dbplatform.partitioning.existing import ExistingPartition, read_existing
from dbplatform.partitioning.plan import (
    NewPartition,
    TablePlan,
    horizon_days,
    literal,
    partition_json,
    plan_partitions,
)
from dbplatform.partitioning.policy import PartitionPolicy
from dbplatform.postgres.connection import AutocommitConnection
from dbplatform.postgres.identifiers import Relation
from dbplatform.postgres.locks import advisory_lock

T = TypeVar("T")

LOCK = "partitions"
TRIES = 8
_MOST_PAUSE_S = 5.0

_PARENT = """
    select pg_get_userbyid(c.relowner), c.relowner = (select oid from pg_roles where rolname = current_user),
           c.relrowsecurity, c.relforcerowsecurity, t.spcname, am.amname
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    left join pg_tablespace t on t.oid = c.reltablespace
    left join pg_am am on am.oid = c.relam
    where n.nspname = %s and c.relname = %s
"""

# Grantee 0 is PUBLIC; the owner holds its rights by owning.
_GRANTS = """
    select null, case g.grantee when 0 then null else pg_get_userbyid(g.grantee) end, g.privilege_type, g.is_grantable
    from pg_class c join pg_namespace n on n.oid = c.relnamespace, aclexplode(c.relacl) g
    where n.nspname = %(schema)s and c.relname = %(name)s and g.grantee <> c.relowner
    union all
    select a.attname, case g.grantee when 0 then null else pg_get_userbyid(g.grantee) end,
           g.privilege_type, g.is_grantable
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    join pg_attribute a on a.attrelid = c.oid and not a.attisdropped, aclexplode(a.attacl) g
    where n.nspname = %(schema)s and c.relname = %(name)s and g.grantee <> c.relowner
    order by 1 nulls first, 2 nulls first, 3
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableReport:
    """What was made for one table, and how it stands now, as read back from the catalog."""

    table: Relation
    created: tuple[NewPartition, ...]
    existing: tuple[ExistingPartition, ...]
    default_rows: int
    horizon_days: float

    def as_json(self) -> dict[str, Any]:
        """One entry of ``tables`` of the contract: ``create`` was made now, ``partitions`` are all there are."""
        return {
            "table": str(self.table),
            "existing": len(self.existing),
            "partitions": [partition_json(one.relation, one.bounds) for one in self.existing],
            "create": [partition_json(one.relation, one.bounds) for one in self.created],
            "retire": [],
            "default_rows": self.default_rows,
            "horizon_days": self.horizon_days,
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
    lock_timeout_ms: int = 2000,
    sleep: Callable[[float], None] = time.sleep,
) -> PartitionReport:
    """Make what ``plan_partitions`` finds missing, planned again under the advisory lock ``partitions``.

    Every partition is one transaction, so that a killed call leaves only whole ones and the next call goes on. Owner,
    grants and row-level security flags follow the parent. A transaction that cannot have its locks within
    ``lock_timeout_ms``, or meets a deadlock, is rolled back and tried again after a pause, ``TRIES`` times in all.
    Raises what ``plan_partitions`` raises, ``LockNotAcquired``, ``PartitionFailed``, and ``PartitionNotThere`` when the
    catalog does not confirm a partition.
    """
    patience = _Patience(connection=connection, lock_timeout_ms=lock_timeout_ms, sleep=sleep)
    with advisory_lock(connection, LOCK, sleep=sleep):
        plan = patience.run("the partitioned tables", lambda: plan_partitions(connection, policies, now=now))
        return PartitionReport(tables=tuple(_apply_table(patience, table, now=now) for table in plan.tables))


def _apply_table(patience: _Patience, plan: TablePlan, *, now: datetime) -> TableReport:
    connection = patience.connection
    task = f"partition {plan.table.words}"
    for done, new in enumerate(plan.create):
        progress.report(task, done=done, total=len(plan.create), unit="partitions")
        patience.run(f"{plan.table} or a table it refers to", partial(_create, connection, plan, new))
    progress.report(task, done=len(plan.create), total=len(plan.create), unit="partitions")
    existing = patience.run(str(plan.table), lambda: read_existing(connection, plan.policy))
    there = {(one.relation, one.bounds) for one in existing.partitions}
    for new in plan.create:
        if (new.relation, new.bounds) not in there:
            raise PartitionNotThere(
                name=str(new.relation),
                table=str(plan.table),
                bounds=str(new.bounds),
                hint="Another session has changed it meanwhile: apply again.",
            )
    return TableReport(
        table=plan.table,
        created=plan.create,
        existing=existing.partitions,
        default_rows=plan.default_rows,
        horizon_days=horizon_days(now, existing),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Patience:
    """Waits for locks a short time, often: a queued lock request stops everybody who comes after it."""

    connection: AutocommitConnection
    lock_timeout_ms: int
    sleep: Callable[[float], None]

    def run(self, relations: str, action: Callable[[], T]) -> T:
        """The action's result, from one transaction that had its locks in time."""
        pause = 0.2
        for _ in range(TRIES - 1):
            try:
                return self._once(action)
            except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
                self.sleep(pause * random.uniform(0.8, 1.2))
                pause = min(pause * 2, _MOST_PAUSE_S)
        try:
            return self._once(action)
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as error:
            raise LockNotAcquired(
                lock=f"a lock on {relations}",
                waited_ms=TRIES * self.lock_timeout_ms,
                hint="Find in pg_stat_activity the transaction that holds it, then apply again.",
            ) from error

    def _once(self, action: Callable[[], T]) -> T:
        with self.connection.transaction():
            self.connection.execute("select set_config('lock_timeout', %s, true)", (str(self.lock_timeout_ms),))
            return action()


def _create(connection: AutocommitConnection, plan: TablePlan, new: NewPartition) -> None:
    try:
        _create_and_attach(connection, plan, new)
    except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
        raise
    except psycopg.Error as error:
        raise PartitionFailed(
            name=str(new.relation),
            table=str(plan.table),
            reason=error.diag.message_primary or str(error),
            hint=error.diag.message_detail or "Mend the cause and apply again.",
        ) from error


def _create_and_attach(connection: AutocommitConnection, plan: TablePlan, new: NewPartition) -> None:
    parent, child = plan.table, new.relation
    row = connection.execute(_PARENT, (parent.schema, parent.name)).fetchone()
    assert row is not None
    owner, is_own, row_security, force_row_security, tablespace, access_method = row
    # ATTACH makes the indexes, foreign keys and row triggers that the parent has; identity stays with the parent.
    statement = sql.SQL(
        "create table {child} (like {parent} including all excluding indexes excluding identity){method}{tablespace}"
    ).format(
        child=child.identifier,
        parent=parent.identifier,
        method=_clause("using", access_method),
        tablespace=_clause("tablespace", tablespace),
    )
    connection.execute(statement)
    if not is_own:
        _alter(connection, child, sql.SQL("owner to {}").format(sql.Identifier(owner)))
    if row_security:
        _alter(connection, child, sql.SQL("enable row level security"))
    if force_row_security:
        _alter(connection, child, sql.SQL("force row level security"))
    _copy_grants(connection, parent, child)
    attach = sql.SQL("attach partition {} for values from ({}) to ({})").format(
        child.identifier,
        sql.Literal(literal(new.bounds.lower, plan.column_type)),
        sql.Literal(literal(new.bounds.upper, plan.column_type)),
    )
    _alter(connection, parent, attach)


def _clause(word: str, name: str | None) -> sql.Composable:
    return sql.SQL(" {} {}").format(sql.SQL(word), sql.Identifier(name)) if name else sql.SQL("")


def _alter(connection: AutocommitConnection, table: Relation, action: sql.Composable) -> None:
    connection.execute(sql.SQL("alter table {} {}").format(table.identifier, action))


def _copy_grants(connection: AutocommitConnection, parent: Relation, child: Relation) -> None:
    """Give the child the grants of its parent, and none that default privileges gave to it."""
    for role in sorted({grant[1] for grant in _grants(connection, child)}, key=str):
        connection.execute(sql.SQL("revoke all on {} from {}").format(child.identifier, _role(role)))
    for column, role, privilege, grantable in _grants(connection, parent):
        what: sql.Composable = sql.SQL(privilege)
        if column is not None:
            what = sql.SQL("{} ({})").format(what, sql.Identifier(column))
        statement = sql.SQL("grant {} on {} to {}{}").format(
            what, child.identifier, _role(role), sql.SQL(" with grant option" if grantable else "")
        )
        connection.execute(statement)


def _grants(connection: AutocommitConnection, relation: Relation) -> list[tuple[Any, ...]]:
    return connection.execute(_GRANTS, {"schema": relation.schema, "name": relation.name}).fetchall()


def _role(name: str | None) -> sql.Composable:
    return sql.SQL("public") if name is None else sql.Identifier(name)
