"""Erases rows on purpose: from their table, and from every archive of it. They go onto the replay list first.

    decided ──> erased from the table ──> each archive rewritten ──> done
    ledger      state, with the rows      ledger                    ledger

A killed erasure is finished by the next one: the list says which rows, and the database whether it has seen them go.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from dbplatform.archiving import catalogue, erasures, records
from dbplatform.archiving.apply import LOCK
from dbplatform.archiving.catalogue import ArchiveEntry
from dbplatform.archiving.content import be_durable, be_exact, same_columns
from dbplatform.archiving.erasures import Erasure
from dbplatform.archiving.errors import ErasedRowsReferenced, ErasureMustWait, RowsHeldBack, UnsuitableErasure
from dbplatform.archiving.kept import reading
from dbplatform.archiving.parquet import first_line
from dbplatform.archiving.points import reached
from dbplatform.archiving.rewrite import remove_files, rewrite
from dbplatform.archiving.shape import Reference, TableShape, read_references, read_shape
from dbplatform.archiving.staging import Staging, staging_of
from dbplatform.errors import LockNotAcquired
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.connection import AutocommitConnection
from dbplatform.postgres.identifiers import Relation
from dbplatform.postgres.locks import advisory_lock

LOCK_TIMEOUT_MS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Which rows: a condition in SQL, or values of columns."""

    where: str | None = None
    values: Mapping[str, str] | None = None

    @property
    def condition(self) -> sql.Composed:
        """Whether the row ``t`` is one of them: a boolean expression."""
        parts: list[sql.Composable] = []
        if self.where is not None:
            # The bracket closes on a line of its own, because the condition may end with a comment.
            parts.append(sql.SQL("({}\n)").format(sql.SQL(self.where)))
        for column, value in (self.values or {}).items():
            parts.append(sql.SQL("t.{} = {}").format(sql.Identifier(column), sql.Literal(value)))
        assert parts, "an erasure says which rows"
        return sql.SQL(" and ").join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasurePlan:
    """How many rows would be erased, in the table and in each archive of it."""

    table: str
    key: tuple[str, ...]
    rows: int
    archives: tuple[tuple[ArchiveEntry, int], ...]

    @property
    def is_empty(self) -> bool:
        return self.rows == 0 and not self.archives

    def as_json(self) -> dict[str, Any]:
        """The document of ``archive erase --dry-run --json``, but for the database."""
        return {
            "table": self.table,
            "key": list(self.key),
            "rows": self.rows,
            "archives": [
                {"id": str(entry.id), "name": entry.name, "location": entry.location, "rows": rows}
                for entry, rows in self.archives
            ],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasureReport:
    """What one erasure did: the rows that left the table, and from how many rows each archive was freed."""

    id: uuid.UUID
    table: str
    keys: int
    """How many rows are on the replay list by it."""
    rows: int
    archives: dict[str, int]

    def as_json(self) -> dict[str, Any]:
        """One entry of ``erasures`` of ``archive erase --json``."""
        return {
            "id": str(self.id),
            "table": self.table,
            "keys": self.keys,
            "rows": self.rows,
            "archives": [{"replaced": id_, "rows": rows} for id_, rows in self.archives.items()],
        }


def plan_erasure(
    connection: AutocommitConnection, ledger: Ledger, table: Relation, chosen: Chosen, *, database: str
) -> ErasurePlan:
    """Which rows are chosen, in the table and in its archives; only reads, every archive of the table too.

    Raises what ``read_shape`` raises, ``UnsuitableErasure``, ``ErasedRowsReferenced`` where other rows refer to them,
    ``ErasureMustWait`` and ``ArchiveDamaged``.
    """
    shape = read_shape(connection, table)
    _refuse_unfinished(ledger, database, table)
    with connection.transaction():
        be_exact(connection)
        rows = _count_in_table(connection, shape, chosen.condition)
    found = []
    for entry in _archives(ledger, database, table):
        hashes = _in_archive(connection, ledger, entry, shape.key, chosen.condition, salt=b"")
        if hashes:
            found.append((entry, len(hashes)))
    return ErasurePlan(table=str(table), key=shape.key, rows=rows, archives=tuple(found))


def apply_erasure(
    connection: AutocommitConnection,
    ledger: Ledger,
    table: Relation,
    chosen: Chosen,
    *,
    database: str,
    now: datetime,
    work: Path,
    note: str | None = None,
    wait_ms: int = 600_000,
    sleep: Callable[[float], None] = time.sleep,
) -> list[ErasureReport]:
    """Erase the chosen rows from the table and from its archives, and remember them; killed ones are finished first.

    Under the advisory lock ``archive``. The table's rows go in one transaction (ROW EXCLUSIVE, row locks, triggers
    fire) that waits for a lock at most 10 s. Files are written anew beside the old ones. Raises what ``plan_erasure``
    raises, before anything is changed, ``LockNotAcquired``, ``RowsHeldBack`` and what ``rewrite`` raises: then it goes
    on when it is run again.
    """
    with advisory_lock(connection, LOCK, wait_ms=wait_ms, sleep=sleep):
        reports = finish(connection, ledger, database, work=work)
        plan = plan_erasure(connection, ledger, table, chosen, database=database)
        if plan.is_empty:
            return reports
        salt = erasures.salt_of(ledger, database, str(table))
        hashes: set[bytes] = set()
        with connection.transaction():
            be_exact(connection)
            found = sql.SQL("select {} from {} as t where {}").format(
                erasures.key_hash(salt, plan.key, "t"), table.identifier, chosen.condition
            )
            hashes.update(bytes(row[0]) for row in connection.execute(found))
        for entry, _ in plan.archives:
            hashes.update(_in_archive(connection, ledger, entry, plan.key, chosen.condition, salt=salt))
        erasure = Erasure(
            id=uuid.uuid4(),
            database=database,
            table=str(table),
            cause="asked",
            key=plan.key,
            salt=salt,
            rows=len(hashes),
            column=None,
            before=None,
            decided_at=now,
        )
        erasures.decide(ledger, erasure, sorted(hashes), note=note)
        reached("erase", "decided", 0, len(hashes))
        return [*reports, *finish(connection, ledger, database, work=work)]


def finish(connection: AutocommitConnection, ledger: Ledger, database: str, *, work: Path) -> list[ErasureReport]:
    """Do what is left of every erasure that was decided; what each of them did now."""
    records.ensure_records(connection)
    erasures.ensure_seen(connection)
    reports = []
    for erasure in erasures.listed(ledger, database, unfinished=True):
        rows, freed = 0, {}
        if erasure.cause == "asked":
            with erasures.loaded(connection, ledger, [erasure]):
                rows = _leave_table(connection, erasure)
                reached("erase", "erased", rows, erasure.rows)
                freed = _leave_archives(connection, ledger, erasure, work=work)
        else:
            erasures.see(connection, erasure, 0)
        remove_files(connection, ledger, database, work=work)
        erasures.mark_done(ledger, erasure)
        reached("erase", "removed", erasure.rows, erasure.rows)
        reports.append(ErasureReport(id=erasure.id, table=erasure.table, keys=erasure.rows, rows=rows, archives=freed))
    return reports


def _leave_table(connection: AutocommitConnection, erasure: Erasure) -> int:
    """Delete the rows from their table, once: a database that has seen the erasure is left alone."""
    if erasure.id in erasures.seen(connection):
        return 0
    table = Relation.parse(erasure.table)
    shape = read_shape(connection, table)
    condition = erasure.names("t")
    try:
        with connection.transaction():
            connection.execute("select set_config('lock_timeout', %s, true)", (str(LOCK_TIMEOUT_MS),))
            be_exact(connection)
            be_durable(connection)
            connection.execute(sql.SQL("lock table {} in row exclusive mode").format(table.identifier))
            locked = connection.execute(
                sql.SQL("select from {} as t where {} for update").format(table.identifier, condition)
            ).rowcount
            _count_in_table(connection, shape, condition)
            rows = connection.execute(
                sql.SQL("delete from {} as t where {}").format(table.identifier, condition)
            ).rowcount
            if rows != locked:
                raise RowsHeldBack(
                    rows=locked - rows, table=str(table), hint="Look for a trigger or a rule that keeps rows on DELETE."
                )
            erasures.see(connection, erasure, rows)
    except psycopg.errors.LockNotAvailable as error:
        raise LockNotAcquired(
            lock=f"a lock on rows of {table}",
            waited_ms=LOCK_TIMEOUT_MS,
            hint="Find in pg_stat_activity the transaction that holds it, then erase again: it goes on.",
        ) from error
    return rows


def _leave_archives(
    connection: AutocommitConnection, ledger: Ledger, erasure: Erasure, *, work: Path
) -> dict[str, int]:
    """Free the archives that were made before the rows had left the table; a later one has other rows."""
    freed = {}
    left_at = erasures.seen(connection)[erasure.id]
    for entry in _archives(ledger, erasure.database, Relation.parse(erasure.table)):
        if entry.created_at <= left_at:
            rows = rewrite(connection, ledger, entry, erasure, work=work)
            if rows:
                freed[str(entry.id)] = rows
    return freed


def _count_in_table(connection: AutocommitConnection, shape: TableShape, condition: sql.Composed) -> int:
    """How many rows of the table fulfil it. Raises ``ErasedRowsReferenced`` and ``UnsuitableErasure``."""
    references = read_references(connection, shape.oid)
    statement = sql.SQL("select count(*){} from {} as t where {}").format(
        sql.SQL("").join(
            sql.SQL(", count(*) filter (where {})").format(reference.refers_to("t")) for reference in references
        ),
        shape.table.identifier,
        condition,
    )
    rows, *referred = _answered(connection, statement, str(shape.table))[0]
    for reference, count in zip(references, referred, strict=True):
        if count:
            raise _referenced(shape.table, reference, "the database", count)
    return int(rows)


def _in_archive(
    connection: AutocommitConnection,
    ledger: Ledger,
    entry: ArchiveEntry,
    key: Sequence[str],
    condition: sql.Composed,
    *,
    salt: bytes,
) -> set[bytes]:
    """The hashes of the keys of the chosen rows in an archive. Raises as ``plan_erasure`` does."""
    children = [one for one in catalogue.along(ledger, entry) if one.parent_id == entry.id]
    with (
        reading(entry.location, entry.sha256, connection) as reader,
        staging_of(connection, reader.metadata.columns) as stage,
        connection.transaction(),
    ):
        be_exact(connection)
        for block in reader.blocks():
            stage.add(block)
        statement = sql.SQL("select {} from {} as t where {}").format(
            erasures.key_hash(salt, key, "t"), stage.table, condition
        )
        hashes = {bytes(row[0]) for row in _answered(connection, statement, entry.location)}
        if hashes:
            for child in children:
                _refuse_children(connection, entry, stage, child, condition)
        return hashes


def _refuse_children(
    connection: AutocommitConnection, entry: ArchiveEntry, stage: Staging, child: ArchiveEntry, condition: sql.Composed
) -> None:
    with (
        reading(child.location, child.sha256, connection) as reader,
        staging_of(connection, reader.metadata.columns, number=1) as files,
    ):
        for block in reader.blocks():
            files.add(block)
        ((rows,),) = _answered(
            connection,
            sql.SQL("select count(*) from {} as c where exists (select from {} as t where {} and {})").format(
                files.table, stage.table, same_columns(child.parent_columns, "c", "t"), condition
            ),
            child.location,
        )
    if rows:
        raise ErasedRowsReferenced(
            rows=rows,
            child=child.table,
            where=f"the archive {child.id}",
            table=entry.table,
            by=", ".join(own for own, _ in child.parent_columns),
            hint=f"Erase them first: dbplatform archive erase {entry.database} --table {child.table} --where ...",
        )


def _referenced(table: Relation, reference: Reference, where: str, rows: int) -> ErasedRowsReferenced:
    return ErasedRowsReferenced(
        rows=rows,
        child=str(reference.child),
        where=where,
        table=str(table),
        by=reference.constraint,
        hint=f"Erase or change them first: dbplatform archive erase ... --table {reference.child} --where ...",
    )


def _answered(connection: AutocommitConnection, statement: sql.Composed, where: str) -> list[tuple[Any, ...]]:
    try:
        return connection.execute(statement).fetchall()
    except (psycopg.ProgrammingError, psycopg.DataError) as error:
        if isinstance(error, psycopg.errors.InsufficientPrivilege):
            raise
        raise UnsuitableErasure(
            where=where, reason=first_line(error), hint="Correct --where or --key; nothing was changed."
        ) from error


def _archives(ledger: Ledger, database: str, table: Relation) -> list[ArchiveEntry]:
    return [entry for entry in catalogue.list_archives(ledger, database) if entry.table == str(table)]


def _refuse_unfinished(ledger: Ledger, database: str, table: Relation) -> None:
    for entry in _archives(ledger, database, table):
        if entry.status in ("exported", "verified"):
            raise ErasureMustWait(
                archive=str(entry.id),
                table=str(table),
                hint=f"Finish it: dbplatform archive apply {database} --name {entry.name}; where it archives by "
                f"partition, dbplatform partition retire {database} lets them go; then erase.",
            )
