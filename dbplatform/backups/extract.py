"""Takes the roles out of a backup, for a person who makes them on another server."""

from __future__ import annotations

from pathlib import Path

from dbplatform.backups.catalogue import Backup, damaged, load_manifest, reading
from dbplatform.backups.errors import NoRoles, OutputExists
from dbplatform.backups.files import fetch_one, require_key
from dbplatform.backups.manifest import GLOBALS, SEALED
from dbplatform.ledger.ledger import Ledger


def write_globals(backup: Backup, ledger: Ledger, file: Path) -> None:
    """Write ``globals.sql`` of a backup into the new ``file``, which only this user may read.

    Compared with the manifest; nothing is left of it when it is not what was written. Raises ``NoRoles``,
    ``OutputExists``, ``BackupDamaged``, and what the key raises.
    """
    with reading(ledger, backup):
        manifest = load_manifest(backup)
        entry = next((one for one in manifest.files if one.name.removesuffix(SEALED) == GLOBALS), None)
        if entry is None:
            why = next((one for one in manifest.warnings if GLOBALS in one), "it is of a part of the database")
            raise NoRoles(
                id=backup.id, reason=why, hint="Take a backup of everything by a user who may read the roles."
            )
        keys = require_key(backup, manifest)
        if file.exists():
            raise OutputExists(file=file, hint="Name a new one.")
        file.touch(mode=0o600, exist_ok=False)
        try:
            problem = fetch_one(backup, manifest, backup.store, entry, file, keys)
            if problem is not None:
                raise damaged(backup, f"{entry.name} {problem}")
        except BaseException:
            file.unlink()
            raise
