"""What killed attempts left behind: recognised by a free lock, cleared by the next attempt."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace

from pydantic import ValidationError

from dbplatform.backups import catalogue
from dbplatform.backups.catalogue import Backup, Described, list_backups, load_manifest
from dbplatform.backups.destination import Destination
from dbplatform.backups.errors import BackupDamaged
from dbplatform.backups.files import remove_backup, require_files
from dbplatform.backups.holding import held
from dbplatform.backups.manifest import MANIFEST, Manifest
from dbplatform.backups.publishing import publish
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.connection import AutocommitConnection

# pg_dump and pg_basebackup outlive the process that started them; their sessions bear the name of ``application``.
_END_SESSIONS = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = %s"


def application(id: str) -> str:
    """What the sessions of a backup's programs are called, after ``dbplatform``."""
    return f"backup {id}"


def end_sessions(connection: AutocommitConnection, backup: Backup) -> None:
    """End what an attempt that was killed still has at work on the server."""
    connection.execute(_END_SESSIONS, (f"dbplatform {application(backup.id)}",))


def clear_leftovers(connection: AutocommitConnection, ledger: Ledger, database: str, destination: Destination) -> None:
    """Bring the ledger and the disk in order after attempts on this database that were killed, or could not be stored.

    One whose files were all finished is published, going on where it stopped, and becomes complete in the ledger when
    its files are right. Of any other, the sessions of its pg_dump are ended, its files removed, and its row says that
    it failed. Attempts that are still at work are left alone. Raises ``StorageFailed``: then the next one tries again.
    """
    for backup in list_backups(ledger, database, pruned=True, left=True):
        if backup.kind != "logical":
            continue
        with held(ledger, backup.lock) as mine:
            # Read again: before the lock was ours its holder may have come to an end.
            status = catalogue.status_of(ledger, backup) if mine else None
            if status == "running":
                end_sessions(connection, backup)
            if status in ("running", "failed") and _finished(ledger, backup, destination):
                continue
            if status in ("running", "failed", "pruned"):
                remove_attempt(backup, destination)
                if status == "running":
                    catalogue.fail(ledger, backup.id, "its process was ended before it had finished")
                catalogue.mark_removed(ledger, backup.id)
    _sweep(ledger, database, destination)


def find_leftovers(ledger: Ledger, database: str) -> tuple[Backup, ...]:
    """The attempts that ``clear_leftovers`` would bring in order; only reads, and what is at work is none."""
    found = []
    for backup in list_backups(ledger, database, pruned=True, left=True):
        if backup.kind == "logical":
            with held(ledger, backup.lock) as mine:
                if mine:
                    found.append(backup)
    return tuple(found)


def remove_attempt(backup: Backup, destination: Destination) -> None:
    """Delete whatever there is of a backup, at its destination and where it was made."""
    remove_backup(backup)
    shutil.rmtree(destination.waiting(backup), ignore_errors=True)


def _finished(ledger: Ledger, backup: Backup, destination: Destination) -> bool:
    """Whether the attempt had come as far as its manifest, with every file right; then it is published and complete."""
    if backup.location != destination.location(backup.database, backup.id):
        return False
    waiting = destination.waiting(backup)
    for made in [waiting] if backup.in_bucket else [waiting, backup.partial]:
        try:
            manifest = Manifest.model_validate_json((made / MANIFEST).read_bytes())
        except (OSError, ValidationError):
            continue
        publish(made, backup, destination, manifest.files)
    return adopted(ledger, backup, load_manifest)


def adopted(ledger: Ledger, backup: Backup, load: Callable[[Backup], Described]) -> bool:
    """Whether the backup lies at its destination, with every file right; then its row is completed.

    ``load`` reads its manifest, which says the SHA-256 of every file.
    """
    try:
        with backup.store.reading(MANIFEST) as file:
            sha256 = hashlib.sha256(file.read()).hexdigest()
    except FileNotFoundError:
        return False
    found = replace(backup, sha256=sha256)
    try:
        manifest = load(found)
        require_files(found, manifest)
    except BackupDamaged:
        return False
    catalogue.complete(ledger, backup.id, manifest, sha256)
    return True


def _sweep(ledger: Ledger, database: str, destination: Destination) -> None:
    """Working folders that no attempt of the ledger will go on with: it was complete, or its row is lost."""
    left = {backup.id for backup in list_backups(ledger, database, pruned=True, left=True)}
    for folder in (destination.work / database).glob("*"):
        if folder.name not in left:
            with held(ledger, f"backup {folder.name}") as mine:
                if mine:
                    shutil.rmtree(folder, ignore_errors=True)
