"""Rows that leave an archive on purpose: a file cannot be edited, so that a new one takes its place.

    begun ──> complete ──> read back ──> listed in place of the old one ──> counted ──> the old one removed
    state     place                      ledger, one transaction            state       place, then ledger

Killed before it is listed, the next run removes what was written and begins anew; killed later, it does the rest.
"""

from __future__ import annotations

import uuid
from dataclasses import replace
from pathlib import Path

from psycopg import sql

from dbplatform.archiving import catalogue, records
from dbplatform.archiving.catalogue import ArchiveEntry
from dbplatform.archiving.content import RowSums, be_exact
from dbplatform.archiving.erasures import Erasure
from dbplatform.archiving.errors import ReadBackDiffers
from dbplatform.archiving.export import Stored, complete, lines_of
from dbplatform.archiving.kept import home_of, reading
from dbplatform.archiving.parquet import ArchiveWriter, Metadata, written
from dbplatform.archiving.points import reached
from dbplatform.archiving.staging import Staging, staging_of
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.connection import AutocommitConnection
from dbplatform.storage.place import Place


def rewrite(
    connection: AutocommitConnection, ledger: Ledger, entry: ArchiveEntry, erasure: Erasure, *, work: Path
) -> int:
    """Put an archive without the erased rows in the place of ``entry``; how many it had of them, 0: nothing was done.

    The erasure's hashes are ``loaded``. Rows that were exported and never left the table are left out, too: they are
    there. Where none is left, there is no new archive. The old file is removed once the ledger lists the new one.
    Raises ``ArchiveDamaged``, ``ArchiveNotWritten``, ``ReadBackDiffers`` and ``StorageFailed``.
    """
    place, _ = home_of(entry.location, connection, work=work)
    _clean_up(connection, ledger, entry, place)
    with reading(entry.location, entry.sha256, connection) as reader:
        metadata = reader.metadata
        with staging_of(connection, metadata.columns) as stage:
            for block in reader.blocks():
                stage.add(block)
            stage.analyze()
            erased = _leave_out(connection, stage, entry, erasure)
            if not erased:
                return 0
            sums = stage.sums()
            new, id_ = None, uuid.uuid4()
            if sums.rows:
                records.begin(connection, id_, entry.name, entry.table, entry.parent_id)
                said = replace(metadata, archive_id=str(id_), rows=sums.rows, content_hash=sums.hash)
                new = _write(connection, stage, said, place)
    reached(metadata.task, "complete", sums.rows, sums.rows)
    if new is not None:
        _require_equal(connection, new, sums)
    catalogue.replace(ledger, entry, new, sums, id_, erasure.id)
    reached(metadata.task, "rewritten", sums.rows, sums.rows)
    remove_files(connection, ledger, entry.database, work=work)
    return erased


def remove_files(connection: AutocommitConnection, ledger: Ledger, database: str, *, work: Path) -> None:
    """Remove the files of archives that the ledger lists as removed, and count what has taken their place."""
    for archive_id, location, replaced_by, rows in catalogue.to_remove(ledger, database):
        records.settle(connection, archive_id, replaced_by, rows)
        place, name = home_of(location, connection, work=work)
        place.discard(name)
        catalogue.mark_removed(ledger, archive_id)


def _clean_up(connection: AutocommitConnection, ledger: Ledger, entry: ArchiveEntry, place: Place) -> None:
    """Remove what a killed rewrite of it has begun."""
    for archive_id, child in records.untouched(connection, entry.name):
        if child == (entry.table if entry.parent_id is not None else None) and not catalogue.known(ledger, archive_id):
            place.discard(f"{archive_id}.parquet")
            records.forget(connection, archive_id)


def _leave_out(connection: AutocommitConnection, stage: Staging, entry: ArchiveEntry, erasure: Erasure) -> int:
    """Delete the erased rows from the staged ones, and then those that never left the table; how many were erased."""
    with connection.transaction():
        be_exact(connection)
        erased = connection.execute(
            sql.SQL("delete from {} as x where {}").format(stage.table, erasure.names("x"))
        ).rowcount
        if erased:
            left = records.not_kept(connection, entry.id, stage.ordinal)
            connection.execute(sql.SQL("delete from {} as x where not ({})").format(stage.table, left))
    return erased


def _write(connection: AutocommitConnection, stage: Staging, metadata: Metadata, place: Place) -> Stored:
    name = f"{metadata.archive_id}.parquet"
    statement = sql.SQL("copy (select {} from {} as x order by {}) to stdout (format csv, force_quote *)").format(
        sql.SQL(", ").join(sql.SQL("x.{}").format(sql.Identifier(column)) for column in stage.names),
        stage.table,
        stage.ordinal,
    )
    with written(place.partial(name)) as file, connection.transaction():
        be_exact(connection)
        writer = ArchiveWriter(file, metadata)
        for lines in lines_of(connection, statement):
            writer.write(lines)
        writer.close()
    return complete(connection, place, name)


def _require_equal(connection: AutocommitConnection, new: Stored, sums: RowSums) -> None:
    """Raise ``ReadBackDiffers`` unless the new file gives back the rows that were to stay."""
    found = RowSums()
    with (
        reading(new.location, new.sha256, connection) as reader,
        staging_of(connection, reader.metadata.columns) as stage,
    ):
        for block in reader.blocks():
            stage.replace(block)
            found += stage.sums()
    if found != sums:
        raise ReadBackDiffers(
            path=new.location,
            reason=f"{found.rows} rows with the content hash {found.hash} instead of {sums.rows} with {sums.hash}",
            hint="Report it; the archive that it was to replace is still there.",
        )
