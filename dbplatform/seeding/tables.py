"""One table of a seed: what fills it, whether it is pending, and whether it can be loaded. Only reads."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psycopg import sql

from dbplatform.postgres import catalog
from dbplatform.postgres.connection import AnyConnection
from dbplatform.postgres.identifiers import Relation
from dbplatform.seeding.contents import Content, CsvContent, JsonContent, ScriptContent, bytes_of, name_of
from dbplatform.seeding.csv_text import blocks, header_of
from dbplatform.seeding.errors import SeedChanged, SeedHeaderWrong, SeedMistake, TableNotEmpty
from dbplatform.seeding.files import SeedFile, locate
from dbplatform.seeding.generate import Generated, names_of
from dbplatform.seeding.json_lines import keys_of
from dbplatform.seeding.manifest import Manifest, SeedTable, line_in
from dbplatform.seeding.policy import SeedPolicy
from dbplatform.seeding.records import SeedRecord

_MOVABLE = ("timestamp", "date")
_DOCUMENTS = ("json", "jsonb")


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSeed:
    """One table: what fills it, and its record when it was loaded. ``moved`` and ``passwords`` are columns."""

    table: Relation
    content: Content
    key: tuple[str, ...] | None
    moved: frozenset[str]
    passwords: frozenset[str]
    not_null: frozenset[str]
    sha256: str
    scale: float
    record: SeedRecord | None

    @property
    def pending(self) -> bool:
        """Whether it is to be loaded: for the first time, or by key after it was changed or scaled up."""
        return self.record is None or self.record.sha256 != self.sha256 or self.record.scale < self.scale

    def as_json(self) -> dict[str, Any]:
        """One entry of ``tables``."""
        return {
            "table": str(self.table),
            "file": name_of(self.content),
            "status": "pending" if self.pending else "applied",
            "rows": self.record.rows if self.record else None,
            "seconds": self.record.seconds if self.record else None,
            "bytes": bytes_of(self.content),
        }


@dataclass(frozen=True, slots=True)
class Planning:
    """Looks at one table of a manifest after the other."""

    connection: AnyConnection
    directory: Path
    policy: SeedPolicy
    manifest: Manifest
    records: dict[str, SeedRecord]
    scale: float

    def table(self, index: int, entry: SeedTable) -> TableSeed:
        """The table of ``manifest.tables[index]``, refused where it cannot be loaded. Raises ``UsageError``."""
        catalog.require_table(self.connection, entry.table)
        columns = catalog.columns(self.connection, entry.table)
        content = self._content(index, entry, {column.name: column.type for column in columns})
        seed = TableSeed(
            table=entry.table,
            content=content,
            key=entry.key,
            moved=frozenset(entry.shift),
            passwords=frozenset(entry.passwords),
            not_null=frozenset(column.name for column in columns if column.not_null),
            sha256=_seed_hash(content, self.manifest, entry),
            scale=self._scale(entry),
            record=self.records.get(str(entry.table)),
        )
        for name in (*(entry.key or ()), *entry.passwords):
            if name not in content.targets:
                raise SeedMistake(
                    f"{name!r}, named as key or password of {entry.table}, is not among the columns that are loaded.",
                    hint=f"Loaded are {', '.join(content.targets)}.",
                    **line_in(self.directory, ("tables", index)),
                )
        if entry.key is None:
            self._refuse(seed)
        return seed

    def _scale(self, entry: SeedTable) -> float:
        """What is asked for, or what was asked for before, where that was more. A file has its rows and no more."""
        record = self.records.get(str(entry.table))
        return max(self.scale, record.scale if record else 0) if entry.generate is not None else 1

    def _refuse(self, seed: TableSeed) -> None:
        """Without a key rows cannot be found again: they are loaded once, into an empty table."""
        record = seed.record
        if record is None:
            refuse_rows(self.connection, seed.table, self.policy.profile)
        elif seed.pending:
            same = record.sha256 == seed.sha256
            raise SeedChanged(
                table=str(seed.table),
                profile=self.policy.profile,
                applied_at=record.applied_at.isoformat(sep=" ", timespec="seconds"),
                what=f"at scale {record.scale:g}, not {seed.scale:g}" if same else "with other contents or options",
                hint="Name the key of its rows in seed.yaml, and it is upserted by it; or put the file and seed.yaml "
                "back; or load anew: empty the table and delete its row from dbplatform.seed "
                f"(profile {self.policy.profile}, table_name {seed.table}).",
                file=name_of(seed.content),
            )

    def _content(self, index: int, entry: SeedTable, types: dict[str, str]) -> Content:
        if entry.generate is not None and entry.rows is not None:
            for key in entry.generate:
                if missing := [name for name in names_of(key) if name not in types]:
                    raise SeedHeaderWrong(
                        owner=f"The table {entry.table}",
                        missing=missing[0],
                        present=", ".join(types),
                        hint="Correct the name.",
                        **line_in(self.directory, ("tables", index, "generate", key)),
                    )
            return Generated(
                table=entry.table,
                columns=entry.generate,
                rows=max(1, round(entry.rows * self._scale(entry))),
                seed=self.manifest.seed,
                locale=self.manifest.locale,
                rounds=self.manifest.bcrypt_rounds,
            )
        assert entry.file is not None
        file = locate(self.directory, self.manifest.package, entry.file)
        if entry.kind == "sql":
            return ScriptContent(file=file)
        nulls = nulls_of(self.manifest)
        with file.open() as stream:
            header = (
                keys_of(stream, file.name)
                if entry.kind == "jsonl"
                else header_of(blocks(stream, file.name), file.name)[0]
            )
        wanted = _columns(entry, file, header, types)
        if entry.kind == "jsonl":
            documents = frozenset(source for target, source in wanted.items() if types[target] in _DOCUMENTS)
            return JsonContent(file=file, columns=tuple(wanted.items()), documents=documents)
        columns = tuple((target, header.index(source)) for target, source in wanted.items())
        return CsvContent(file=file, width=len(header), columns=columns, nulls=nulls)


def is_empty(connection: AnyConnection, table: Relation) -> bool:
    """Whether a table holds no row."""
    row = connection.execute(sql.SQL("select not exists (select from {})").format(table.identifier)).fetchone()
    return row is not None and bool(row[0])


def refuse_rows(connection: AnyConnection, table: Relation, profile: str) -> None:
    """Raise ``TableNotEmpty`` rather than double rows."""
    if not is_empty(connection, table):
        raise TableNotEmpty(
            table=str(table),
            profile=profile,
            hint="Empty it first (TRUNCATE), name the key of the seed's rows, or take it out of the seed.",
        )


def nulls_of(manifest: Manifest) -> frozenset[bytes] | None:
    """The texts that mean NULL in the seed's CSV files."""
    return None if manifest.nulls is None else frozenset(text.encode() for text in manifest.nulls)


def _columns(entry: SeedTable, file: SeedFile, header: list[str], types: dict[str, str]) -> dict[str, str]:
    """Columns of the table with the names that they have in the file."""
    wanted = entry.columns if entry.columns is not None else {name: name for name in header}
    if len(set(header)) != len(header):
        twice = next(name for name in header if header.count(name) > 1)
        raise SeedMistake(f"The header names the column {twice!r} twice.", file=file.name, line=1, hint="Rename one.")
    _refuse_missing(f"The file {file.name}", [name for name in wanted.values() if name not in header], header, file)
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
    return wanted


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


def _seed_hash(content: Content, manifest: Manifest, entry: SeedTable) -> str:
    """Of the file's bytes, and of everything in the manifest that shapes the rows. The scale is recorded apart."""
    shape: dict[str, Any] = {
        "columns": entry.columns,
        "nulls": manifest.nulls,
        "shift": sorted(entry.shift),
        "by": str(manifest.shift.by) if manifest.shift and entry.shift else None,
    }
    # What came later enters only where it is used, so that seeds recorded before it still count as the same.
    if entry.key is not None:
        shape["key"] = entry.key
    if entry.passwords:
        shape["passwords"] = entry.passwords
    if isinstance(content, Generated):
        shape |= {
            "rows": entry.rows,
            "seed": manifest.seed,
            "locale": manifest.locale,
            "generate": {
                name: column.model_dump(mode="json", by_alias=True, exclude_unset=True)
                for name, column in content.columns.items()
            },
        }
    origin = "generated" if isinstance(content, Generated) else content.file.sha256()
    return hashlib.sha256(f"{origin} {json.dumps(shape, sort_keys=True)}".encode()).hexdigest()
