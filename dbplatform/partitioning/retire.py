"""Retires the partitions whose every row is older than ``retain`` keeps: detached first, dropped only when it is safe.

Which are due says the catalog: a partition goes when its upper bound has passed, never by its name. Detaching is DETACH
CONCURRENTLY (SHARE UPDATE EXCLUSIVE on the parent; readers and writers go on); a default partition forces the plain
form, which needs the parent alone for a moment. Both wait for locks as long as ``lock_timeout_ms``, a bounded number of
times.

A detached table is dropped when it is empty, when its every row lies in a verified archive (of which an ``Archivist``
knows), or when the loss is declared (``then: drop_without_archive``). That is asked under the lock that drops it.
Otherwise it stays, beside the table, and is reported with numbers. Every step is recorded or can be seen in the
catalog, so that the next call goes on where one was killed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial

import psycopg
from psycopg import sql

from dbplatform import progress
from dbplatform.partitioning.apply import LOCK
from dbplatform.partitioning.build import alter
from dbplatform.partitioning.due import DuePartition, read_due
from dbplatform.partitioning.existing import ExistingPartition, ExistingPartitions, read_existing
from dbplatform.partitioning.fates import (
    Archivist,
    Fate,
    Kept,
    NoArchives,
    Retirement,
    RetirementReport,
    TableRetirement,
    exact_rows,
)
from dbplatform.partitioning.locks import LockOrder, locks_of
from dbplatform.partitioning.policy import PartitionPolicy
from dbplatform.partitioning.retired import RetiredPartition, forget_attached, mark_dropped, read_retired, remember
from dbplatform.postgres.connection import AnyConnection, AutocommitConnection
from dbplatform.postgres.identifiers import Relation
from dbplatform.postgres.locks import advisory_lock
from dbplatform.postgres.patience import Patience

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
_CHANGED = "somebody else has changed it meanwhile"


def plan_retirement(
    connection: AnyConnection,
    policies: Sequence[PartitionPolicy],
    archivist: Archivist | None = None,
    *,
    now: datetime,
) -> RetirementReport:
    """What is due at the time ``now`` (aware) of the tables that declare ``retain``; only reads.

    Counts the rows of every partition that is due, under ACCESS SHARE. Raises what ``read_existing`` raises.
    """
    archivist = archivist or NoArchives()
    return RetirementReport(
        tables=tuple(_plan_table(connection, policy, archivist, now=now) for policy in policies if policy.retain)
    )


def apply_retirement(
    connection: AutocommitConnection,
    policies: Sequence[PartitionPolicy],
    archivist: Archivist | None = None,
    *,
    now: datetime,
    lock_timeout_ms: int = 2000,
    sleep: Callable[[float], None] = time.sleep,
) -> RetirementReport:
    """Do what ``plan_retirement`` finds, planned again under the advisory lock ``partitions``; never creates any.

    One partition after the other, the oldest first; what refuses one (a row that others refer to, a view on it) does
    not stop the next. Every detached one is compared with the archives, whatever the plan expected. Raises
    ``LockNotAcquired``, and what ``plan_retirement`` and the ``archivist`` raise.
    """
    archivist = archivist or NoArchives()
    patience = Patience(connection=connection, lock_timeout_ms=lock_timeout_ms, sleep=sleep)
    tables = []
    with advisory_lock(connection, LOCK, sleep=sleep):
        for policy in (one for one in policies if one.retain):
            _finalize(patience, policy)
            forget_attached(connection, policy.table)
            planned = _plan_table(connection, policy, archivist, now=now)
            task = f"retire {policy.table.words}"
            done: list[Retirement] = []
            for one in planned.partitions:
                progress.report(task, done=len(done), total=len(planned.partitions), unit="partitions")
                done.append(one if one.fate == "waiting" else _retire(patience, policy, one, archivist))
            progress.report(task, done=len(done), total=len(planned.partitions), unit="partitions")
            forget_attached(connection, policy.table)
            tables.append(TableRetirement(table=policy.table, cutoff=planned.cutoff, partitions=tuple(done)))
    return RetirementReport(tables=tuple(tables))


def _plan_table(
    connection: AnyConnection, policy: PartitionPolicy, archivist: Archivist, *, now: datetime
) -> TableRetirement:
    cutoff, due = read_due(connection, policy, now=now)
    found = [_fate(policy, one, exact_rows(connection, one.relation), archivist) for one in due]
    return TableRetirement(table=policy.table, cutoff=cutoff, partitions=tuple(found))


def _fate(policy: PartitionPolicy, due: DuePartition, rows: int, archivist: Archivist) -> Retirement:
    fate: Fate
    if rows == 0:
        fate, reason = "drop", "it is empty"
    elif _may_lose(policy):
        fate, reason = "drop", "the loss of its rows is declared"
    else:
        fate, reason = archivist.expects(policy, due.bounds, rows)
        if fate != "drop" and not due.is_attached:
            fate = "detached"
    lost = rows if _may_lose(policy) else 0
    return Retirement(relation=due.relation, bounds=due.bounds, rows=rows, fate=fate, reason=reason, lost=lost)


def _may_lose(policy: PartitionPolicy) -> bool:
    return policy.retain is not None and policy.retain.then == "drop_without_archive"


def _retire(patience: Patience, policy: PartitionPolicy, planned: Retirement, archivist: Archivist) -> Retirement:
    """Detach it, drop it if it may go, and tell how far it went."""
    connection = patience.connection
    try:
        existing = read_existing(connection, policy)
        attached = next((one for one in existing.partitions if one.relation == planned.relation), None)
        if attached is not None:
            _detach(patience, policy, existing, attached)
        retired = next(
            (
                one
                for one in read_retired(connection, policy.table)
                if one.is_there and one.relation == planned.relation
            ),
            None,
        )
        if retired is None:
            return replace(planned, fate="refused", reason=_CHANGED)
        reached(planned.relation, "drop")
        kept = patience.run(str(planned.relation), partial(_drop, patience, policy, retired, archivist))
        if kept is None:
            return replace(planned, fate="refused", reason=_CHANGED)
        if kept.kept < kept.rows:
            return replace(planned, fate="detached", rows=kept.rows, reason=kept.words)
        reached(planned.relation, "dropped")
        archivist.dropped(connection, policy)
        return replace(planned, fate="dropped", reason=planned.reason if _may_lose(policy) else kept.words)
    except psycopg.OperationalError:  # not refused: the session is lost, or the server is in need
        raise
    except psycopg.Error as error:
        words = ". ".join(filter(None, (error.diag.message_primary or str(error), error.diag.message_detail)))
        return replace(planned, fate="refused", reason=words)


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


def _drop(patience: Patience, policy: PartitionPolicy, retired: RetiredPartition, archivist: Archivist) -> Kept | None:
    """Drop a detached table if all of its rows may go; None: it is another table by now.

    The lock keeps everybody from it until the transaction ends. Dropping it needs, for a moment, the tables that it
    refers to: that is tried again alone, so that its rows are compared once.
    """
    connection, child = patience.connection, retired.relation
    connection.execute(sql.SQL("lock table {} in access exclusive mode").format(child.identifier))
    if connection.execute(_IS_FREE, (retired.oid, child.schema, child.name)).fetchone() != (True,):
        return None
    kept = Kept(rows=0, kept=0) if _may_lose(policy) else archivist.release(connection, policy, child, retired.bounds)
    if kept.kept == kept.rows:
        drop = sql.SQL("drop table {}").format(child.identifier)
        patience.run(f"a table that {child} refers to", partial(connection.execute, drop))
        mark_dropped(connection, policy.table, retired)
        reached(child, "leaves")
    return kept


def reached(partition: Relation, point: str) -> None:
    """Tell whoever listens how far the retirement of a partition is; drills kill the process at each point."""
    progress.report(f"retire {partition} {point}", done=1, total=1)
