"""Brings archived rows back, exactly as they were, in one transaction: all of them or none.

The rows that return are those that the archive has taken out: an exported row that stayed in the table, because it was
changed or deleted by others meanwhile, is not brought back over them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import psycopg
from psycopg import sql

from dbplatform.archiving import catalogue, erasures, records
from dbplatform.archiving.apply import LOCK
from dbplatform.archiving.catalogue import ArchiveEntry
from dbplatform.archiving.content import be_durable, be_exact, row_text, same_key
from dbplatform.archiving.errors import (
    ArchiveTableChanged,
    RestoreConflict,
    RestoredWithParents,
    RestoreFailed,
    RestorePartitionMissing,
)
from dbplatform.archiving.kept import reading
from dbplatform.archiving.parquet import Metadata, first_line
from dbplatform.archiving.points import reached
from dbplatform.archiving.shape import read_columns
from dbplatform.archiving.staging import Staging, staging
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.catalog import is_partitioned, require_table, table_exists
from dbplatform.postgres.connection import AutocommitConnection
from dbplatform.postgres.identifiers import Relation
from dbplatform.postgres.locks import advisory_lock

_BOUNDS = """
    select pg_get_partition_constraintdef(p.relid) from pg_partition_tree(%s::regclass) p where p.isleaf
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreReport:
    """What ``archive restore`` did: how many rows it brought back, and how many were there already, equal."""

    archive_id: str
    table: str
    restored: int
    already_there: int
    left_out: int
    """Exported rows that had never left the table."""
    erased: int = 0
    """Rows that were erased on purpose since."""
    along: tuple[RestoreReport, ...] = ()
    """The same of the rows that had left along with these."""

    def as_json(self) -> dict[str, Any]:
        """The document of ``archive restore --json``."""
        return {
            "id": self.archive_id,
            "table": self.table,
            "restored": self.restored,
            "already_there": self.already_there,
            "left_out": self.left_out,
            "erased": self.erased,
            "along": [one.as_json() for one in self.along],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    connection: AutocommitConnection
    entry: ArchiveEntry
    metadata: Metadata
    like: Relation
    """The table that has the columns: the target, or the one that it is made like."""
    target: Relation
    stage: Staging
    wanted: sql.Composed
    """Whether the row ``x`` of the file has left its table."""
    inserted: tuple[str, ...]
    erased: int


def restore_archive(
    connection: AutocommitConnection,
    ledger: Ledger,
    archive_id: str,
    *,
    database: str,
    into: Relation | None = None,
    wait_ms: int = 600_000,
    sleep: Callable[[float], None] = time.sleep,
) -> RestoreReport:
    """Put the archived rows back into their table, or into the table ``into``, made like it where it is missing.

    Under the advisory lock ``archive``. Rows that had left along come back along, behind those that they refer to;
    aside, the rows come alone. The SHA-256 of every file is read first. Rows whose key is absent are inserted, with
    the values of identity columns (generated columns are computed again); rows that are there and equal are counted.
    Afterwards every row is compared with the file, still in the transaction. The ledger says ``restored`` once
    the rows are back in their own table; ``into`` leaves it as it is. Can be run again. Triggers fire.

    Raises ``UnknownArchive``, ``RestoredWithParents``, ``ArchiveDamaged``, ``ArchiveTableChanged``, ``RestoreConflict``
    when a key is there with other contents, ``RestorePartitionMissing`` and ``RestoreFailed``: in every case nothing
    was written.
    """
    entry = catalogue.get_archive(ledger, database, archive_id)
    with advisory_lock(connection, LOCK, wait_ms=wait_ms, sleep=sleep):
        source = Relation.parse(entry.table)
        target = source if into is None else into
        back = target == source
        if back and entry.parent_id is not None:
            raise RestoredWithParents(
                archive=archive_id,
                parent=str(entry.parent_id),
                hint=f"Bring both back: dbplatform archive restore {database} {_eldest(ledger, entry).id}; "
                "or these alone, aside: --into NAME.",
            )
        entries = [entry, *(catalogue.along(ledger, entry) if back else ())]
        try:
            report, *along = _restore(connection, ledger, entries, into)
        except (psycopg.IntegrityError, psycopg.DataError) as error:
            raise _failed(entry, target, error) from error
        if back:
            reached(entry.name, "return", report.restored, entry.rows)
            catalogue.mark_restored(ledger, [one.id for one in entries])
        reached(entry.name, "restored", report.restored, entry.rows)
    return replace(report, along=tuple(along))


def _eldest(ledger: Ledger, entry: ArchiveEntry) -> ArchiveEntry:
    while entry.parent_id is not None:
        entry = catalogue.get_archive(ledger, entry.database, entry.parent_id)
    return entry


def _restore(
    connection: AutocommitConnection, ledger: Ledger, entries: Sequence[ArchiveEntry], into: Relation | None
) -> list[RestoreReport]:
    """All of the archives or none of them, in their order."""
    with ExitStack() as stack:
        works = [
            _loaded(connection, ledger, stack, entry, into if place == 0 else None, place)
            for place, entry in enumerate(entries)
        ]
        with connection.transaction():
            be_exact(connection)
            be_durable(connection)
            return [_put_back(work) for work in works]


def _loaded(
    connection: AutocommitConnection,
    ledger: Ledger,
    stack: ExitStack,
    entry: ArchiveEntry,
    into: Relation | None,
    number: int,
) -> _Work:
    """The rows of the file in a temporary table, without those that were erased on purpose since."""
    source = Relation.parse(entry.table)
    target = into or source
    with reading(entry.location, entry.sha256, connection) as reader:
        metadata = reader.metadata
        names = tuple(column.name for column in metadata.columns)
        like = target if table_exists(connection, target) else source
        require_table(connection, like)
        inserted = _insertable(connection, entry, metadata, like)
        stage = stack.enter_context(staging(connection, like, names, number=number))
        done = 0
        for block in reader.blocks():
            stage.add(block)
            done += block.rows
            reached(metadata.task, "restore", done, entry.rows)
    erased = _forget_erased(connection, ledger, entry, stage)
    stage.analyze()
    return _Work(
        connection=connection,
        entry=entry,
        metadata=metadata,
        like=like,
        target=target,
        stage=stage,
        wanted=records.not_kept(connection, entry.id, stage.ordinal),
        inserted=inserted,
        erased=erased,
    )


def _forget_erased(connection: AutocommitConnection, ledger: Ledger, entry: ArchiveEntry, stage: Staging) -> int:
    since = [
        one for one in erasures.listed(ledger, entry.database, table=entry.table) if one.decided_at >= entry.created_at
    ]
    rows = 0
    for group in erasures.alike(since):
        with erasures.loaded(connection, ledger, group) as erasure, connection.transaction():
            be_exact(connection)
            rows += connection.execute(
                sql.SQL("delete from {} as x where {}").format(stage.table, erasure.names("x"))
            ).rowcount
    return rows


def _put_back(work: _Work) -> RestoreReport:
    """Refuse conflicts, insert what is absent, compare every row; the transaction is the caller's."""
    connection, target = work.connection, work.target
    if work.like != target:
        connection.execute(
            sql.SQL("create table {} (like {} including all)").format(target.identifier, work.like.identifier)
        )
    wanted = _count(work, work.wanted)
    _refuse_conflicts(work)
    if is_partitioned(connection, target):
        _refuse_missing_partitions(work)
    columns = [sql.Identifier(name) for name in work.inserted]
    inserted = connection.execute(
        sql.SQL(
            "insert into {target} ({columns}) overriding system value select {values} from {stage} as x"
            " where {wanted} and not exists (select from {target} as t where {match})"
        ).format(
            target=target.identifier,
            columns=sql.SQL(", ").join(columns),
            values=sql.SQL(", ").join(sql.SQL("x.{}").format(column) for column in columns),
            stage=work.stage.table,
            wanted=work.wanted,
            match=same_key(work.metadata.key, "t", "x"),
        )
    ).rowcount
    equal = _count(work, sql.SQL("{} and exists ({})").format(work.wanted, _there(work, same=True)))
    if equal != wanted:
        raise RestoreFailed(
            archive=str(work.entry.id),
            table=str(target),
            reason=f"{wanted - equal} rows came back with other contents or not at all",
            hint="Look for triggers, rules or generated columns that change rows on INSERT.",
        )
    reached(work.metadata.task, "insert", inserted, work.entry.rows)
    return RestoreReport(
        archive_id=str(work.entry.id),
        table=str(target),
        restored=inserted,
        already_there=wanted - inserted,
        left_out=work.entry.rows - wanted - work.erased,
        erased=work.erased,
    )


def _insertable(
    connection: AutocommitConnection, entry: ArchiveEntry, metadata: Metadata, table: Relation
) -> tuple[str, ...]:
    """The columns to write: those of the file that the table does not compute itself."""
    there = {column.name: column for column in read_columns(connection, table)}
    for column in metadata.columns:
        now = there.get(column.name)
        if now is None or now.type != column.type:
            raise ArchiveTableChanged(
                table=str(table),
                archive=str(entry.id),
                reason=f"its column {column.name} was {column.type}, and is {now.type if now else 'gone'}",
                hint="Restore into a table that has it: --into NAME.",
            )
    return tuple(column.name for column in metadata.columns if not there[column.name].generated)


def _refuse_conflicts(work: _Work) -> None:
    condition = sql.SQL("{} and exists ({})").format(work.wanted, _there(work, same=False))
    rows = _count(work, condition)
    if not rows:
        return
    key = row_text(work.metadata.key, "x")
    examples = work.connection.execute(
        sql.SQL("select {} from {} as x where {} order by {} limit 3").format(
            key, work.stage.table, condition, work.stage.ordinal
        )
    ).fetchall()
    raise RestoreConflict(
        rows=rows,
        table=str(work.target),
        keys=", ".join(f"({', '.join(work.metadata.key)}) = {example}" for (example,) in examples),
        hint="Restore aside (--into NAME) and compare, or delete those rows first.",
    )


def _there(work: _Work, *, same: bool) -> sql.Composed:
    """The rows of the table with the key of ``x``, and with equal or other contents."""
    names = tuple(column.name for column in work.metadata.columns)
    return sql.SQL("select from {} as t where {} and {} {} {}").format(
        work.target.identifier,
        same_key(work.metadata.key, "t", "x"),
        row_text(names, "t"),
        sql.SQL("=" if same else "<>"),
        row_text(names, "x"),
    )


def _refuse_missing_partitions(work: _Work) -> None:
    bounds = work.connection.execute(_BOUNDS, (work.target.identifier.as_string(work.connection),)).fetchall()
    # The catalog's own text of what each partition takes; no bound at all: a default partition alone.
    takes = [sql.SQL("({})").format(sql.SQL(text)) for (text,) in bounds if text is not None]
    if len(takes) < len(bounds):
        return
    row = work.connection.execute(
        sql.SQL("select {} from {} as x where {} and not coalesce({}, false) order by {} limit 1").format(
            row_text(dict.fromkeys((*work.metadata.key, *filter(None, [work.metadata.column]))), "x"),
            work.stage.table,
            work.wanted,
            sql.SQL(" or ").join([sql.SQL("false"), *takes]),
            work.stage.ordinal,
        )
    ).fetchone()
    if row is not None:
        raise RestorePartitionMissing(
            table=str(work.target),
            key=row[0],
            hint=f"Make its partition first: dbplatform partition apply {work.entry.database} --start with a day (or "
            "number) that reaches back to the row; or restore aside: --into NAME.",
        )


def _count(work: _Work, condition: sql.Composable) -> int:
    row = work.connection.execute(
        sql.SQL("select count(*) from {} as x where {}").format(work.stage.table, condition)
    ).fetchone()
    assert row is not None
    return int(row[0])


def _failed(entry: ArchiveEntry, target: Relation, error: psycopg.Error) -> RestoreFailed:
    said = (error.diag.message_primary, error.diag.message_detail)
    reason = ": ".join(words.rstrip(".") for words in said if words)
    return RestoreFailed(
        archive=str(entry.id),
        table=str(target),
        reason=reason or first_line(error),
        hint="Mend the cause, then restore again; or restore aside: --into NAME.",
    )
