"""The manifest of a base backup: of which server, from where to where in its WAL, and which files hold it."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from dbplatform.backups.catalogue import Backup, damaged, read_manifest
from dbplatform.backups.manifest import MANIFEST, SEALED, FileEntry

#: The data directory as ``packing`` packs it, and the list of its files that pg_basebackup made.
PACKED = "base.tar.zst"
BACKUP_MANIFEST = "backup_manifest"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ServerSource(_Part):
    """The server, and the stretch of its WAL that the backup needs to be whole."""

    system_identifier: str
    server_version: str
    server_major: int
    segment_bytes: int
    timeline_id: int
    start_lsn: str
    stop_lsn: str
    """From here on a recovery may stop."""
    taken_at: datetime
    """A moment just behind ``stop_lsn``, by the server's clock: what was committed before may be restored."""
    superuser: str
    """The role that initdb made: it can always enter a recovered server."""
    databases: tuple[str, ...]
    server_bytes: int


class PhysicalManifest(_Part):
    """The whole of ``manifest.json``."""

    format: Literal[1] = 1
    id: str
    database: str
    """``server-`` and the system identifier: whose backup it is."""
    kind: Literal["physical"] = "physical"
    declared: dict[str, str]
    """The declared databases that were known to lie on this server, and their names there."""
    started_at: datetime
    finished_at: datetime
    source: ServerSource
    parent: str | None
    """The backup on which this incremental one rests; none for a full one."""
    program: str
    """The version of pg_basebackup."""
    program_major: int
    warnings: tuple[str, ...]
    data_bytes: int
    """The size of the data directory, unpacked."""
    encrypted_to: tuple[str, ...] = ()
    """age recipients, to whom the packed data is encrypted."""
    files: tuple[FileEntry, ...]

    @property
    def packed(self) -> str:
        """The name of the file with the data."""
        return PACKED + SEALED if self.encrypted_to else PACKED

    @property
    def taken_at(self) -> datetime:
        """What was committed before can be restored from it."""
        return self.source.taken_at

    @property
    def bytes(self) -> int:
        """The size of all files but the manifest."""
        return sum(file.bytes for file in self.files)


def load_physical(backup: Backup) -> PhysicalManifest:
    """The manifest of a complete base backup; raises ``BackupDamaged`` and ``BackupUnreadable``."""
    data = read_manifest(backup)
    try:
        return PhysicalManifest.model_validate_json(data)
    except ValueError as error:
        raise damaged(backup, f"{MANIFEST} cannot be read") from error
