"""What killed attempts left behind: recognised by a free lock, cleared by the next attempt."""

from __future__ import annotations

from dataclasses import replace

from dbplatform.backups import catalogue
from dbplatform.backups.catalogue import Backup, list_backups, load_manifest
from dbplatform.backups.errors import BackupDamaged
from dbplatform.backups.files import remains, remove_backup, require_files
from dbplatform.backups.holding import held
from dbplatform.backups.manifest import MANIFEST, sum_file
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.connection import AutocommitConnection

# pg_dump outlives the process that started it; its sessions bear the name that ``application`` gives.
_END_SESSIONS = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = %s"


def application(id: str) -> str:
    """What the sessions of a backup's pg_dump are called, after ``dbplatform``."""
    return f"backup {id}"


def clear_leftovers(connection: AutocommitConnection, ledger: Ledger, database: str) -> None:
    """Bring the ledger and the disk in order after attempts on this database that were killed.

    One that had renamed its finished folder is complete, and becomes so in the ledger when its files are right. Of any
    other, the sessions of its pg_dump are ended, its files removed, and its row says that it failed. Attempts that are
    still at work are left alone.
    """
    for backup in list_backups(ledger, database, pruned=True):
        if backup.status == "complete" or (backup.status != "running" and not remains(backup)):
            continue
        with held(ledger, backup.lock) as mine:
            # Read again: before the lock was ours its holder may have come to an end.
            status = catalogue.status_of(ledger, backup) if mine else None
            if status == "running":
                _clear_killed(connection, ledger, backup)
            elif status in ("failed", "pruned"):
                remove_backup(backup)


def _clear_killed(connection: AutocommitConnection, ledger: Ledger, backup: Backup) -> None:
    connection.execute(_END_SESSIONS, (f"dbplatform {application(backup.id)}",))
    if _adopted(ledger, backup):
        return
    remove_backup(backup)
    catalogue.fail(ledger, backup.id, "its process was ended before it had finished")


def _adopted(ledger: Ledger, backup: Backup) -> bool:
    """Whether the attempt had come as far as the final name, with every file right; then the row is completed."""
    path = backup.location / MANIFEST
    if not path.is_file():
        return False
    found = replace(backup, sha256=sum_file(path))
    try:
        manifest = load_manifest(found)
        require_files(found, manifest)
    except BackupDamaged:
        return False
    catalogue.complete(ledger, backup.id, manifest, sum_file(path))
    return True
