"""Step one: the rows that match and are proven, from one snapshot into one file.

The snapshot is read twice: once for the number and the sums of the rows, computed by the server, and once by COPY. The
memory needed does not grow with the table: a block of ``BLOCK_BYTES`` becomes a row group.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from psycopg import sql

from dbplatform.archiving.children import Node
from dbplatform.archiving.content import RowSums, be_exact, row_text, sums_of
from dbplatform.archiving.errors import ArchiveNotWritten
from dbplatform.archiving.parquet import ArchiveWriter, Metadata, sha256_of, written
from dbplatform.archiving.plan import ArchivePlan
from dbplatform.archiving.points import reached
from dbplatform.archiving.proof import ProvenSnapshot
from dbplatform.archiving.shape import Column, with_storage
from dbplatform.archiving.storage import TIMES
from dbplatform.archiving.tables import TablePlace, table_reader
from dbplatform.postgres.connection import AnyConnection, AutocommitConnection, SnapshotConnection, snapshot
from dbplatform.postgres.identifiers import Relation
from dbplatform.storage.place import Place, StorageFailed

#: Of CSV; a block ends with the row that reaches one of the two.
BLOCK_BYTES = 16 * 1024 * 1024
BLOCK_ROWS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """A complete file in its place, and what the snapshot held; ``parent_id``: its rows refer to that archive's."""

    archive_id: uuid.UUID
    table: Relation
    parent_id: uuid.UUID | None
    parent_columns: tuple[tuple[str, str], ...]
    location: str
    sums: RowSums
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """Where an archive lies, its size, and by which SHA-256 it is known again."""

    location: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Written:
    """A file that is complete and has not got its name yet."""

    node: Node
    metadata: Metadata
    sums: RowSums


def file_name(database: str, name: str, archive_id: uuid.UUID, child: str | None = None) -> str:
    """The name of an archive's file in the place of the archives; those of a ``child`` table lie in a folder below."""
    folder = f"{name}/{child}" if child is not None else name
    return f"{database}/{folder}/{archive_id}.parquet"


def place_for(place: Place, child: Relation | None) -> Place:
    """The place for rows that leave along: where archives are kept in a table, another one for each child."""
    if child is None or not isinstance(place, TablePlace):
        return place
    return place.beside(child)


def export(
    connection: AutocommitConnection,
    plan: ArchivePlan,
    place: Place,
    ids: Mapping[Relation, uuid.UUID],
    *,
    database: str,
    proof: ProvenSnapshot,
    now: datetime,
) -> tuple[list[Exported], int]:
    """Write the rows that match and that the proven backup holds with all that leaves along, parents before children.

    A table without such rows gets no file. The number is that of the matching rows that the backup does not hold: they
    are left out. One read-only REPEATABLE READ transaction, ACCESS SHARE on the tables. Every file is in its place
    under its name when this returns. Raises ``ArchiveNotWritten``.
    """
    tree = plan.tree
    held = tree.complete(tree.root, proof)
    wanted = sql.SQL("{} and {}").format(plan.matches, held)
    written_: list[_Written] = []
    try:
        with snapshot(connection) as reading:
            be_exact(reading)
            uncovered = 0
            for node in tree.nodes:
                leaves = tree.leaves(node, wanted)
                if node is tree.root:
                    sums, uncovered, columns = _measured(reading, node, plan.matches, held)
                else:
                    sums, _, columns = _measured(reading, node, leaves, sql.SQL("true"))
                if sums.rows == 0:
                    continue
                metadata = Metadata(
                    archive_id=str(ids[node.table]),
                    name=plan.policy.name,
                    database=database,
                    table=str(plan.table if node is tree.root else node.table),
                    column=plan.policy.column if node is tree.root else None,
                    cutoff=plan.cutoff,
                    where=plan.policy.where,
                    key=node.shape.key,
                    columns=columns,
                    rows=sums.rows,
                    content_hash=sums.hash,
                    snapshot=_snapshot_text(reading),
                    exported_at=now,
                    backup_id=proof.backup_id,
                    parent_id=str(ids[tree.nodes[node.parent].table]) if node.parent is not None else None,
                    parent_columns=node.reference.columns if node.reference is not None else (),
                )
                written_.append(_Written(node=node, metadata=metadata, sums=sums))
                _write(reading, written_[-1], leaves, _aside(place, written_[-1]))
        return [_complete(connection, place, one) for one in written_], uncovered
    except BaseException:
        for one in written_:
            with suppress(OSError):
                _aside(place, one).unlink(missing_ok=True)
        raise


def _write(connection: SnapshotConnection, one: _Written, leaves: sql.Composable, partial: Path) -> None:
    task, sums = one.metadata.task, one.sums
    with written(partial) as file:
        writer = ArchiveWriter(file, one.metadata)
        rows = 0
        reached(task, "export", 0, sums.rows)
        for block_rows in _each_written(writer, _blocks(connection, one.node, leaves)):
            rows += block_rows
            reached(task, "export", rows, sums.rows)
        writer.close()
        if rows != sums.rows:
            raise ArchiveNotWritten(
                path=str(partial),
                reason=f"COPY gave {rows} rows where the same snapshot counts {sums.rows}",
                hint="Look for row-level security or a foreign table behind it. Nothing was deleted.",
            )
    reached(task, "write", sums.rows, sums.rows)


def _each_written(writer: ArchiveWriter, blocks: Iterator[list[bytes]]) -> Iterator[int]:
    """Write every block, by a thread of its own while the next one is read; the rows of each."""
    with ThreadPoolExecutor(max_workers=1) as beside:
        writing = None
        for lines in blocks:
            if writing is not None:
                yield writing.result()
            writing = beside.submit(writer.write, lines)
        if writing is not None:
            yield writing.result()


def _complete(connection: AutocommitConnection, place: Place, one: _Written) -> Exported:
    """Give the file its name."""
    metadata = one.metadata
    stored = complete(connection, place_for(place, _child(one)), _named(one))
    reached(metadata.task, "rename", one.sums.rows, one.sums.rows)
    return Exported(
        archive_id=uuid.UUID(metadata.archive_id),
        table=Relation.parse(metadata.table),
        parent_id=uuid.UUID(metadata.parent_id) if metadata.parent_id is not None else None,
        parent_columns=metadata.parent_columns,
        location=stored.location,
        sums=one.sums,
        bytes=stored.bytes,
        sha256=stored.sha256,
    )


def complete(connection: AutocommitConnection, place: Place, name: str) -> Stored:
    """Give the file that lies at ``partial`` its name in the place. Raises ``ArchiveNotWritten``."""
    partial, location = place.partial(name), place.location(name)
    bytes_ = partial.stat().st_size
    with partial.open("rb") as whole:
        sha256 = sha256_of(whole)
    try:
        place.complete(name)
    except StorageFailed as error:
        raise ArchiveNotWritten(
            path=location, reason=error.fields["reason"], hint=f"{error.hint} Nothing was deleted."
        ) from error
    if isinstance(place, TablePlace):
        # It keeps rows, not the file.
        with table_reader(location, connection) as held:
            bytes_, sha256 = held.digest()
    return Stored(location=location, bytes=bytes_, sha256=sha256)


def _child(one: _Written) -> Relation | None:
    return one.node.table if one.node.parent is not None else None


def _named(one: _Written) -> str:
    metadata, child = one.metadata, _child(one)
    return file_name(
        metadata.database, metadata.name, uuid.UUID(metadata.archive_id), str(child) if child is not None else None
    )


def _aside(place: Place, one: _Written) -> Path:
    return place_for(place, _child(one)).partial(_named(one))


def _measured(
    connection: SnapshotConnection, node: Node, chosen: sql.Composable, held: sql.Composable
) -> tuple[RowSums, int, tuple[Column, ...]]:
    """The sums of the chosen rows that are held, the number of the others, and the columns with their forms here."""
    times = [column for column in node.shape.columns if column.storage in TIMES]
    row = sql.Identifier(node.alias)
    fields = [
        sql.SQL("{} as held").format(held),
        sql.SQL("{} as text").format(row_text(sorted(node.shape.names), node.alias)),
    ]
    beyond = []
    for place, column in enumerate(times):
        first, last = TIMES[column.storage]
        alias = sql.Identifier(f"beyond_{place}")
        fields.append(
            sql.SQL("coalesce({}.{} not between {} and {}, false) as {}").format(
                row, sql.Identifier(column.name), sql.Literal(first), sql.Literal(last), alias
            )
        )
        beyond.append(sql.SQL(", coalesce(bool_or({}) filter (where held), false)").format(alias))
    statement = sql.SQL(
        "select {sums}, count(*) filter (where not held){beyond}"
        " from (select {fields} from {table} as {row} where {chosen} offset 0) as rows"
    ).format(
        sums=sums_of(sql.SQL("text"), sql.SQL("held")),
        beyond=sql.SQL("").join(beyond),
        fields=sql.SQL(", ").join(fields),
        table=node.table.identifier,
        row=row,
        chosen=chosen,
    )
    found = connection.execute(statement).fetchone()
    assert found is not None
    rows, first_sum, second_sum, others, *out_of_range = found
    as_text = [column.name for column, is_out in zip(times, out_of_range, strict=True) if is_out]
    columns = with_storage(node.shape.columns, as_text, "string")
    return RowSums(rows=rows, first=first_sum, second=second_sum), int(others), columns


def _blocks(connection: SnapshotConnection, node: Node, leaves: sql.Composable) -> Iterator[list[bytes]]:
    row = sql.Identifier(node.alias)
    names = sql.SQL(", ").join(sql.SQL("{}.{}").format(row, sql.Identifier(name)) for name in node.shape.names)
    statement = sql.SQL("copy (select {} from {} as {} where {}) to stdout (format csv, force_quote *)").format(
        names, node.table.identifier, row, leaves
    )
    yield from lines_of(connection, statement)


def lines_of(connection: AnyConnection, statement: sql.Composed) -> Iterator[list[bytes]]:
    """The rows that COPY gives, in blocks, one record each: the server sends one row per message."""
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
