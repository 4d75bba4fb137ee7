"""Archives in a table, of this or of another database: the same rows with the archive's id and their place in it.

The rows of an archive arrive in one transaction with what the archive says of itself (``dbplatform.archive_held``), so
that nothing half-written is ever seen. Their SHA-256 is that of COPY's text of all of them, by their places.
"""

from __future__ import annotations

import hashlib
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from dbplatform.archiving.content import be_durable, be_exact
from dbplatform.archiving.parquet import ArchiveReader, Block, Metadata, damaged, first_line
from dbplatform.archiving.shape import read_columns
from dbplatform.errors import VariableNotSet
from dbplatform.postgres.catalog import table_exists
from dbplatform.postgres.connection import AnyConnection, AutocommitConnection, Target, connect
from dbplatform.postgres.identifiers import Relation
from dbplatform.postgres.state import ensure_state
from dbplatform.storage.place import StorageFailed

BLOCK_ROWS = 50_000
#: In bytes: PostgreSQL cuts what is longer.
_LONGEST_NAME = 63
_ID, _PLACE = "archive_id", "archive_place"
HELD_DDL = """
    create table dbplatform.archive_held (
        archive_id uuid primary key,
        table_name text not null,
        metadata text not null,
        held_since timestamptz not null default now()
    )
"""
_LOCATION = re.compile(r"table:(?P<table>.+)/(?P<id>[0-9a-f-]{36})(?:@(?P<variable>\w+))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class TablePlace:
    """A table that keeps archives; it is made with the first one. ``variable`` holds the URL of another database."""

    target: Target
    table: Relation
    variable: str | None
    work: Path

    def beside(self, child: Relation) -> TablePlace:
        """The table for the rows of ``child``: this one's name with that of the child. Raises ``StorageFailed``."""
        name = f"{self.table.name}_{child.name}"
        if len(name.encode()) > _LONGEST_NAME:
            raise StorageFailed(
                location=f"table:{self.table}",
                reason=f"the table for the rows of {child} would be called {name}, which is longer than a name can be",
                hint="Name a shorter table in to, or a folder.",
            )
        return replace(self, table=Relation(self.table.schema, name))

    def location(self, name: str) -> str:
        elsewhere = f"@{self.variable}" if self.variable else ""
        return f"table:{self.table}/{Path(name).stem}{elsewhere}"

    def partial(self, name: str) -> Path:
        return self.work / f".{Path(name).stem}.partial.parquet"

    def complete(self, name: str) -> None:
        """Load the file into the table, all of its rows or none. Raises ``StorageFailed``."""
        partial, archive_id = self.partial(name), uuid.UUID(Path(name).stem)
        try:
            with partial.open("rb") as file, connect(self.target, work="archive into table") as connection:
                reader = ArchiveReader(file, str(partial))
                ensure_state(connection, "archive_held", HELD_DDL)
                try:
                    with connection.transaction():
                        be_exact(connection)
                        be_durable(connection)
                        self._require_table(connection, reader.metadata)
                        self._load(connection, archive_id, reader)
                except psycopg.Error as error:
                    raise self._failed(name, first_line(error)) from error
        finally:
            partial.unlink(missing_ok=True)

    def discard(self, name: str) -> None:
        self.partial(name).unlink(missing_ok=True)
        with connect(self.target, work="archive into table") as connection, connection.transaction():
            if table_exists(connection, self.table):
                connection.execute(
                    sql.SQL("delete from {} where {} = %s").format(self.table.identifier, sql.Identifier(_ID)),
                    (Path(name).stem,),
                )
                connection.execute("delete from dbplatform.archive_held where archive_id = %s", (Path(name).stem,))

    def _require_table(self, connection: AutocommitConnection, metadata: Metadata) -> None:
        wanted = [(_ID, "uuid"), (_PLACE, "bigint"), *((c.name, c.type) for c in metadata.columns)]
        if not table_exists(connection, self.table):
            fields = [sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(type_)) for name, type_ in wanted]
            connection.execute(
                sql.SQL("create table {} ({}, primary key ({}, {}))").format(
                    self.table.identifier, sql.SQL(", ").join(fields), sql.Identifier(_ID), sql.Identifier(_PLACE)
                )
            )
        elif [(c.name, c.type) for c in read_columns(connection, self.table)] != wanted:
            raise self._failed(
                str(metadata.archive_id), f"its columns are not {_ID}, {_PLACE} and those of {metadata.table}"
            )

    def _load(self, connection: AutocommitConnection, archive_id: uuid.UUID, reader: ArchiveReader) -> None:
        staged, columns = sql.Identifier("pg_temp", "dbplatform_arriving"), _columns(reader.metadata)
        # COPY cannot add the archive's id to each row; a default can.
        connection.execute(
            sql.SQL("create temporary table {} on commit drop as select {} from {} with no data").format(
                staged, columns, self.table.identifier
            )
        )
        for block in reader.blocks():
            statement = sql.SQL("copy {} ({}) from stdin (format csv)").format(staged, columns)
            with connection.cursor() as cursor, cursor.copy(statement) as copy:
                copy.write(block.csv)
            connection.execute(
                sql.SQL("insert into {} ({}, {columns}) select %s, {columns} from {}").format(
                    self.table.identifier, sql.Identifier(_ID), staged, columns=columns
                ),
                (archive_id,),
            )
            connection.execute(sql.SQL("truncate {}").format(staged))
        connection.execute(
            "insert into dbplatform.archive_held (archive_id, table_name, metadata) values (%s, %s, %s)",
            (archive_id, str(self.table), reader.metadata.as_bytes().decode()),
        )

    def _failed(self, name: str, reason: str) -> StorageFailed:
        return StorageFailed(
            location=self.location(name), reason=reason, hint="Mend it, or name another table, then try again."
        )


class TableReader:
    """Reads an archive out of its table, block by block; the counterpart of ``ArchiveReader``."""

    def __init__(self, connection: AutocommitConnection, location: str) -> None:
        self.location = location
        self._connection = connection
        self._table, self._id, _ = parsed(location)
        self.metadata = self._metadata()
        self.rows = self.metadata.rows

    def blocks(self, *, start: int = 0) -> Iterator[Block]:
        """The blocks that hold the rows from place ``start`` on."""
        while start < self.rows:
            lines = list(self._lines(start, start + BLOCK_ROWS))
            if not lines:
                raise damaged(self.location, f"the row at place {start} is missing")
            yield Block(start, len(lines), b"".join(lines))
            start += len(lines)

    def digest(self) -> tuple[int, str]:
        """The bytes of COPY's text of all rows, and their SHA-256."""
        digest, size = hashlib.sha256(), 0
        for line in self._lines(0, None):
            digest.update(line)
            size += len(line)
        return size, digest.hexdigest()

    def _metadata(self) -> Metadata:
        try:
            row = self._connection.execute(
                "select metadata from dbplatform.archive_held where archive_id = %s", (self._id,)
            ).fetchone()
            if row is None:
                raise damaged(self.location, "the table does not hold it")
            return Metadata.read(row[0].encode())
        except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName, ValueError, KeyError) as error:
            raise damaged(self.location, f"it cannot be read ({first_line(error)})") from error

    def _lines(self, first: int, end: int | None) -> Iterator[bytes]:
        statement = sql.SQL(
            "copy (select {columns} from {table} where {id} = {wanted} and {place} >= {first}{until} order by {place})"
            " to stdout (format csv, force_quote *)"
        ).format(
            columns=_columns(self.metadata),
            table=self._table.identifier,
            id=sql.Identifier(_ID),
            wanted=sql.Literal(self._id),
            place=sql.Identifier(_PLACE),
            first=sql.Literal(first),
            until=sql.SQL("")
            if end is None
            else sql.SQL(" and {} < {}").format(sql.Identifier(_PLACE), sql.Literal(end)),
        )
        try:
            with self._connection.transaction():
                be_exact(self._connection)
                with self._connection.cursor() as cursor, cursor.copy(statement) as copy:
                    for line in copy:
                        yield bytes(line)
        except psycopg.ProgrammingError as error:
            raise damaged(self.location, f"it cannot be read ({first_line(error)})") from error


@contextmanager
def table_reader(location: str, near: AnyConnection | None) -> Iterator[TableReader]:
    """The archive at a ``table:`` location: in the database of ``near``, or in the one that its variable names.

    Raises ``ArchiveDamaged`` and ``VariableNotSet``.
    """
    _, _, variable = parsed(location)
    if variable is not None:
        target = Target(variable, url_of(variable))
    else:
        assert near is not None, "an archive in the database itself is read beside a session with it"
        target = Target("the archive's table", own_url(near))
    with connect(target, work="archive in table") as connection:
        yield TableReader(connection, location)


def holding(connection: AnyConnection) -> list[Relation]:
    """The tables of the connected database that hold archives."""
    held = connection.execute("select to_regclass('dbplatform.archive_held') is not null").fetchone()
    if held != (True,):
        return []
    found = connection.execute("select distinct table_name from dbplatform.archive_held order by 1").fetchall()
    return [Relation.parse(name) for (name,) in found]


def own_url(connection: AnyConnection) -> str:
    """The URL of the database that a session is with."""
    return make_conninfo(connection.info.dsn, password=connection.info.password or None)


def url_of(variable: str) -> str:
    """The URL that a variable holds. Raises ``VariableNotSet``."""
    url = os.environ.get(variable)
    if not url:
        raise VariableNotSet(
            variable=variable,
            purpose="holds the URL of the database of archived rows",
            hint=f"export {variable}=postgresql://user:password@host:port/database",
        )
    return url


def parsed(location: str) -> tuple[Relation, str, str | None]:
    """Table, archive's id and variable of a ``table:`` location."""
    found = _LOCATION.fullmatch(location)
    assert found is not None, location
    return Relation.parse(found["table"]), found["id"], found["variable"]


def _columns(metadata: Metadata) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, (_PLACE, *(column.name for column in metadata.columns))))
