"""Step one: the rows that match and are proven, from one snapshot into one file.

The snapshot is read twice: once for the number and the sums of the rows, computed by the server, and once by COPY. The
memory needed does not grow with the table: a block of ``BLOCK_BYTES`` becomes a row group.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from psycopg import sql

from dbplatform.archiving.content import RowSums, be_exact, row_text, sums_of
from dbplatform.archiving.errors import ArchiveNotWritten
from dbplatform.archiving.parquet import ArchiveWriter, Metadata, sha256_of, written
from dbplatform.archiving.plan import ArchivePlan
from dbplatform.archiving.points import reached
from dbplatform.archiving.proof import ProvenSnapshot, covered
from dbplatform.archiving.shape import Column, with_storage
from dbplatform.archiving.storage import TIMES
from dbplatform.archiving.tables import TablePlace, table_reader
from dbplatform.postgres.connection import AutocommitConnection, SnapshotConnection, snapshot
from dbplatform.storage.place import Place, StorageFailed

#: Of CSV; a block ends with the row that reaches one of the two.
BLOCK_BYTES = 16 * 1024 * 1024
BLOCK_ROWS = 50_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """A complete file in its place; what the snapshot held; how many matching rows no backup holds."""

    archive_id: uuid.UUID
    location: str
    sums: RowSums
    bytes: int
    sha256: str
    uncovered: int


def file_name(database: str, name: str, archive_id: uuid.UUID) -> str:
    """The name of an archive's file in the place of the archives."""
    return f"{database}/{name}/{archive_id}.parquet"


def export(
    connection: AutocommitConnection,
    plan: ArchivePlan,
    place: Place,
    archive_id: uuid.UUID,
    *,
    database: str,
    proof: ProvenSnapshot,
    now: datetime,
) -> Exported | int:
    """Write the rows that match and that the proven backup holds; a number alone: there are none.

    The number is that of the matching rows that the backup does not hold: they are left out. One read-only REPEATABLE
    READ transaction, ACCESS SHARE on the table. The file is in its place under its name when this returns. Raises
    ``ArchiveNotWritten``.
    """
    name = plan.policy.name
    file_at = file_name(database, name, archive_id)
    partial, location = place.partial(file_at), place.location(file_at)
    with snapshot(connection) as reading:
        be_exact(reading)
        wanted = sql.SQL("{} and {}").format(plan.matches, covered(proof, "t"))
        sums, uncovered, columns = _measured(reading, plan, proof)
        if sums.rows == 0:
            return uncovered
        metadata = Metadata(
            archive_id=str(archive_id),
            name=name,
            database=database,
            table=str(plan.policy.table),
            column=plan.policy.column,
            cutoff=plan.cutoff,
            where=plan.policy.where,
            key=plan.shape.key,
            columns=columns,
            rows=sums.rows,
            content_hash=sums.hash,
            snapshot=_snapshot_text(reading),
            exported_at=now,
            backup_id=proof.backup_id,
        )
        with written(partial) as file:
            writer = ArchiveWriter(file, metadata)
            rows = 0
            reached(name, "export", 0, sums.rows)
            for lines in _blocks(reading, plan, wanted):
                writer.write(lines)
                rows += len(lines)
                reached(name, "export", rows, sums.rows)
            writer.close()
            if rows != sums.rows:
                raise ArchiveNotWritten(
                    path=str(partial),
                    reason=f"COPY gave {rows} rows where the same snapshot counts {sums.rows}",
                    hint="Look for row-level security or a foreign table behind it. Nothing was deleted.",
                )
    reached(name, "write", sums.rows, sums.rows)
    bytes_ = partial.stat().st_size
    with partial.open("rb") as whole:
        sha256 = sha256_of(whole)
    try:
        place.complete(file_at)
    except StorageFailed as error:
        raise ArchiveNotWritten(
            path=location, reason=error.fields["reason"], hint=f"{error.hint} Nothing was deleted."
        ) from error
    if isinstance(place, TablePlace):
        # It keeps rows, not the file.
        with table_reader(location, connection) as held:
            bytes_, sha256 = held.digest()
    reached(name, "rename", sums.rows, sums.rows)
    return Exported(
        archive_id=archive_id,
        location=location,
        sums=sums,
        bytes=bytes_,
        sha256=sha256,
        uncovered=uncovered,
    )


def _measured(
    connection: SnapshotConnection, plan: ArchivePlan, proof: ProvenSnapshot
) -> tuple[RowSums, int, tuple[Column, ...]]:
    """The sums of the proven rows, the number of the others, and the columns with their forms in this file."""
    times = [column for column in plan.shape.columns if column.storage in TIMES]
    fields = [
        sql.SQL("{} as held").format(covered(proof, "t")),
        sql.SQL("{} as text").format(row_text(sorted(plan.shape.names), "t")),
    ]
    beyond = []
    for place, column in enumerate(times):
        first, last = TIMES[column.storage]
        alias = sql.Identifier(f"beyond_{place}")
        fields.append(
            sql.SQL("coalesce(t.{} not between {} and {}, false) as {}").format(
                sql.Identifier(column.name), sql.Literal(first), sql.Literal(last), alias
            )
        )
        beyond.append(sql.SQL(", coalesce(bool_or({}) filter (where held), false)").format(alias))
    statement = sql.SQL(
        "select {sums}, count(*) filter (where not held){beyond}"
        " from (select {fields} from {table} as t where {matches}) as rows"
    ).format(
        sums=sums_of(sql.SQL("text"), sql.SQL("held")),
        beyond=sql.SQL("").join(beyond),
        fields=sql.SQL(", ").join(fields),
        table=plan.policy.table.identifier,
        matches=plan.matches,
    )
    row = connection.execute(statement).fetchone()
    assert row is not None
    rows, first_sum, second_sum, uncovered, *out_of_range = row
    as_text = [column.name for column, is_out in zip(times, out_of_range, strict=True) if is_out]
    columns = with_storage(plan.shape.columns, as_text, "string")
    return RowSums(rows=rows, first=first_sum, second=second_sum), int(uncovered), columns


def _blocks(connection: SnapshotConnection, plan: ArchivePlan, wanted: sql.Composable) -> Iterator[list[bytes]]:
    """The rows as COPY writes them, one record each: the server sends one row per message."""
    names = sql.SQL(", ").join(sql.SQL("t.{}").format(sql.Identifier(name)) for name in plan.shape.names)
    statement = sql.SQL("copy (select {} from {} as t where {}) to stdout (format csv, force_quote *)").format(
        names, plan.policy.table.identifier, wanted
    )
    lines: list[bytes] = []
    size = 0
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for data in copy:
            lines.append(bytes(data))
            size += len(data)
            if size >= BLOCK_BYTES or len(lines) >= BLOCK_ROWS:
                yield lines
                lines, size = [], 0
    if lines:
        yield lines


def _snapshot_text(connection: SnapshotConnection) -> str:
    row = connection.execute("select pg_current_snapshot()::text").fetchone()
    assert row is not None
    return str(row[0])
