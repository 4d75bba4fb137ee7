"""What a drill has proven, beside the backup: a ledger that is made again from the destination finds it there.

The ledger's word counts while there is one. Who only reads at the destination can prove a backup all the same, so that
what cannot be kept here fails no drill.
"""

from __future__ import annotations

import tempfile
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from dbplatform.backups.catalogue import Backup
from dbplatform.backups.manifest import PROOF
from dbplatform.storage.place import StorageFailed
from dbplatform.storage.store import Store


class Proof(BaseModel):
    """The whole of ``proof.json``."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    backup_id: str
    manifest_sha256: str
    """Of the manifest that was proven; with another one it proves nothing."""
    proven_at: datetime


def keep_proof(backup: Backup) -> None:
    """Write the proof of a proven backup beside its manifest, where that can be done."""
    if backup.proven_at is None or backup.sha256 is None:
        return
    proof = Proof(backup_id=backup.id, manifest_sha256=backup.sha256, proven_at=backup.proven_at)
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        file.write(proof.model_dump_json(indent=2) + "\n")
        file.flush()
        with suppress(StorageFailed, OSError):
            backup.store.put(PROOF, Path(file.name))


def drop_proof(backup: Backup) -> None:
    """Remove the proof of a backup that was found damaged, where that can be done."""
    with suppress(StorageFailed, OSError):
        backup.store.remove(PROOF)


def kept_proof(store: Store, id: str, manifest_sha256: str) -> datetime | None:
    """When the backup with this manifest was proven; None where nothing says so."""
    try:
        with store.reading(PROOF) as file:
            proof = Proof.model_validate_json(file.read())
    except (FileNotFoundError, ValidationError):
        return None
    return proof.proven_at if (proof.backup_id, proof.manifest_sha256) == (id, manifest_sha256) else None
