"""Retires the partitions whose every row is older than ``retain`` keeps: detached first, dropped only when it is safe.

Which are due says the catalog: a partition goes when its upper bound has passed, never by its name. Detaching is DETACH
CONCURRENTLY (SHARE UPDATE EXCLUSIVE on the parent; readers and writers go on); a default partition forces the plain
form, which needs the parent alone for a moment. Both wait for locks as long as ``lock_timeout_ms``, a bounded number of
times.

A detached table is dropped when it is empty, because its rows have left it into a verified archive, or when their loss
is declared (``then: drop_without_archive``). That is asked again under the lock that drops it. Otherwise it stays,
beside the table, and is reported. Every step is recorded or can be seen in the catalog, so that the next call goes on
where one was killed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Literal

import psycopg
from psycopg import sql

from dbplatform import progress
from dbplatform.partitioning.apply import LOCK
from dbplatform.partitioning.bounds import Bounds, Point, point_text
from dbplatform.partitioning.build import alter
from dbplatform.partitioning.due import cutoff_of, due_partitions
from dbplatform.partitioning.existing import ExistingPartition, ExistingPartitions, read_existing
from dbplatform.partitioning.locks import LockOrder, locks_of
from dbplatform.partitioning.patience import Patience
from dbplatform.partitioning.plan import head_of, partition_json
from dbplatform.partitioning.policy import PartitionPolicy
from dbplatform.partitioning.retired import RetiredPartition, forget_attached, mark_dropped, read_retired, remember
from dbplatform.postgres.connection import AnyConnection, AutocommitConnection
from dbplatform.postgres.identifiers import Relation
from dbplatform.postgres.locks import advisory_lock

#: What becomes, or became, of a partition. ``waiting``: it stays attached until its rows are archived. ``detached``: it
#: stays beside the table with its rows. ``refused``: PostgreSQL, or what stands on it, does not let it go.
Fate = Literal["waiting", "detach", "drop", "detached", "dropped", "refused"]

_OID = """
    select c.oid::bigint, c.relkind::text from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where n.nspname = %s and c.relname = %s
"""
_IS_FREE = """
    select exists (
        select from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where c.oid = %s and n.nspname = %s and c.relname = %s and not c.relispartition
          and not exists (select from pg_inherits where inhrelid = c.oid))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retirement:
    """One partition that is due, or was retired before and is still there."""

    relation: Relation
    bounds: Bounds
    rows: int
    fate: Fate
    reason: str

    def as_json(self) -> dict[str, Any]:
        """One entry of ``retire`` of the contract."""
        return {
            **partition_json(self.relation, self.bounds),
            "rows": self.rows,
            "fate": self.fate,
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRetirement:
    """What is due of one table, or what became of it."""

    table: Relation
    cutoff: Point
    partitions: tuple[Retirement, ...]

    def count(self, *fates: Fate) -> int:
        """How many partitions have one of the fates."""
        return sum(one.fate in fates for one in self.partitions)

    def as_json(self) -> dict[str, Any]:
        """One entry of ``tables`` of ``partition retire --json``."""
        return {
            "table": str(self.table),
            "cutoff": point_text(self.cutoff),
            "retire": [one.as_json() for one in self.partitions],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class RetirementReport:
    """The document of ``partition retire``: before (what would be done) and after (what was)."""

    tables: tuple[TableRetirement, ...]

    @property
    def is_empty(self) -> bool:
        """Whether nothing is to be done: none is due but those that wait or stay beside."""
        return not any(table.count("detach", "drop") for table in self.tables)

    @property
    def refused(self) -> int:
        """How many could not be retired."""
        return sum(table.count("refused") for table in self.tables)

    def as_json(self) -> dict[str, Any]:
        """The document of ``partition retire --json``."""
        return {"tables": [table.as_json() for table in self.tables]}


def plan_retirement(
    connection: AnyConnection, policies: Sequence[PartitionPolicy], archived: frozenset[Relation], *, now: datetime
) -> RetirementReport:
    """What is due at the time ``now`` (aware) of the tables that declare ``retain``; only reads.

    ``archived`` are the tables that an archive is declared for: their partitions wait until they are empty. Counts the
    rows of every partition that is due, under ACCESS SHARE. Raises what ``read_existing`` raises.
    """
    return RetirementReport(
        tables=tuple(
            _plan_table(connection, policy, policy.table in archived, now=now) for policy in policies if policy.retain
        )
    )


def apply_retirement(
    connection: AutocommitConnection,
    policies: Sequence[PartitionPolicy],
    archived: frozenset[Relation],
    *,
    now: datetime,
    lock_timeout_ms: int = 2000,
    sleep: Callable[[float], None] = time.sleep,
) -> RetirementReport:
    """Do what ``plan_retirement`` finds, planned again under the advisory lock ``partitions``; never creates any.

    One partition after the other, the oldest first; what refuses one (a row that others refer to, a view on it) does
    not stop the next. Raises ``LockNotAcquired``, and what ``plan_retirement`` raises.
    """
    patience = Patience(connection=connection, lock_timeout_ms=lock_timeout_ms, sleep=sleep)
    tables = []
    with advisory_lock(connection, LOCK, sleep=sleep):
        for policy in (one for one in policies if one.retain):
            _finalize(patience, policy)
            forget_attached(connection, policy.table)
            planned = _plan_table(connection, policy, policy.table in archived, now=now)
            task = f"retire {policy.table.words}"
            done: list[Retirement] = []
            for one in planned.partitions:
                progress.report(task, done=len(done), total=len(planned.partitions), unit="partitions")
                done.append(_retire(patience, policy, one))
            progress.report(task, done=len(done), total=len(planned.partitions), unit="partitions")
            forget_attached(connection, policy.table)
            tables.append(TableRetirement(table=policy.table, cutoff=planned.cutoff, partitions=tuple(done)))
    return RetirementReport(tables=tuple(tables))


def _plan_table(
    connection: AnyConnection, policy: PartitionPolicy, archived: bool, *, now: datetime
) -> TableRetirement:
    existing = read_existing(connection, policy)
    cutoff = cutoff_of(policy, head_of(connection, policy, existing.column_type, now=now))
    found = [
        _fate(policy, one.relation, one.bounds, _rows(connection, one.relation), attached=True, archived=archived)
        for one in due_partitions(existing.partitions, cutoff)
    ]
    found += [
        _fate(policy, one.relation, one.bounds, _rows(connection, one.relation), attached=False, archived=archived)
        for one in read_retired(connection, policy.table)
        if one.is_there
    ]
    return TableRetirement(table=policy.table, cutoff=cutoff, partitions=tuple(found))


def _fate(
    policy: PartitionPolicy, relation: Relation, bounds: Bounds, rows: int, *, attached: bool, archived: bool
) -> Retirement:
    assert policy.retain is not None
    fate: Fate
    if rows == 0:
        fate, reason = "drop", "it is empty"
    elif policy.retain.then == "drop_without_archive":
        fate, reason = "drop", "the loss of its rows is declared"
    elif archived and attached:
        fate, reason = "waiting", "its rows are not all archived yet"
    else:
        fate, reason = "detach" if attached else "detached", "its rows are in no archive"
    return Retirement(relation=relation, bounds=bounds, rows=rows, fate=fate, reason=reason)


def _retire(patience: Patience, policy: PartitionPolicy, planned: Retirement) -> Retirement:
    """Go as far as the plan says, and tell how far it went."""
    if planned.fate not in ("detach", "drop"):
        return planned
    connection = patience.connection
    try:
        existing = read_existing(connection, policy)
        attached = next((one for one in existing.partitions if one.relation == planned.relation), None)
        if attached is not None:
            _detach(patience, policy, existing, attached)
        if planned.fate == "detach":
            return _became(planned, "detached", planned.reason)
        retired = next(
            (
                one
                for one in read_retired(connection, policy.table)
                if one.is_there and one.relation == planned.relation
            ),
            None,
        )
        if retired is None:
            return _became(planned, "refused", "somebody else has changed it meanwhile")
        may_lose = policy.retain is not None and policy.retain.then == "drop_without_archive"
        reached(planned.relation, "drop")
        left = patience.run(str(planned.relation), partial(_drop, connection, policy.table, retired, may_lose))
        reached(planned.relation, "dropped")
        if left:
            return _became(planned, "detached", left)
        return _became(planned, "dropped", planned.reason)
    except psycopg.OperationalError:  # not refused: the session is lost, or the server is in need
        raise
    except psycopg.Error as error:
        words = ". ".join(filter(None, (error.diag.message_primary or str(error), error.diag.message_detail)))
        return _became(planned, "refused", words)


def _became(planned: Retirement, fate: Fate, reason: str) -> Retirement:
    return Retirement(relation=planned.relation, bounds=planned.bounds, rows=planned.rows, fate=fate, reason=reason)


def _detach(patience: Patience, policy: PartitionPolicy, existing: ExistingPartitions, one: ExistingPartition) -> None:
    """Detach one partition, remembered before; concurrently where PostgreSQL can."""
    connection, parent = patience.connection, policy.table
    row = connection.execute(_OID, (one.relation.schema, one.relation.name)).fetchone()
    assert row is not None
    remember(connection, parent, one.relation, row[0], one.bounds)
    reached(one.relation, "detach")
    if existing.default is None and connection.info.server_version >= 140000:
        patience.run_outside(str(parent), partial(_detach_concurrently, connection, policy, one.relation))
    else:
        locks = LockOrder(locks_of(connection, parent, existing.default, moves=True))
        patience.run(str(parent), partial(_detach_plainly, connection, parent, one.relation, locks))
    reached(one.relation, "detached")


def _detach_plainly(connection: AutocommitConnection, parent: Relation, child: Relation, locks: LockOrder) -> None:
    locks.take(connection)
    alter(connection, parent, sql.SQL("detach partition {}").format(child.identifier))


def _detach_concurrently(connection: AutocommitConnection, policy: PartitionPolicy, child: Relation) -> None:
    """Detach, or end what a try before has begun; nothing where the partition is gone."""
    for one in read_existing(connection, policy).partitions:
        if one.relation == child:
            how = sql.SQL("finalize" if one.detaching else "concurrently")
            alter(connection, policy.table, sql.SQL("detach partition {} {}").format(child.identifier, how))


def _finalize(patience: Patience, policy: PartitionPolicy) -> None:
    """End what an interrupted DETACH CONCURRENTLY has begun, whoever began it: until then no other can be detached."""
    for one in read_existing(patience.connection, policy).partitions:
        if one.detaching:
            action = partial(_detach_concurrently, patience.connection, policy, one.relation)
            patience.run_outside(str(policy.table), action)
            reached(one.relation, "finalized")


def _drop(connection: AutocommitConnection, table: Relation, retired: RetiredPartition, may_lose: bool) -> str | None:
    """Drop a detached table, and say None; or why it stays: it is another table by now, or holds rows."""
    child = retired.relation
    connection.execute(sql.SQL("lock table {} in access exclusive mode").format(child.identifier))
    free = connection.execute(_IS_FREE, (retired.oid, child.schema, child.name)).fetchone()
    if free != (True,):
        return "somebody else has changed it meanwhile"
    rows = 0 if may_lose else _rows(connection, child)
    if rows:
        return f"{rows} rows have come since it was planned"
    connection.execute(sql.SQL("drop table {}").format(child.identifier))
    mark_dropped(connection, table, retired)
    return None


def _rows(connection: AnyConnection, relation: Relation) -> int:
    """The exact number of rows: an error rather than fewer, where row-level security would hide some."""
    with connection.transaction():
        connection.execute("select set_config('row_security', 'off', true)")
        row = connection.execute(sql.SQL("select count(*) from {}").format(relation.identifier)).fetchone()
    assert row is not None
    return int(row[0])


def reached(partition: Relation, point: str) -> None:
    """Tell whoever listens how far the retirement of a partition is; drills kill the process at each point."""
    progress.report(f"retire {partition} {point}", done=1, total=1)
