"""The catalogue of backups: the ledger's rows as values, and the few ways in which a row changes."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from pydantic import ValidationError
from sqlalchemy import func, select

from dbplatform.backups.errors import BackupDamaged, BackupInUse, BackupUnreadable, NotRestorable, UnknownBackup
from dbplatform.backups.holding import held
from dbplatform.backups.manifest import DUMP, MANIFEST, FileEntry, Manifest, Scope
from dbplatform.ledger.backups import BackupRecord
from dbplatform.ledger.ledger import Ledger
from dbplatform.storage.place import S3_SCHEME
from dbplatform.storage.store import Store, store_at

EVERYTHING = Scope()


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """One backup as the ledger knows it at one moment."""

    id: str
    database: str
    kind: str
    status: str
    """``running``, ``complete``, ``failed`` or ``pruned``."""
    scope: str
    """``everything``, or what alone is in it."""
    location: str
    """An absolute folder, or ``s3://bucket/key``."""
    started_at: datetime
    taken_at: datetime | None
    finished_at: datetime | None
    bytes: int | None
    sha256: str | None
    """Of the manifest."""
    proven_at: datetime | None
    damage: str | None
    error: str | None
    run_id: str | None = None
    """The Dagster run that made it; none: the command line did."""

    @property
    def whole(self) -> bool:
        """Whether the database can be made again from it; only then does it prove anything."""
        return self.scope == "everything"

    @property
    def in_bucket(self) -> bool:
        return self.location.startswith(S3_SCHEME)

    @property
    def store(self) -> Store:
        """Its files, for one piece of work."""
        return store_at(self.location)

    @property
    def folder(self) -> Path:
        """Where it lies, when that is a folder."""
        return Path(self.location)

    @property
    def dump(self) -> Path:
        """What pg_restore reads of one that lies plain in a folder."""
        return self.folder / DUMP

    @property
    def partial(self) -> Path:
        """Beside its folder, a hidden name: nothing half-made looks like a backup."""
        return self.folder.with_name(f".{self.id}.partial")

    @property
    def lock(self) -> str:
        """The lock of whoever makes, reads (shared) or prunes it."""
        return f"backup {self.id}"

    def as_json(self) -> dict[str, Any]:
        """One of ``backups`` in the contract."""
        return {
            "id": self.id,
            "kind": self.kind,
            "status": self.status,
            "scope": self.scope,
            "proven_at": _text(self.proven_at),
            "bytes": self.bytes,
            "sha256": self.sha256,
            "location": self.location,
            "started_at": _text(self.started_at),
            "taken_at": _text(self.taken_at),
            "finished_at": _text(self.finished_at),
            "damage": self.damage,
            "error": self.error,
            "run_id": self.run_id,
        }


def list_backups(ledger: Ledger, database: str, *, pruned: bool = False, left: bool = False) -> tuple[Backup, ...]:
    """Every attempt, the newest first; those that were pruned only when asked for.

    ``left``: only those of which something may be left to clear up.
    """
    query = select(BackupRecord).where(BackupRecord.database == database)
    if not pruned:
        query = query.where(BackupRecord.status != "pruned")
    if left:
        query = query.where(BackupRecord.status != "complete", BackupRecord.removed_at.is_(None))
    with ledger.session() as session:
        return tuple(map(_backup, session.scalars(query.order_by(BackupRecord.started_at.desc(), BackupRecord.id))))


def find_backup(ledger: Ledger, database: str, id: str | None = None) -> Backup:
    """The backup of that id, or the newest complete one of everything.

    Raises ``UnknownBackup`` or ``NotRestorable``.
    """
    backups = list_backups(ledger, database, pruned=True)
    if id is None:
        for backup in backups:
            if backup.status == "complete" and backup.whole and backup.kind == "logical":
                return backup
        raise UnknownBackup(
            database=database, id="that is complete", hint=f"Make one: dbplatform backup create {database}"
        )
    for backup in backups:
        if backup.id == id:
            if backup.status != "complete":
                raise NotRestorable(
                    id=id, status=backup.status, hint=f"See which are: dbplatform backup list {database}"
                )
            return backup
    raise UnknownBackup(database=database, id=id, hint=f"See which there are: dbplatform backup list {database}")


def status_of(ledger: Ledger, backup: Backup) -> str:
    """Its status now."""
    with ledger.session() as session:
        return session.get_one(BackupRecord, backup.id).status


def load_manifest(backup: Backup) -> Manifest:
    """The manifest of a complete logical backup; raises what ``read_manifest`` raises."""
    data = read_manifest(backup)
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        raise damaged(backup, f"{MANIFEST} cannot be read") from error


def read_manifest(backup: Backup) -> bytes:
    """The manifest of a complete backup of any kind, which must be the one that the ledger knows.

    Raises ``BackupDamaged`` when it is another or gone, ``BackupUnreadable`` when it cannot be read.
    """
    try:
        with backup.store.reading(MANIFEST) as file:
            data = file.read()
    except FileNotFoundError:
        raise damaged(backup, f"{MANIFEST} is missing in {backup.location}") from None
    except OSError as error:
        raise unreadable(backup, MANIFEST, error) from error
    if hashlib.sha256(data).hexdigest() != backup.sha256:
        raise damaged(backup, f"{MANIFEST} has another SHA-256 than the ledger")
    return data


def damaged(backup: Backup, problems: str) -> BackupDamaged:
    """The error for files that are not what was written."""
    return BackupDamaged(
        id=backup.id,
        problems=problems,
        hint=f"Keep its folder for a closer look, and make a new one: dbplatform backup create {backup.database}",
    )


def unreadable(backup: Backup, name: str, error: OSError) -> BackupUnreadable:
    """The error for files of which nothing is known."""
    return BackupUnreadable(
        path=f"{backup.location}/{name}",
        id=backup.id,
        reason=error.strerror or str(error),
        hint="Mend the rights or the disk, then verify again.",
    )


@contextmanager
def reading(ledger: Ledger, backup: Backup) -> Iterator[None]:
    """Keep the backup from being pruned for the block. Raises ``BackupInUse`` while that happens."""
    with held(ledger, backup.lock, shared=True) as mine:
        if not mine:
            raise BackupInUse(id=backup.id, hint=f"Choose another: dbplatform backup list {backup.database}")
        yield


def register(ledger: Ledger, backup: Backup, *, run_id: str | None) -> None:
    """Write the row of an attempt that begins."""
    with ledger.session() as session:
        session.add(
            BackupRecord(
                id=backup.id,
                database=backup.database,
                kind=backup.kind,
                status=backup.status,
                run_id=run_id,
                scope=backup.scope,
                location=backup.location,
                started_at=backup.started_at,
            )
        )


class Described(Protocol):
    """What the catalogue keeps of a manifest, whatever its kind."""

    @property
    def finished_at(self) -> datetime: ...
    @property
    def taken_at(self) -> datetime: ...
    @property
    def bytes(self) -> int: ...
    @property
    def files(self) -> Sequence[FileEntry]: ...


def complete(ledger: Ledger, id: str, manifest: Described, sha256: str) -> None:
    """Its files are all there, under their final name."""
    with ledger.session() as session:
        record = session.get_one(BackupRecord, id)
        record.status, record.error = "complete", None
        record.taken_at, record.finished_at = manifest.taken_at, manifest.finished_at
        record.bytes, record.sha256 = manifest.bytes, sha256


def fail(ledger: Ledger, id: str, error: str) -> None:
    """The attempt has ended without a backup."""
    with ledger.session() as session:
        record = session.get_one(BackupRecord, id)
        record.status, record.error, record.finished_at = "failed", error, func.now()


def mark_proven(ledger: Ledger, id: str) -> None:
    """A restore gave back what was dumped."""
    with ledger.session() as session:
        record = session.get_one(BackupRecord, id)
        record.proven_at, record.damage = func.now(), None


def mark_damaged(ledger: Ledger, id: str, problems: Sequence[str]) -> None:
    """It is not proven any more."""
    with ledger.session() as session:
        record = session.get_one(BackupRecord, id)
        record.proven_at, record.damage = None, "; ".join(problems)


def mark_removed(ledger: Ledger, id: str) -> None:
    """Nothing is left of a failed or pruned one."""
    with ledger.session() as session:
        session.get_one(BackupRecord, id).removed_at = func.now()


def mark_pruned(ledger: Ledger, id: str) -> None:
    """It is not listed any more; its files go next."""
    with ledger.session() as session:
        session.get_one(BackupRecord, id).status = "pruned"


def new_attempt(database: str, root: str, *, scope: Scope = EVERYTHING, now: datetime | None = None) -> Backup:
    """A backup that is about to begin below ``root``, with an id of its own: the time and four random bytes."""
    started_at = now or datetime.now(UTC)
    id = f"{started_at.astimezone(UTC):%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:8]}"
    return Backup(
        id=id,
        database=database,
        kind="logical",
        status="running",
        scope=str(scope),
        location=f"{root.rstrip('/')}/{database}/{id}",
        started_at=started_at,
        taken_at=None,
        finished_at=None,
        bytes=None,
        sha256=None,
        proven_at=None,
        damage=None,
        error=None,
    )


def _backup(record: BackupRecord) -> Backup:
    return Backup(
        id=record.id,
        database=record.database,
        kind=record.kind,
        status=record.status,
        scope=record.scope,
        location=record.location,
        started_at=record.started_at,
        taken_at=record.taken_at,
        finished_at=record.finished_at,
        bytes=record.bytes,
        sha256=record.sha256,
        proven_at=record.proven_at,
        damage=record.damage,
        error=record.error,
        run_id=record.run_id,
    )


def _text(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
