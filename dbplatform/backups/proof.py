"""What is proven of a database: for whoever is about to delete rows or backups, read from the ledger and the disk."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from dbplatform.backups.catalogue import Backup, list_backups, load_manifest
from dbplatform.backups.errors import BackupDamaged
from dbplatform.backups.files import require_files
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.words import Interval

#: The proof may be of another machine, whose clock is nearly ours.
_CLOCKS_DIFFER_BY = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvenSnapshot:
    """The moment that a restore has given back, and where it was: which transactions of which database are safe."""

    backup_id: str
    snapshot: str
    """``pg_current_snapshot()``; only comparable in the same database of the same server."""
    system_identifier: str
    database_oid: int
    wal_lsn: str
    timeline_id: int | None
    """None: not known."""
    taken_at: datetime
    proven_at: datetime
    tables: tuple[str, ...]
    """Whose rows were compared."""


def proven_snapshot(ledger: Ledger, database: str) -> ProvenSnapshot | None:
    """The newest proven backup's, when all of its files are still what was written; none otherwise.

    Reads every file of that backup, as it is stored, and changes nothing. Raises ``BackupUnreadable`` or
    ``StorageFailed`` where it cannot look.
    """
    backup = newest_proven(ledger, database)
    if backup is None or backup.proven_at is None:
        return None
    try:
        manifest = load_manifest(backup)
        require_files(backup, manifest)
    except BackupDamaged:
        return None
    return ProvenSnapshot(
        backup_id=backup.id,
        snapshot=manifest.source.snapshot,
        system_identifier=manifest.source.system_identifier,
        database_oid=manifest.source.database_oid,
        wal_lsn=manifest.source.wal_lsn,
        timeline_id=manifest.source.timeline_id,
        taken_at=manifest.source.taken_at,
        proven_at=backup.proven_at,
        tables=tuple(table.table for table in manifest.tables),
    )


def newest_proven(ledger: Ledger, database: str) -> Backup | None:
    """The backup of everything with the newest data among those that the ledger calls proven; reads no file."""
    proven = [
        b
        for b in list_backups(ledger, database)
        if b.status == "complete" and b.whole and b.kind == "logical" and b.proven_at and b.taken_at
    ]
    return max(proven, key=lambda b: (b.taken_at, b.id), default=None)


def is_fresh(proven_at: datetime, max_age: Interval, *, now: datetime) -> bool:
    """Whether a proof is not older than ``max_age``; one that is dated in the future is no proof of anything now.

    Where a clock was wrong for a day, a proof of that day would otherwise count for years.
    """
    age: timedelta = now - proven_at
    return -_CLOCKS_DIFFER_BY <= age <= max_age.timedelta
