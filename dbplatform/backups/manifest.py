"""The manifest: what was in the database at the snapshot, and which files hold it.

``manifest.json`` is written last, beside the folder ``dump`` that pg_dump made and the roles in ``globals.sql``. Its
own SHA-256 lies in the ledger. It is never encrypted: a backup can be found and its files compared without a key, and
so it tells the names and row counts of the tables to whoever may read it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict

MANIFEST = "manifest.json"
DUMP = "dump"
GLOBALS = "globals.sql"
#: Behind the name of a file that is encrypted.
SEALED = ".age"
PROOF = "proof.json"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TableContent(_Part):
    """What one table held: its rows, and the content hash of ``postgres.catalog``."""

    table: str
    rows: int
    hash: str


def _below(name: str) -> str:
    if name.startswith("/") or ".." in name.split("/"):
        raise ValueError(f"{name!r} is not below the manifest")
    return name


class FileEntry(_Part):
    """One file as it is stored, by its path relative to the manifest."""

    name: Annotated[str, AfterValidator(_below)]
    bytes: int
    sha256: str


class Scope(_Part):
    """How much of the database is in a backup."""

    what: Literal["everything", "schema", "data", "tables"] = "everything"
    tables: tuple[str, ...] = ()
    """Those that alone are in it."""

    @property
    def whole(self) -> bool:
        """Whether the database can be made again from it."""
        return self.what == "everything"

    def __str__(self) -> str:
        return f"tables: {', '.join(self.tables)}" if self.what == "tables" else self.what


class Locale(_Part):
    """How the database was created: what ``CREATE DATABASE`` must be told to make it again."""

    encoding: str
    provider: Literal["libc", "icu", "builtin"]
    collate: str
    ctype: str
    locale: str | None
    rules: str | None


class Source(_Part):
    """The database that was dumped, and the moment."""

    database: str
    """Its name on the server."""
    database_oid: int
    system_identifier: str
    server_version: str
    server_major: int
    snapshot: str
    """``pg_current_snapshot()``: which transactions are in it."""
    wal_lsn: str
    """A WAL position at or after the last commit in it."""
    timeline_id: int | None = None
    """Of the WAL then; none where a standby was dumped, and in backups that were made before it was kept."""
    taken_at: datetime
    """Every transaction that committed before is in it."""
    database_bytes: int
    owner: str
    locale: Locale
    settings: dict[str, str]
    """``ALTER DATABASE ... SET``."""
    extensions: tuple[str, ...]
    extension_versions: dict[str, str] = {}
    roles: tuple[str, ...]
    """Those that own, or are named by, what is in it."""


class Manifest(_Part):
    """The whole of ``manifest.json``."""

    format: Literal[1] = 1
    id: str
    database: str
    """Its name in the declaration."""
    kind: Literal["logical"] = "logical"
    scope: Scope = Scope()
    started_at: datetime
    finished_at: datetime
    source: Source
    program: str
    """The version of pg_dump."""
    program_major: int
    compression: str
    warnings: tuple[str, ...]
    """What pg_dump said without failing, and what could not be had beside the dump."""
    encrypted_to: tuple[str, ...] = ()
    """The age recipients, any of whom can read the files; none: they are not encrypted."""
    tables: tuple[TableContent, ...]
    files: tuple[FileEntry, ...]

    @property
    def sealed(self) -> bool:
        """Whether a key is needed to read more than this manifest."""
        return bool(self.encrypted_to)

    @property
    def taken_at(self) -> datetime:
        """Every transaction that committed before is in it."""
        return self.source.taken_at

    @property
    def bytes(self) -> int:
        """The size of all files but the manifest."""
        return sum(file.bytes for file in self.files)


def write_manifest(manifest: BaseModel, folder: Path) -> str:
    """Write ``manifest.json`` to disk, for sure; its SHA-256."""
    data = manifest.model_dump_json(indent=2).encode() + b"\n"
    with (folder / MANIFEST).open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(folder)
    return hashlib.sha256(data).hexdigest()


def sum_file(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_in(folder: Path) -> Iterator[Path]:
    """Every file below, whatever its kind, in the order of the names; a link to a folder is a file."""
    for root, folders, files in os.walk(folder):
        links = [name for name in folders if (Path(root) / name).is_symlink()]
        folders.sort()
        yield from (Path(root) / name for name in sorted([*files, *links]))


def sync_folder(folder: Path) -> None:
    """Make sure that the names in a folder are on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
