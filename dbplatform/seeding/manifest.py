"""What a seed folder says: which file goes into which table, and how; or how a table's rows are generated.

With a ``seed.yaml`` it says so itself; without one, every ``[<number>_]<table>.csv`` (or ``.jsonl``, ``.sql``) of the
folder is loaded. Which table comes first, foreign keys tell.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from dbplatform.postgres.identifiers import Relation
from dbplatform.postgres.words import ColumnName, DurationWords, Policy, RelationName
from dbplatform.seeding.errors import SeedDirectoryMissing, SeedMistake
from dbplatform.seeding.generate import names_of
from dbplatform.seeding.generators import Column, Moment, in_order
from dbplatform.seeding.passwords import DEFAULT_ROUNDS, LEAST_ROUNDS, WEAK_PROFILES
from dbplatform.seeding.policy import SeedPolicy
from dbplatform.yaml_files import LinedDocument, Where

MANIFEST = "seed.yaml"

_FILE = re.compile(r"(.+)\.(?:(csv|jsonl)(?:\.gz|\.zip)?|(sql))")
_KNOWN = "seed files are .csv, .jsonl (both also as .gz or .zip) and .sql"
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
    """Old data is moved to the present once, by a whole multiple of ``by``; ``newest`` may also be a moment."""

    newest: Newest | Moment
    by: DurationWords


class SeedTable(Policy):
    """One table: its file, or how many rows of it are generated, and how.

    ``columns`` maps columns of the table to columns of the file. With a ``key`` the rows are upserted, so that a
    changed seed can be applied again; without one they are loaded once, into an empty table.
    """

    table: RelationName
    file: str | None = None
    columns: Annotated[dict[str, str], BeforeValidator(_as_mapping), Field(min_length=1)] | None = None
    shift: tuple[str, ...] = ()
    key: Annotated[tuple[ColumnName, ...], Field(min_length=1)] | None = None
    passwords: tuple[ColumnName, ...] = ()
    rows: Annotated[int, Field(ge=1)] | None = None
    generate: Annotated[dict[str, Column], Field(min_length=1)] | None = None

    @property
    def kind(self) -> str:
        """``generated``, or what the file is: ``csv``, ``jsonl``, ``sql``."""
        match = _FILE.fullmatch(self.file) if self.file is not None else None
        return "generated" if match is None else str(match[2] or match[3])

    @model_validator(mode="after")
    def _whole(self) -> SeedTable:
        if self.file is not None:
            if self.generate is not None or self.rows is not None:
                raise ValueError("a table has a file, or rows and generate; not both")
            if not _FILE.fullmatch(self.file):
                raise ValueError(f"{self.file!r} is no seed file; {_KNOWN}")
            if self.kind == "sql" and (self.columns or self.shift or self.key or self.passwords):
                raise ValueError(f"{self.file} is SQL; columns, shift, key and passwords are for rows of data")
        elif self.generate is None or self.rows is None:
            raise ValueError("a table has a file, or rows and generate")
        else:
            in_order(self.generate)
            if self.columns or self.passwords:
                raise ValueError("columns and passwords are for files; a generated password is bcrypt: {env: ...}")
            given = [name for key in self.generate for name in names_of(key)]
            for name in (*self.shift, *(self.key or ())):
                if name not in given:
                    raise ValueError(f"the column {name!r} is not generated")
        return self


class Manifest(Policy):
    """The whole of a ``seed.yaml``; ``seed`` is the number from which all that is generated grows."""

    package: str | None = None
    nulls: tuple[str, ...] | None = None
    shift: Shift | None = None
    seed: int = 1
    locale: Annotated[str, Field(pattern=r"^[a-z]{2,3}_[A-Z]{2}$")] = "en_US"
    bcrypt_rounds: Annotated[int, Field(ge=4, le=31)] = DEFAULT_ROUNDS
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
    return _read_yaml(file, policy) if file.is_file() else _read_folder(directory)


def line_in(directory: Path, where: Where) -> dict[str, Any]:
    """The file and line of a place in the manifest, for an error that only the database shows."""
    file = directory / MANIFEST
    if not file.is_file():
        return {"file": directory}
    return {"file": file, "line": LinedDocument(file, shown=str(file)).line_of(where)}


def _read_folder(directory: Path) -> Manifest:
    tables = []
    for file in _files(directory):
        match = _FILE.fullmatch(file.name)
        if match is None:
            raise SeedMistake(f"{file.name} is no seed file.", file=file, hint=f"{_KNOWN.capitalize()}.")
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
            f"The seed folder {directory} holds no seed file.", hint="Add <table>.csv, or a seed.yaml.", file=directory
        )
    _refuse_doubles(tables, directory, {})
    return Manifest(tables=tuple(tables))


def _read_yaml(file: Path, policy: SeedPolicy) -> Manifest:
    document = LinedDocument(file, shown=str(file))
    manifest = document.validated(Manifest, document.value if document.value is not None else {})
    for index, table in enumerate(manifest.tables):
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
    hashes = any(table.passwords for table in manifest.tables) or any(
        column.bcrypt is not None for table in manifest.tables for column in (table.generate or {}).values()
    )
    if hashes and manifest.bcrypt_rounds < LEAST_ROUNDS and policy.profile not in WEAK_PROFILES:
        raise document.mistake(
            f"bcrypt_rounds {manifest.bcrypt_rounds} is too weak for the profile {policy.profile}.",
            where=("bcrypt_rounds",),
            hint=f"Write {LEAST_ROUNDS} or more; fewer are for {' and '.join(WEAK_PROFILES)}.",
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
    named = {(file.parent / table.file).resolve() for table in manifest.tables if table.file is not None}
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
