"""Makes the ledger's rows again from what lies at the destination: a lost ledger loses no backup.

Only backups with a manifest are found, which is written when everything else is there. What the ledger knows already is
left as it is; nothing at the destination is changed.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from sqlalchemy.dialects.postgresql import insert

from dbplatform.backups.catalogue import list_backups
from dbplatform.backups.destination import Destination
from dbplatform.backups.kept import kept_proof
from dbplatform.backups.manifest import MANIFEST, FileEntry, Scope
from dbplatform.ledger.backups import BackupRecord
from dbplatform.ledger.ledger import Ledger
from dbplatform.storage.store import Store


class _Source(BaseModel):
    model_config = ConfigDict(extra="ignore")

    taken_at: datetime


class _Head(BaseModel):
    """What every manifest tells, whatever else its kind holds."""

    model_config = ConfigDict(extra="ignore")

    id: str
    database: str
    kind: Literal["logical", "physical"]
    scope: Scope = Scope()
    started_at: datetime
    finished_at: datetime
    source: _Source
    files: tuple[FileEntry, ...]


def rebuild(ledger: Ledger, destination: Destination, database: str) -> tuple[str, ...]:
    """Add every backup of ``database`` at ``destination`` that the ledger does not know; their ids.

    They are complete as their manifests say; whether their files are so is for a verification to find out. One is
    proven where its drill has left a proof of this very manifest. Reads the manifests alone. Raises ``StorageFailed``.
    """
    known = {backup.id for backup in list_backups(ledger, database, pruned=True)}
    found = []
    for name in destination.store(database).files():
        id, _, rest = name.name.partition("/")
        if rest != MANIFEST or id.startswith(".") or id in known:
            continue
        row = _row(destination.store(database, id), database, id, destination.location(database, id))
        if row is None:
            continue
        with ledger.session() as session:
            session.execute(insert(BackupRecord).values(**row).on_conflict_do_nothing())
        found.append(id)
    return tuple(found)


def _row(store: Store, database: str, id: str, location: str) -> dict[str, Any] | None:
    """The row of a backup; None where its manifest is none of ours, or of something else."""
    with store.reading(MANIFEST) as file:
        data = file.read()
    try:
        head = _Head.model_validate_json(data)
    except ValidationError:
        return None
    if (head.id, head.database) != (id, database):
        return None
    sha256 = hashlib.sha256(data).hexdigest()
    return {
        "id": id,
        "database": database,
        "kind": head.kind,
        "status": "complete",
        "scope": str(head.scope),
        "location": location,
        "started_at": head.started_at,
        "taken_at": head.source.taken_at,
        "finished_at": head.finished_at,
        "bytes": sum(entry.bytes for entry in head.files),
        "sha256": sha256,
        "proven_at": kept_proof(store, id, sha256),
    }
