"""The ledger's list of archives, and whether their files are still what was written."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, cast

from sqlalchemy import delete, func, inspect, select, update

from dbplatform.archiving.content import RowSums
from dbplatform.archiving.errors import ArchiveDamaged, ArchiveOfAnotherDatabase, UnknownArchive
from dbplatform.archiving.export import Exported, Stored
from dbplatform.archiving.kept import reading
from dbplatform.archiving.plan import ArchivePlan
from dbplatform.ledger.archives import Archive, RemovedArchive
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.connection import AnyConnection

Status = Literal["exported", "verified", "deleted", "restored"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveEntry:
    """One archive as the ledger lists it."""

    id: uuid.UUID
    database: str
    name: str
    table: str
    column: str | None
    cutoff: datetime | None
    where: str | None
    rows: int
    bytes: int
    sha256: str
    content_hash: str
    location: str
    backup_id: str
    status: Status
    deleted_rows: int
    kept: dict[str, int]
    created_at: datetime
    restored_at: datetime | None
    parent_id: uuid.UUID | None
    """The archive whose rows these refer to, and have left along with."""
    parent_columns: tuple[tuple[str, str], ...]
    """Pairs: the column here, the column there."""

    def as_json(self) -> dict[str, Any]:
        """One entry of ``archives`` of the contract."""
        return {
            "id": str(self.id),
            "name": self.name,
            "table": self.table,
            "rows": self.rows,
            "bytes": self.bytes,
            "sha256": self.sha256,
            "content_hash": self.content_hash,
            "location": self.location,
            "status": self.status,
            "deleted_rows": self.deleted_rows,
            "kept": self.kept,
            "cutoff": self.cutoff.isoformat() if self.cutoff else None,
            "where": self.where,
            "backup_id": self.backup_id,
            "parent_id": str(self.parent_id) if self.parent_id else None,
            "created_at": self.created_at.isoformat(),
            "restored_at": self.restored_at.isoformat() if self.restored_at else None,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveVerification:
    """What reading one archive's file has shown; no ``problem``: every byte is as written and every row is there."""

    id: uuid.UUID
    location: str
    rows: int
    problem: str | None

    @property
    def passed(self) -> bool:
        return self.problem is None

    def as_json(self) -> dict[str, Any]:
        """One entry of ``archives`` of ``archive verify --json``."""
        return {
            "id": str(self.id),
            "location": self.location,
            "rows": self.rows,
            "status": "passed" if self.passed else "failed",
            "problem": self.problem,
        }


def list_archives(ledger: Ledger, database: str) -> list[ArchiveEntry]:
    """The archives of a database, the newest first. Only files that are complete are listed."""
    with ledger.session() as session:
        stored = session.scalars(
            select(Archive).where(Archive.database == database).order_by(Archive.created_at.desc(), Archive.id)
        )
        return [_entry(row) for row in stored]


def get_archive(ledger: Ledger, database: str, archive_id: str | uuid.UUID) -> ArchiveEntry:
    """One archive. Raises ``UnknownArchive`` and ``ArchiveOfAnotherDatabase``."""
    hint = f"See which there are: dbplatform archive list {database}."
    try:
        wanted = uuid.UUID(str(archive_id))
    except ValueError:
        raise UnknownArchive(archive=archive_id, database=database, hint=hint) from None
    with ledger.session() as session:
        row = session.get(Archive, wanted)
        if row is None:
            raise UnknownArchive(archive=archive_id, database=database, hint=hint)
        if row.database != database:
            raise ArchiveOfAnotherDatabase(archive=archive_id, database=row.database, asked=database, hint=hint)
        return _entry(row)


def verify_archive(
    ledger: Ledger, database: str, archive_id: str | uuid.UUID, near: AnyConnection
) -> ArchiveVerification:
    """Read the whole archive: its SHA-256, every page of it, the number of its rows, whose they are. Only reads."""
    entry = get_archive(ledger, database, archive_id)
    try:
        require_whole(entry, near)
        problem = None
    except ArchiveDamaged as error:
        problem = error.message
    return ArchiveVerification(id=entry.id, location=entry.location, rows=entry.rows, problem=problem)


def rows_away(ledger: Ledger, database: str, left: Iterable[tuple[uuid.UUID, str, int]]) -> dict[str, int]:
    """How many rows of each table lie in archives instead of in the table; tables with none are left out.

    ``left`` is ``records.deleted_rows``: the database itself says what has left it, so that an archive that is half-way
    counts too, and one of an earlier database of the same name does not. The ledger says which are back.
    """
    back = {entry.id for entry in list_archives(ledger, database) if entry.status == "restored"}
    away: dict[str, int] = {}
    for archive_id, table, deleted in left:
        if archive_id not in back:
            away[table] = away.get(table, 0) + deleted
    return away


def record(
    ledger: Ledger, database: str, plan: ArchivePlan, exported: Sequence[Exported], *, backup_id: str, now: datetime
) -> ArchiveEntry:
    """List complete files as ``exported``, in one transaction; the first, to whose rows those of the others lead."""
    with ledger.session() as session:
        rows = [
            Archive(
                id=one.archive_id,
                parent_id=one.parent_id,
                parent_columns=[list(pair) for pair in one.parent_columns],
                database=database,
                name=plan.policy.name,
                table_name=str(one.table),
                column_name=plan.policy.column if one.parent_id is None else None,
                cutoff=plan.cutoff,
                predicate=plan.policy.where,
                rows=one.sums.rows,
                bytes=one.bytes,
                sha256=one.sha256,
                content_hash=one.sums.hash,
                location=one.location,
                backup_id=backup_id,
                status="exported",
                deleted_rows=0,
                kept={},
                created_at=now,
            )
            for one in exported
        ]
        session.add_all(rows)
        session.flush()
        return _entry(rows[0])


def unfinished(ledger: Ledger, database: str, name: str) -> list[ArchiveEntry]:
    """The archives of that name whose rows have not all been dealt with, the oldest first, without those along."""
    with ledger.session() as session:
        stored = session.scalars(
            select(Archive)
            .where(
                Archive.database == database,
                Archive.name == name,
                Archive.status.in_(("exported", "verified")),
                Archive.parent_id.is_(None),
            )
            .order_by(Archive.created_at, Archive.id)
        )
        return [_entry(row) for row in stored]


def along(ledger: Ledger, entry: ArchiveEntry) -> list[ArchiveEntry]:
    """The archives of rows that left along with those of ``entry``, parents before their children."""
    found = [entry]
    with ledger.session() as session:
        for parent in found:  # grows while it is walked
            stored = session.scalars(select(Archive).where(Archive.parent_id == parent.id).order_by(Archive.table_name))
            found += [_entry(row) for row in stored]
    return found[1:]


def known(ledger: Ledger, archive_id: uuid.UUID) -> bool:
    """Whether the ledger lists the archive."""
    with ledger.session() as session:
        return session.get(Archive, archive_id) is not None


def forget(ledger: Ledger, archive_ids: Sequence[uuid.UUID]) -> None:
    """Take archives by which no row has left off the list."""
    with ledger.session() as session:
        session.execute(delete(Archive).where(Archive.id.in_(archive_ids)))


def mark_verified(ledger: Ledger, archive_id: uuid.UUID) -> None:
    """The file was read back and is equal to what the snapshot held."""
    with ledger.session() as session:
        row = session.get_one(Archive, archive_id)
        row.status, row.verified_at = "verified", func.now()


def mark_deleted(
    ledger: Ledger, outcomes: Mapping[uuid.UUID, tuple[int, dict[str, int]]], *, backup_id: str
) -> list[ArchiveEntry]:
    """All rows of these archives are dealt with: so many left behind the backup named, the others stayed; why."""
    done = []
    with ledger.session() as session:
        for archive_id, (deleted, kept) in outcomes.items():
            row = session.get_one(Archive, archive_id)
            row.status, row.deleted_at, row.deleted_rows, row.kept = "deleted", func.now(), deleted, dict(kept)
            row.backup_id = backup_id
            done.append(_entry(row))
    return done


def replace(
    ledger: Ledger, old: ArchiveEntry, new: Stored | None, sums: RowSums, id_: uuid.UUID, erasure: uuid.UUID
) -> None:
    """List the archive ``id_`` in place of ``old``, or nothing, and ``old`` among the removed, in one transaction."""
    with ledger.session() as session:
        row = session.get_one(Archive, old.id)
        session.add(removed(old, erasure=erasure, replaced_by=id_ if new is not None else None))
        if new is not None:
            values = {column.key: getattr(row, column.key) for column in inspect(Archive).column_attrs}
            values |= {
                "id": id_,
                "rows": sums.rows,
                "deleted_rows": sums.rows,
                "kept": {},
                "bytes": new.bytes,
                "sha256": new.sha256,
                "content_hash": sums.hash,
                "location": new.location,
                "verified_at": func.now(),
            }
            session.add(Archive(**values))
            session.execute(update(Archive).where(Archive.parent_id == old.id).values(parent_id=id_))
        session.delete(row)


def removed(
    entry: ArchiveEntry, *, erasure: uuid.UUID, replaced_by: uuid.UUID | None = None, newest: datetime | None = None
) -> RemovedArchive:
    """What the ledger keeps of an archive that goes."""
    return RemovedArchive(
        id=entry.id,
        database=entry.database,
        name=entry.name,
        table_name=entry.table,
        parent_id=entry.parent_id,
        rows=entry.rows,
        bytes=entry.bytes,
        sha256=entry.sha256,
        content_hash=entry.content_hash,
        location=entry.location,
        created_at=entry.created_at,
        erasure_id=erasure,
        replaced_by=replaced_by,
        newest=newest,
    )


def to_remove(ledger: Ledger, database: str) -> list[tuple[uuid.UUID, str, uuid.UUID | None, int]]:
    """Removed archives whose files may still be there: id, location, and by which archive of how many rows replaced."""
    with ledger.session() as session:
        stored = session.execute(
            select(RemovedArchive.id, RemovedArchive.location, RemovedArchive.replaced_by, Archive.rows)
            .outerjoin(Archive, Archive.id == RemovedArchive.replaced_by)
            .where(RemovedArchive.database == database, RemovedArchive.removed_at.is_(None))
        )
        return [(id_, location, replaced_by, rows or 0) for id_, location, replaced_by, rows in stored]


def mark_removed(ledger: Ledger, archive_id: uuid.UUID) -> None:
    """The file is gone."""
    with ledger.session() as session:
        session.get_one(RemovedArchive, archive_id).removed_at = func.now()


def mark_restored(ledger: Ledger, archive_ids: Sequence[uuid.UUID]) -> None:
    """The rows are back in the tables that they came from."""
    with ledger.session() as session:
        for archive_id in archive_ids:
            row = session.get_one(Archive, archive_id)
            row.status, row.restored_at = "restored", func.now()


def require_whole(entry: ArchiveEntry, near: AnyConnection) -> None:
    """Read the whole archive; raises ``ArchiveDamaged`` unless it is what was written."""
    with reading(entry.location, entry.sha256, near) as reader:
        rows = sum(block.rows for block in reader.blocks())
        said = reader.metadata
    if (said.archive_id, said.rows, said.content_hash) != (str(entry.id), entry.rows, entry.content_hash):
        raise ArchiveDamaged(path=entry.location, reason="it is the file of another archive")
    if rows != entry.rows:
        raise ArchiveDamaged(path=entry.location, reason=f"it holds {rows} rows instead of {entry.rows}")


def _entry(row: Archive) -> ArchiveEntry:
    return ArchiveEntry(
        id=row.id,
        database=row.database,
        name=row.name,
        table=row.table_name,
        column=row.column_name,
        cutoff=row.cutoff,
        where=row.predicate,
        rows=row.rows,
        bytes=row.bytes,
        sha256=row.sha256,
        content_hash=row.content_hash,
        location=row.location,
        backup_id=row.backup_id,
        status=cast("Status", row.status),
        deleted_rows=row.deleted_rows,
        kept=row.kept,
        created_at=row.created_at,
        restored_at=row.restored_at,
        parent_id=row.parent_id,
        parent_columns=tuple((own, its) for own, its in row.parent_columns),
    )
