"""Step two: the file is read from its place, loaded with the table's own types, and compared with the snapshot."""

from __future__ import annotations

from contextlib import ExitStack

import psycopg

from dbplatform.archiving.content import RowSums
from dbplatform.archiving.errors import ArchiveTableChanged, ReadBackDiffers
from dbplatform.archiving.kept import reading
from dbplatform.archiving.parquet import Metadata, first_line
from dbplatform.archiving.points import reached
from dbplatform.archiving.shape import Column, TableShape
from dbplatform.archiving.staging import Loaded, Staging, staging
from dbplatform.postgres.connection import AutocommitConnection


def read_back(
    connection: AutocommitConnection,
    shape: TableShape,
    location: str,
    *,
    sha256: str,
    rows: int,
    content_hash: str,
    into: Staging | None = None,
) -> Loaded | None:
    """Raise ``ReadBackDiffers`` or ``ArchiveDamaged`` unless the file gives back exactly the exported rows.

    Every value is read by the server from the file into a temporary table of the table's own types and hashed there:
    the empty ``into``, which then holds all of them, or block by block. Writes nothing that outlives the session.
    Raises ``ArchiveTableChanged`` too.
    """
    sums, bytes_ = RowSums(), 0
    with ExitStack() as stack:
        reader = stack.enter_context(reading(location, sha256, connection))
        require_same_columns(shape, reader.metadata)
        name = reader.metadata.task
        stage = into or stack.enter_context(staging(connection, shape.table, shape.names, by_place=False))
        for block in reader.blocks():
            try:
                stage.add(block) if into else stage.replace(block)
            except psycopg.DataError as error:
                raise _differs(location, f"PostgreSQL does not take a value ({first_line(error)})") from error
            if into is None:
                sums += stage.sums()
            bytes_ += len(block.csv)
            reached(name, "read back", block.first + block.rows, rows)
        if into is not None:
            sums = into.sums()
    if sums.rows != rows:
        raise _differs(location, f"{sums.rows} rows instead of {rows}")
    if sums.hash != content_hash:
        raise _differs(location, f"the content hash {sums.hash} instead of {content_hash}")
    return Loaded(stage=into, bytes=bytes_) if into is not None else None


def require_same_columns(shape: TableShape, metadata: Metadata) -> None:
    """Raise ``ArchiveTableChanged`` unless the table has the file's columns, with their types, and its key."""

    def typed(columns: tuple[Column, ...]) -> list[tuple[str, str]]:
        return [(column.name, column.type) for column in columns]

    reason = None
    if typed(shape.columns) != typed(metadata.columns):
        reason = "its columns were changed"
    elif shape.key != metadata.key:
        reason = "its key was changed"
    if reason is not None:
        raise ArchiveTableChanged(
            table=str(shape.table),
            archive=metadata.archive_id,
            reason=reason,
            hint="Bring back what has left already: "
            f"dbplatform archive restore {metadata.database} {metadata.archive_id}; then archive again.",
        )


def _differs(location: str, reason: str) -> ReadBackDiffers:
    return ReadBackDiffers(path=location, reason=reason, hint="Keep the file and report it; the rows are all there.")
