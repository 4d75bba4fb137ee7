"""Step three: exactly the exported rows leave the table, in small transactions that a killed process cannot split.

A row is deleted when it has the key *and* the whole contents of the exported row and the proven backup holds this very
version of it. The predicate of the policy is never asked again: a row that has begun to match since is not in the file
and cannot be touched. A row that others change at that moment is judged again as they leave it (manual: "13.2.1 Read
Committed Isolation Level").

Where other tables refer to the table, rows are locked first (FOR UPDATE) and judged by a later statement, which
therefore sees every row of another table that has come to refer to them: their writers held FOR KEY SHARE on the row
(manual: "13.3.2 Row-Level Locks"). Otherwise ON DELETE CASCADE would take rows that are in no archive.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import cast

import psycopg
from psycopg import sql

from dbplatform.archiving import records
from dbplatform.archiving.along import Batch, ChildFile, Member, family
from dbplatform.archiving.children import any_of
from dbplatform.archiving.content import be_durable, be_exact, find_by_key, same_key, same_row
from dbplatform.archiving.errors import ArchiveTableChanged
from dbplatform.archiving.kept import Reader, reading
from dbplatform.archiving.pace import Pace
from dbplatform.archiving.points import reached
from dbplatform.archiving.proof import ProvenSnapshot, covered
from dbplatform.archiving.records import reason_to_stay
from dbplatform.archiving.shape import TableShape, read_references
from dbplatform.archiving.staging import Loaded, Staging, staging
from dbplatform.archiving.verify import require_same_columns
from dbplatform.errors import LockNotAcquired
from dbplatform.postgres.connection import AutocommitConnection
from dbplatform.postgres.pressure import waiting_for_us


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    connection: AutocommitConnection
    shape: TableShape
    archive_id: uuid.UUID
    name: str
    proof: ProvenSnapshot
    stage: Staging
    pace: Pace
    total: int
    members: tuple[Member, ...]
    """The table, and those whose rows leave along."""


def delete_rows(
    connection: AutocommitConnection,
    shape: TableShape,
    archive_id: uuid.UUID,
    location: str,
    *,
    sha256: str,
    proof: ProvenSnapshot,
    pace: Pace,
    children: Sequence[ChildFile] = (),
    loaded: Loaded | None = None,
) -> str | None:
    """Delete the exported rows that are still what they were, from where the last call stopped, with ``children``.

    ``loaded`` are its rows where they were just read back; else they are loaded from the file, block by block. Answers
    why it stopped before the end, where the ``pace`` says so; then it goes on when it is called again. The SHA-256 of
    every file is read first. Each batch is one transaction (ROW EXCLUSIVE on the table, row locks) that also records
    what became of every row: ``records.read_progress`` and ``records.kept_counts`` tell. Triggers fire. Raises
    ``ArchiveDamaged``, ``ArchiveTableChanged``, ``ArchiveMovedOn``, ``ReplicaBehind``, ``RowsHeldBack`` and
    ``LockNotAcquired``; the batches before stay.
    """
    stand = records.read_progress(connection, archive_id)
    assert stand is not None
    position = stand.position
    with reading(location, sha256, connection) as reader:
        require_same_columns(shape, reader.metadata)
        name, total = reader.metadata.name, reader.rows
        reached(name, "delete", position, total)
        with ExitStack() as stack:
            stage = loaded.stage if loaded else stack.enter_context(staging(connection, shape.table, shape.names))
            root = Member(place=0, archive_id=archive_id, shape=shape, stage=stage, parent=None, columns=())
            members = stack.enter_context(family(connection, root, children))
            work = _Work(
                connection=connection,
                shape=shape,
                archive_id=archive_id,
                name=name,
                proof=proof,
                stage=stage,
                pace=pace,
                total=total,
                members=members,
            )
            for end, bytes_per_row in _staged(reader, stage, position, loaded):
                while position < end:
                    if (stopped := pace.stops()) is not None:
                        return stopped
                    pace.wait_for_replicas(connection, shape.table)
                    pace.wait_for_wal(connection)
                    position = _batch(work, position, end, bytes_per_row=bytes_per_row)
                    reached(name, "delete", position, total)
    return None


def _staged(reader: Reader, stage: Staging, position: int, loaded: Loaded | None) -> Iterator[tuple[int, int]]:
    """Have the rows from a place on in the stage, all of them or block by block: the place behind, bytes for a row."""
    if loaded is not None:
        stage.index_places()
        stage.analyze()
        yield reader.rows, loaded.bytes // reader.rows
        return
    for block in reader.blocks(start=position):
        stage.replace(block)
        stage.analyze()
        yield block.first + block.rows, len(block.csv) // block.rows


def _batch(work: _Work, first: int, block_end: int, *, bytes_per_row: int) -> int:
    """Deal with the next rows; returns the place after them."""
    pace = work.pace
    while True:
        end = min(first + pace.rows, block_end)
        started = pace.clock()
        try:
            with work.connection.transaction():
                _deal_with(work, first, end)
                waiting = waiting_for_us(work.connection)
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as error:
            if not pace.failed():
                raise LockNotAcquired(
                    lock=f"a lock on rows of {work.shape.table}",
                    waited_ms=pace.failures * pace.throttle.lock_timeout_ms,
                    hint="Find in pg_stat_activity the transaction that holds it, then archive again: "
                    "it goes on where it stopped.",
                ) from error
        else:
            pace.succeeded(pace.clock() - started, bytes_=(end - first) * bytes_per_row, waiting=waiting)
            return end


def _deal_with(work: _Work, first: int, end: int) -> None:
    """One transaction: delete, account for every row, advance."""
    connection = work.connection
    connection.execute("select set_config('lock_timeout', %s, true)", (str(work.pace.throttle.lock_timeout_ms),))
    be_exact(connection)
    be_durable(connection)
    for member in work.members:
        # No foreign key can be added, and the table not be swapped for another, until this transaction ends.
        connection.execute(sql.SQL("lock table {} in row exclusive mode").format(member.shape.table.identifier))
        _require_same_table(work, member.shape)
    if len(work.members) > 1:
        deleted = Batch(
            connection=connection,
            members=work.members,
            proof=work.proof,
            first=first,
            end=end,
            name=work.name,
            total=work.total,
        ).leave()
    else:
        deleted = _leave(work, first, end)
    reached(work.name, "batch", end, work.total)
    records.advance(connection, work.archive_id, first, end, deleted)


def _leave(work: _Work, first: int, end: int) -> int:
    """Lock where others refer to the rows, delete, account for every row that stayed; how many left."""
    connection, shape, stage = work.connection, work.shape, work.stage
    table = shape.table.identifier
    find_by_key(connection)
    match = same_key(shape.key, "t", "x")
    among = stage.between(first, end)
    references = read_references(connection, shape.oid)
    if references:
        connection.execute(
            sql.SQL("select 1 from {} as t join {} as x on {} where {} for update of t").format(
                table, stage.table, match, among
            )
        )
    same = same_row(shape.names, "t", "x")
    held = covered(work.proof, "t", shape.table)
    referred = any_of([reference.refers_to("t") for reference in references])
    deleted = connection.execute(
        sql.SQL(
            "delete from {table} as t using {stage} as x"
            " where {match} and {among} and {same} and {held} and not {referred} returning {ordinal}"
        ).format(
            table=table,
            stage=stage.table,
            match=match,
            among=among,
            same=same,
            held=held,
            referred=referred,
            ordinal=stage.ordinal,
        )
    ).fetchall()
    if stayed := sorted(set(range(first, end)).difference(place for (place,) in deleted)):
        rows = connection.execute(
            sql.SQL(
                "select {ordinal}, t.same, t.held, t.referred from {stage} as x left join lateral"
                " (select {same} as same, {held} as held, {referred} as referred from {table} as t where {match})"
                " as t on true where {ordinal} = any({stayed}) order by 1"
            ).format(
                ordinal=stage.ordinal,
                stage=stage.table,
                same=same,
                held=held,
                referred=referred,
                table=table,
                match=match,
                stayed=sql.Literal(stayed),
            )
        ).fetchall()
        reasons = [reason_to_stay(same, held, referred) or "held" for _, same, held, referred in rows]
        records.keep(connection, work.archive_id, [row[0] for row in rows], reasons)
    return len(deleted)


def _require_same_table(work: _Work, shape: TableShape) -> None:
    row = work.connection.execute(
        "select to_regclass(%s)::oid::bigint", (shape.table.identifier.as_string(work.connection),)
    ).fetchone()
    if cast("tuple[int | None]", row)[0] != shape.oid:
        raise ArchiveTableChanged(
            table=str(shape.table),
            archive=str(work.archive_id),
            reason="another table has its name now",
            hint="Archive again; what has left so far stays archived.",
        )
