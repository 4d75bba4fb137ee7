"""Archives whole partitions: into a file each; what then leaves the table is the partition, in place of rows.

    begun ──> exported ──> verified ──(retirement detaches it, compares it, drops it)──> deleted

A partition is written to until it is detached, so nothing is believed for long. The lock that drops it is held while
its rows are compared with the files (``release``); what came or changed since keeps it where it is, and goes into a
file of its own with the next run. What leaves is recorded in the transaction that drops it.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from psycopg import sql

from dbplatform.archiving import catalogue, records
from dbplatform.archiving.apply import LOCK, ArchiveReport, clean_up
from dbplatform.archiving.catalogue import ArchiveEntry
from dbplatform.archiving.children import Node, Tree
from dbplatform.archiving.content import be_durable, same_key
from dbplatform.archiving.errors import NotProven
from dbplatform.archiving.export import export
from dbplatform.archiving.plan import ArchivePlan, plan_archive
from dbplatform.archiving.points import reached
from dbplatform.archiving.policy import ArchivePolicy
from dbplatform.archiving.proof import ProvenSnapshot, Recheck, covered, require_proof
from dbplatform.archiving.shape import TableShape, in_order, read_columns, read_shape
from dbplatform.archiving.verify import read_back
from dbplatform.archiving.whole import FOUND, PartitionStanding, compared, count_rows
from dbplatform.errors import UsageError
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.connection import AnyConnection, AutocommitConnection
from dbplatform.postgres.identifiers import Relation
from dbplatform.postgres.locks import advisory_lock
from dbplatform.storage.place import Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """A partition that is due, attached or detached; ``where`` is its range, a condition in SQL that names it."""

    partition: Relation
    where: str


def plan_partitions(
    connection: AutocommitConnection,
    policy: ArchivePolicy,
    slices: Sequence[Slice],
    ledger: Ledger,
    *,
    database: str,
    cutoff: datetime | None,
    now: datetime,
    proof: ProvenSnapshot | None = None,
) -> ArchivePlan:
    """The rows of all of these partitions that the ledger does not list yet; no file is read.

    Partitions of which it lists some are counted roughly: a row may have changed since. Raises what ``plan_archive``
    raises.
    """
    rows = bytes_ = held = 0
    proof = replace(proof, tables=None) if proof is not None else None
    for one in slices:
        planned = plan_archive(connection, _policy_of(policy, one), now=now, proof=proof)
        missing = planned.rows - listed_rows(ledger, database, policy, one.where)
        if missing > 0:
            rows, bytes_ = rows + missing, bytes_ + planned.bytes * missing // planned.rows
            held += min(missing, planned.covered_rows or 0)
    return ArchivePlan(
        policy=policy,
        tree=_alone(read_shape(connection, policy.table)),
        cutoff=cutoff,
        rows=rows,
        bytes=bytes_,
        covered_rows=held if proof is not None else None,
    )


def archive_partitions(
    connection: AutocommitConnection,
    policy: ArchivePolicy,
    slices: Sequence[Slice],
    ledger: Ledger,
    place: Place,
    *,
    database: str,
    cutoff: datetime | None,
    proof: ProvenSnapshot | None,
    now: datetime,
    begins: Callable[[], object] = lambda: None,
    wait_ms: int = 600_000,
    sleep: Callable[[float], None] = time.sleep,
) -> ArchiveReport:
    """Write every row of these partitions that lies in no archive, as it is, into a file; read it back and compare.

    Under the advisory lock ``archive``. No row leaves: ``release`` lets the partition go. Only rows that the proven
    backup holds are written. Raises ``NotProven``, what ``plan_archive`` raises, ``ArchiveNotWritten``,
    ``StorageFailed``, ``ReadBackDiffers`` and ``LockNotAcquired``. Can be run again at any time. ``begins`` is called
    before the first change, and not where there is nothing to do.
    """
    archives: list[ArchiveEntry] = []
    uncovered = 0
    with advisory_lock(connection, LOCK, wait_ms=wait_ms, sleep=sleep):
        # A backup that proves anything holds every table; it lists a partition tree by its root.
        proof = replace(require_proof(connection, proof, table=policy.table, database=database), tables=None)
        records.ensure_records(connection)
        clean_up(connection, ledger, database, policy.name, place)
        settle(connection, ledger, database=database, table=policy.table)
        for one in slices:
            for entry in _waiting(ledger, database, policy.name, one.where):
                if entry.status == "exported":
                    begins()
                _verify(connection, ledger, policy, one, entry)
            before = _waiting(ledger, database, policy.name, one.where)
            with compared(connection, before, one.partition) as standing:
                if standing.whole:
                    continue
                plan = replace(
                    plan_archive(connection, _policy_of(policy, one), now=now, proof=proof),
                    of=policy.table,
                    tree=_alone(_shape_of(connection, policy, one)),
                    besides=_in_no_archive(connection, one) if standing.archived else None,
                )
                begins()
                archive_id = uuid.uuid4()
                records.begin(connection, archive_id, policy.name, str(policy.table))
                reached(policy.name, "begin", 0, plan.rows)
                ids = {one.partition: archive_id}
                exported, others = export(connection, plan, place, ids, database=database, proof=proof, now=now)
            uncovered += others
            if not exported:
                records.forget(connection, archive_id)
                continue
            entry = catalogue.record(ledger, database, plan, exported, backup_id=proof.backup_id, now=now)
            reached(policy.name, "record", 0, entry.rows)
            archives.append(_verify(connection, ledger, policy, one, entry))
    return ArchiveReport(
        name=policy.name, table=str(policy.table), cutoff=cutoff, archives=tuple(archives), uncovered=uncovered
    )


def listed_rows(ledger: Ledger, database: str, policy: ArchivePolicy, where: str) -> int:
    """How many rows of that range lie in verified archives of the policy and have not left; no file is read."""
    return sum(e.rows for e in _waiting(ledger, database, policy.name, where) if e.status == "verified")


def release(
    connection: AutocommitConnection,
    ledger: Ledger,
    partition: Relation,
    *,
    database: str,
    table: Relation,
    where: str,
    ask_proof: Recheck,
) -> PartitionStanding:
    """Compare a detached partition of ``table`` with its archives; where every row is in one, record that all leave.

    In the open transaction, which locks the partition and drops it when the answer is ``whole``. The proven backup must
    hold every row, too. An archive that was restored does not count, because it was promised that its rows are back.
    What stands in the way is a sentence of the answer. Raises ``StorageFailed`` where a file cannot be reached.
    """
    entries = [
        entry
        for entry in catalogue.list_archives(ledger, database)
        if entry.table == str(table)
        and (entry.status == "deleted" or (entry.status == "verified" and entry.where == where))
    ]
    entries.sort(key=lambda entry: entry.status != "verified")
    if not entries:
        return PartitionStanding(
            partition=str(partition), rows=count_rows(connection, partition), archived=0, archives=(), problems=()
        )
    try:
        with compared(connection, entries, partition) as standing:
            if standing.whole and standing.rows:
                proof = replace(require_proof(connection, ask_proof(), table=table, database=database), tables=None)
                standing = _covered(connection, standing, partition, proof)
            if standing.whole:
                be_durable(connection)
                records.ensure_records(connection)
                for entry in entries:
                    if entry.status == "verified":
                        _let_go(connection, entry, standing)
            return standing
    except (NotProven, UsageError) as error:
        rows = count_rows(connection, partition)
        return PartitionStanding(
            partition=str(partition), rows=rows, archived=0, archives=(), problems=(error.message,)
        )


def settle(connection: AnyConnection, ledger: Ledger, *, database: str, table: Relation) -> None:
    """Tell the ledger of archives whose rows have left with their partition, as the database has recorded it."""
    for entry in catalogue.list_archives(ledger, database):
        if entry.table == str(table) and entry.status == "verified":
            stand = records.read_progress(connection, entry.id)
            if stand is not None and stand.position == entry.rows:
                outcome = (stand.deleted, records.kept_counts(connection, entry.id))
                catalogue.mark_deleted(ledger, {entry.id: outcome}, backup_id=entry.backup_id)


def _policy_of(policy: ArchivePolicy, one: Slice) -> ArchivePolicy:
    """The policy for the rows of one partition."""
    return policy.model_copy(update={"table": one.partition, "where": one.where})


def _waiting(ledger: Ledger, database: str, name: str, where: str) -> list[ArchiveEntry]:
    """The archives of that range whose rows have not left; the oldest first."""
    return [entry for entry in catalogue.unfinished(ledger, database, name) if entry.where == where]


def _alone(shape: TableShape) -> Tree:
    """A table whose rows leave alone."""
    return Tree(nodes=(Node(place=0, shape=shape),))


def _shape_of(connection: AutocommitConnection, policy: ArchivePolicy, one: Slice) -> TableShape:
    """The partition's shape, its columns in the order of its parent's."""
    names = [column.name for column in read_columns(connection, policy.table)]
    return in_order(read_shape(connection, one.partition), names)


def _verify(
    connection: AutocommitConnection, ledger: Ledger, policy: ArchivePolicy, one: Slice, entry: ArchiveEntry
) -> ArchiveEntry:
    """Bring a listed file to ``verified``."""
    if entry.status == "exported":
        read_back(
            connection,
            _shape_of(connection, policy, one),
            entry.location,
            sha256=entry.sha256,
            rows=entry.rows,
            content_hash=entry.content_hash,
        )
        catalogue.mark_verified(ledger, entry.id)
    reached(entry.name, "verify", entry.rows, entry.rows)
    return catalogue.get_archive(ledger, entry.database, entry.id)


def _in_no_archive(connection: AutocommitConnection, one: Slice) -> sql.Composed:
    """Whether the row ``t`` was not found: a boolean expression."""
    key = read_shape(connection, one.partition).key
    return sql.SQL("not exists (select from {} as found where {})").format(FOUND, same_key(key, "found", "t"))


def _covered(
    connection: AutocommitConnection,
    standing: PartitionStanding,
    partition: Relation,
    proof: ProvenSnapshot,
) -> PartitionStanding:
    """The standing, without rows that no proven backup holds."""
    row = connection.execute(
        sql.SQL("select count(*) from {} as t where not {}").format(
            partition.identifier, covered(proof, "t", partition)
        )
    ).fetchone()
    assert row is not None
    if not row[0]:
        return standing
    problem = f"the proven backup {proof.backup_id} does not hold {row[0]:,} of them"
    return replace(standing, archived=standing.rows - row[0], problems=(*standing.problems, problem))


def _let_go(connection: AutocommitConnection, entry: ArchiveEntry, standing: PartitionStanding) -> None:
    """Record that the rows of a file have left, and which of them had been changed or deleted before."""
    records.begin(connection, entry.id, entry.name, entry.table)
    stand = records.read_progress(connection, entry.id)
    if stand is None or stand.position:
        return
    left = entry.rows
    if not (standing.equal and entry in standing.archives):
        left = records.keep_all_but(connection, entry.id, entry.rows, FOUND if standing.rows else None)
    records.advance(connection, entry.id, 0, entry.rows, left)
