"""Which tables a seed would load, and whether it can. Only reads.

Everything that can be known beforehand is refused here: missing files and columns, rows that are there already, a seed
that was changed after it was applied.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from psycopg import sql

from dbplatform.errors import NotBuiltYet
from dbplatform.postgres import catalog
from dbplatform.postgres.connection import AnyConnection
from dbplatform.postgres.identifiers import Relation
from dbplatform.postgres.words import Interval
from dbplatform.seeding.csv_text import blocks, header_of
from dbplatform.seeding.errors import SeedChanged, SeedHeaderWrong, SeedMistake, TableNotEmpty
from dbplatform.seeding.files import SeedFile, locate
from dbplatform.seeding.manifest import Manifest, SeedTable, read_manifest
from dbplatform.seeding.policy import SeedPolicy
from dbplatform.seeding.records import SeedRecord, read_records, read_shift
from dbplatform.seeding.shift import RecordedShift, find_shift

_MOVABLE = ("timestamp", "date")


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSeed:
    """One table: its file, its columns as (column of the table, field of the file), and its record when loaded."""

    table: Relation
    file: SeedFile
    width: int
    columns: tuple[tuple[str, int], ...]
    moved: frozenset[str]
    nulls: frozenset[bytes] | None
    sha256: str
    record: SeedRecord | None

    def as_json(self) -> dict[str, Any]:
        """One entry of ``tables``."""
        return {
            "table": str(self.table),
            "file": self.file.name,
            "status": "applied" if self.record else "pending",
            "rows": self.record.rows if self.record else None,
            "seconds": self.record.seconds if self.record else None,
            "bytes": self.file.bytes,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedPlan:
    """The tables in the order of loading; ``shift`` is what is recorded, or would be."""

    database: str
    profile: str
    tables: tuple[TableSeed, ...]
    shift: RecordedShift | None

    @property
    def pending(self) -> tuple[TableSeed, ...]:
        """What is not loaded yet."""
        return tuple(table for table in self.tables if table.record is None)

    def as_json(self) -> dict[str, Any]:
        """The document of ``seed apply --dry-run --json``."""
        return {
            "database": self.database,
            "profile": self.profile,
            "shift": shift_json(self.shift),
            "tables": [table.as_json() for table in self.tables],
        }


def plan_seed(
    connection: AnyConnection,
    directory: Path,
    policy: SeedPolicy,
    *,
    database: str,
    now: datetime,
    rows_scale: float = 1,
) -> SeedPlan:
    """What of the seed is not loaded yet, found without writing.

    Reads every file once for its hash, and the one that holds the newest moment once more while no shift is recorded.
    A table that is recorded as loaded is not read; of the others one row is looked for. Raises ``UsageError``.
    """
    if rows_scale != 1:
        raise NotBuiltYet(what=f"Seeding with --rows-scale {rows_scale:g}", hint="Leave it out.")
    manifest = read_manifest(directory, policy)
    records = read_records(connection, policy.profile)
    tables = tuple(_table_seed(connection, directory, policy, manifest, entry, records) for entry in manifest.tables)
    shift = _shift(connection, directory, policy, manifest, tables, now)
    return SeedPlan(database=database, profile=policy.profile, tables=tables, shift=shift)


def shift_json(shift: RecordedShift | None) -> dict[str, Any] | None:
    """The shift as a document."""
    if shift is None:
        return None
    return {"newest": shift.newest.isoformat(), "by": str(shift.by), "steps": shift.steps}


def is_empty(connection: AnyConnection, table: Relation) -> bool:
    """Whether a table holds no row."""
    row = connection.execute(sql.SQL("select not exists (select from {})").format(table.identifier)).fetchone()
    return row is not None and bool(row[0])


def refuse_rows(connection: AnyConnection, table: Relation, profile: str) -> None:
    """Raise ``TableNotEmpty`` rather than double rows."""
    if not is_empty(connection, table):
        raise TableNotEmpty(
            table=str(table), profile=profile, hint="Empty it first (TRUNCATE), or take it out of the seed."
        )


def _table_seed(
    connection: AnyConnection,
    directory: Path,
    policy: SeedPolicy,
    manifest: Manifest,
    entry: SeedTable,
    records: dict[str, SeedRecord],
) -> TableSeed:
    catalog.require_table(connection, entry.table)
    file = locate(directory, manifest.package, entry.file)
    with file.open() as stream:
        header, _ = header_of(blocks(stream, file.name), file.name)
    nulls = None if manifest.nulls is None else frozenset(text.encode() for text in manifest.nulls)
    record = records.get(str(entry.table))
    seed = TableSeed(
        table=entry.table,
        file=file,
        width=len(header),
        columns=_columns(connection, entry, file, header),
        moved=frozenset(entry.shift),
        nulls=nulls,
        sha256=_seed_hash(file, manifest, entry),
        record=record,
    )
    if record is None:
        refuse_rows(connection, entry.table, policy.profile)
    elif record.sha256 != seed.sha256:
        raise SeedChanged(
            table=str(entry.table),
            profile=policy.profile,
            applied_at=record.applied_at.isoformat(sep=" ", timespec="seconds"),
            hint="Changing an applied seed is not built yet: put the file and seed.yaml back, or write a migration "
            f"for the change; to load anew, empty the table and delete its row from dbplatform.seed "
            f"(profile {policy.profile}, table_name {entry.table}).",
            file=file.name,
        )
    return seed


def _columns(
    connection: AnyConnection, entry: SeedTable, file: SeedFile, header: list[str]
) -> tuple[tuple[str, int], ...]:
    wanted = entry.columns if entry.columns is not None else {name: name for name in header}
    if len(set(header)) != len(header):
        twice = next(name for name in header if header.count(name) > 1)
        raise SeedMistake(f"The header names the column {twice!r} twice.", file=file.name, line=1, hint="Rename one.")
    _refuse_missing(f"The file {file.name}", [name for name in wanted.values() if name not in header], header, file)
    types = {column.name: column.type for column in catalog.columns(connection, entry.table)}
    _refuse_missing(
        f"The table {entry.table}", [name for name in (*wanted, *entry.shift) if name not in types], list(types), file
    )
    for name in entry.shift:
        if name not in wanted:
            _refuse_missing(f"The file {file.name}", [name], header, file)
        if not types[name].startswith(_MOVABLE):
            raise SeedMistake(
                f"The column {name} of {entry.table} cannot be shifted: its type is {types[name]}.",
                file=file.name,
                hint="Shift columns of the types timestamptz, timestamp or date.",
            )
    return tuple((target, header.index(source)) for target, source in wanted.items())


def _refuse_missing(owner: str, missing: list[str], present: list[str], file: SeedFile) -> None:
    if missing:
        raise SeedHeaderWrong(
            owner=owner,
            missing=", ".join(missing),
            present=", ".join(present),
            hint="Correct the header of the file, or say under columns what goes where: {column: field of the file}.",
            file=file.name,
            line=1,
        )


def _seed_hash(file: SeedFile, manifest: Manifest, entry: SeedTable) -> str:
    """Of the file's bytes and of everything in the manifest that shapes the rows."""
    shape = {
        "columns": entry.columns,
        "nulls": manifest.nulls,
        "shift": sorted(entry.shift),
        "by": str(manifest.shift.by) if manifest.shift and entry.shift else None,
    }
    return hashlib.sha256(f"{file.sha256()} {json.dumps(shape, sort_keys=True)}".encode()).hexdigest()


def _shift(
    connection: AnyConnection,
    directory: Path,
    policy: SeedPolicy,
    manifest: Manifest,
    tables: tuple[TableSeed, ...],
    now: datetime,
) -> RecordedShift | None:
    if manifest.shift is None:
        return None
    recorded = read_shift(connection, policy.profile)
    by = manifest.shift.by
    if recorded is not None:
        if recorded.by.timedelta != by.timedelta and any(not table.record and table.moved for table in tables):
            raise SeedMistake(
                f"The profile {policy.profile} is shifted by multiples of {recorded.by} since its first seeding, "
                f"not of {by}.",
                file=directory / "seed.yaml",
                hint="Changing an applied seed is not built yet: put shift.by back.",
            )
        return recorded
    _refuse_parts_of_days(connection, tables, by, directory)
    file = locate(directory, manifest.package, manifest.shift.newest.file)
    nulls = None if manifest.nulls is None else frozenset(text.encode() for text in manifest.nulls)
    return find_shift(file, manifest.shift.newest.column, nulls, by, now)


def _refuse_parts_of_days(
    connection: AnyConnection, tables: tuple[TableSeed, ...], by: Interval, directory: Path
) -> None:
    if not by.timedelta.seconds and not by.timedelta.microseconds:
        return
    for table in tables:
        for column in catalog.columns(connection, table.table):
            if column.name in table.moved and column.type == "date":
                raise SeedMistake(
                    f"The date {column.name} of {table.table} cannot be shifted by {by}.",
                    file=directory / "seed.yaml",
                    hint="Write whole days under shift.by.",
                )
