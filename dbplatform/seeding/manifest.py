"""What a seed folder says: which file goes into which table, and how.

With a ``seed.yaml`` it says so itself; without one, every ``[<number>_]<table>.csv`` of the folder is loaded in the
order of the names.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from dbplatform.errors import NotBuiltYet
from dbplatform.postgres.identifiers import Relation
from dbplatform.postgres.words import DurationWords, Policy, RelationName
from dbplatform.seeding.errors import SeedDirectoryMissing, SeedMistake
from dbplatform.seeding.policy import SeedPolicy
from dbplatform.yaml_files import LinedDocument, Where

MANIFEST = "seed.yaml"

_CSV = re.compile(r"(.+)\.csv(?:\.gz|\.zip)?")
_NUMBER = re.compile(r"^\d+_")


def _as_mapping(value: Any) -> Any:
    """``[a, b]`` is short for ``{a: a, b: b}``."""
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        twice = [name for name, times in Counter(value).items() if times > 1]
        if twice:
            raise ValueError(f"the column {twice[0]!r} is named twice")
        return {name: name for name in value}
    return value


class Newest(Policy):
    """Where the newest moment of the data is found."""

    file: str
    column: str


class Shift(Policy):
    """Old data is moved to the present once, by a whole multiple of ``by``."""

    newest: Newest
    by: DurationWords


class SeedTable(Policy):
    """One file for one table; ``columns`` maps columns of the table to columns of the file."""

    table: RelationName
    file: str
    columns: Annotated[dict[str, str], BeforeValidator(_as_mapping), Field(min_length=1)] | None = None
    shift: tuple[str, ...] = ()


class Manifest(Policy):
    """The whole of a ``seed.yaml``."""

    package: str | None = None
    nulls: tuple[str, ...] | None = None
    shift: Shift | None = None
    tables: Annotated[tuple[SeedTable, ...], Field(min_length=1)]


def read_manifest(directory: Path, policy: SeedPolicy) -> Manifest:
    """What the folder of a profile holds; raises ``UsageError`` with file and line for every mistake in it."""
    if not directory.is_dir():
        raise SeedDirectoryMissing(
            directory=str(directory),
            profile=policy.profile,
            hint="Create it with CSV files, or correct the directory in the declaration.",
        )
    file = directory / MANIFEST
    return _read_yaml(file) if file.is_file() else _read_folder(directory)


def _read_folder(directory: Path) -> Manifest:
    tables = []
    for file in _files(directory):
        match = _CSV.fullmatch(file.name)
        if match is None:
            raise _not_csv(file.name, file)
        try:
            relation = Relation.parse(_NUMBER.sub("", match[1]))
        except ValueError as error:
            raise SeedMistake(
                f"The file's name says no table: {error}.",
                file=file,
                hint="Name it <table>.csv or 01_<schema>.<table>.csv.",
            ) from error
        tables.append(SeedTable(table=relation, file=file.name))
    if not tables:
        raise SeedMistake(
            f"The seed folder {directory} holds no CSV file.", hint="Add <table>.csv, or a seed.yaml.", file=directory
        )
    _refuse_doubles(tables, directory, {})
    return Manifest(tables=tuple(tables))


def _read_yaml(file: Path) -> Manifest:
    document = LinedDocument(file, shown=str(file))
    manifest = document.validated(Manifest, document.value if document.value is not None else {})
    for index, table in enumerate(manifest.tables):
        if not _CSV.fullmatch(table.file):
            raise _not_csv(table.file, file, document.line_of(("tables", index, "file")))
        where = ("tables", index, "shift")
        if table.shift and manifest.shift is None:
            raise document.mistake(
                f"{table.table} names columns to shift, but the seed says no shift.",
                where=where,
                hint="Add shift: {newest: {file, column}, by: 1 week}.",
            )
        for column in table.shift:
            if table.columns is not None and column not in table.columns:
                raise document.mistake(
                    f"The column {column!r} of {table.table} is to be shifted, but not among its columns.",
                    where=where,
                    hint="Name it under columns too.",
                )
    _refuse_doubles(manifest.tables, file, document.lines)
    if manifest.package is None:
        _refuse_strays(manifest, file)
    return manifest


def _refuse_doubles(tables: list[SeedTable] | tuple[SeedTable, ...], file: Path, lines: dict[Where, int]) -> None:
    seen: set[Relation] = set()
    for index, table in enumerate(tables):
        if table.table in seen:
            raise SeedMistake(
                f"The seed names the table {table.table} twice.",
                file=file,
                line=lines.get(("tables", index)),
                hint="One file per table: put them together.",
            )
        seen.add(table.table)


def _refuse_strays(manifest: Manifest, file: Path) -> None:
    """A seed file that no entry names would be left out in silence."""
    named = {(file.parent / table.file).resolve() for table in manifest.tables}
    for stray in _files(file.parent):
        if stray != file and stray.resolve() not in named:
            raise SeedMistake(f"{stray.name} lies in the folder, but seed.yaml does not name it.", file=file, line=1,
                              hint="Add it under tables, or remove it.")  # fmt: skip


def _files(directory: Path) -> list[Path]:
    """The files of a folder by name, without hidden ones and those that speak to people."""
    return sorted(
        file
        for file in directory.iterdir()
        if file.is_file() and not file.name.startswith(".") and file.suffix.lower() not in (".md", ".txt")
    )


def _not_csv(name: str, file: Path, line: int | None = None) -> NotBuiltYet:
    return NotBuiltYet(what=f"Seeding from {name}", hint="Built are .csv, .csv.gz and .csv.zip.", file=file, line=line)
