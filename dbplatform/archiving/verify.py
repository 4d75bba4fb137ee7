"""Step two: the file is read from its place, loaded with the table's own types, and compared with the snapshot."""

from __future__ import annotations

import psycopg

from dbplatform.archiving.content import RowSums
from dbplatform.archiving.errors import ArchiveTableChanged, ReadBackDiffers
from dbplatform.archiving.kept import reading
from dbplatform.archiving.parquet import Metadata, first_line
from dbplatform.archiving.points import reached
from dbplatform.archiving.shape import Column, TableShape
from dbplatform.archiving.staging import staging
from dbplatform.postgres.connection import AutocommitConnection


def read_back(
    connection: AutocommitConnection, shape: TableShape, location: str, *, sha256: str, rows: int, content_hash: str
) -> None:
    """Raise ``ReadBackDiffers`` or ``ArchiveDamaged`` unless the file gives back exactly the exported rows.

    Every value is read by the server from the file into a temporary table of the table's own types and hashed there.
    Writes nothing that outlives the session. Raises ``ArchiveTableChanged`` too.
    """
    sums = RowSums()
    with reading(location, sha256, connection) as reader:
        require_same_columns(shape, reader.metadata)
        name = reader.metadata.task
        with staging(connection, shape.table, shape.names, by_place=False) as stage:
            for block in reader.blocks():
                try:
                    stage.replace(block)
                except psycopg.DataError as error:
                    raise _differs(location, f"PostgreSQL does not take a value ({first_line(error)})") from error
                sums += stage.sums()
                reached(name, "read back", sums.rows, rows)
    if sums.rows != rows:
        raise _differs(location, f"{sums.rows} rows instead of {rows}")
    if sums.hash != content_hash:
        raise _differs(location, f"the content hash {sums.hash} instead of {content_hash}")


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
