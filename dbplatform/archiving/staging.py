"""The temporary table into which a file's rows are loaded back, with the types of the table they came from.

It lives in the session, so a killed process leaves nothing behind; it writes no WAL.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from psycopg import sql
from psycopg.pq import TransactionStatus

from dbplatform.archiving.content import RowSums, be_exact, row_text, sums_of
from dbplatform.archiving.parquet import Block
from dbplatform.archiving.shape import Column
from dbplatform.postgres.connection import AutocommitConnection
from dbplatform.postgres.identifiers import Relation


@dataclass(frozen=True, slots=True, kw_only=True)
class Staging:
    """Rows of a file, by their place in it. In statements the table is ``table``, its rows are called ``x``."""

    connection: AutocommitConnection
    table: sql.Identifier
    names: tuple[str, ...]
    place: sql.Identifier

    @property
    def ordinal(self) -> sql.Composed:
        """The place of the row ``x``."""
        return self.ordinal_of("x")

    def ordinal_of(self, alias: str) -> sql.Composed:
        """The place of a row of the table."""
        return sql.SQL("{}.{}").format(sql.Identifier(alias), self.place)

    def between(self, first: int, end: int, alias: str = "x") -> sql.Composed:
        """Whether the row has a place in ``[first, end)``."""
        return sql.SQL("{place} >= {first} and {place} < {end}").format(
            place=self.ordinal_of(alias), first=sql.Literal(first), end=sql.Literal(end)
        )

    def index_places(self) -> None:
        """Let rows be found by their place."""
        self.connection.execute(sql.SQL("create unique index on {} ({})").format(self.table, self.place))

    def index(self, columns: Sequence[str]) -> None:
        """Let rows be found by these columns."""
        self.connection.execute(
            sql.SQL("create index on {} ({})").format(self.table, sql.SQL(", ").join(map(sql.Identifier, columns)))
        )

    def add(self, block: Block) -> None:
        """Load the rows of a block, beside those that are there."""
        columns = sql.SQL(", ").join([self.place, *map(sql.Identifier, self.names)])
        statement = sql.SQL("copy {} ({}) from stdin (format csv)").format(self.table, columns)
        with self.connection.transaction():
            be_exact(self.connection)
            with self.connection.cursor() as cursor, cursor.copy(statement) as copy:
                copy.write(block.csv)

    def replace(self, block: Block) -> None:
        """Load the rows of a block in place of those that are there."""
        self.connection.execute(sql.SQL("truncate {}").format(self.table))
        self.add(block)

    def analyze(self) -> None:
        """Let the planner know how few rows a batch of it is."""
        self.connection.execute(sql.SQL("analyze {}").format(self.table))

    def sums(self) -> RowSums:
        """The sums over the rows that are there, computed by the server from the table's own types."""
        text = row_text(sorted(self.names), "x")
        statement = sql.SQL("select {} from (select {} from {} as x offset 0) as rows (text)").format(
            sums_of(sql.SQL("text"), sql.SQL("true")), text, self.table
        )
        with self.connection.transaction():
            be_exact(self.connection)
            row = self.connection.execute(statement).fetchone()
        assert row is not None
        return RowSums(rows=row[0], first=row[1], second=row[2])


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """All rows of a file, as they were read back and found equal; so many bytes of CSV."""

    stage: Staging
    bytes: int


@contextmanager
def staging(
    connection: AutocommitConnection, like: Relation, names: Sequence[str], *, by_place: bool = True, number: int = 0
) -> Iterator[Staging]:
    """An empty temporary table with the columns ``names`` of ``like`` and without its constraints.

    ``by_place``: rows will be looked for by their place. Tables that are there at once have a ``number`` each.
    """
    place = _place(names)
    columns = [sql.SQL("0::bigint as {}").format(place)]
    columns += [sql.SQL("t.{}").format(sql.Identifier(name)) for name in names]
    definition = sql.SQL("as select {} from {} as t with no data").format(sql.SQL(", ").join(columns), like.identifier)
    with _made(connection, names, definition, number) as stage:
        if by_place:
            stage.index_places()
        yield stage


@contextmanager
def staging_of(connection: AutocommitConnection, columns: Sequence[Column], *, number: int = 0) -> Iterator[Staging]:
    """An empty temporary table with these columns and their types: those of a file, whatever the table has become."""
    names = [column.name for column in columns]
    fields = [sql.SQL("{} bigint").format(_place(names))]
    fields += [sql.SQL("{} {}").format(sql.Identifier(one.name), sql.SQL(one.type)) for one in columns]
    with _made(connection, names, sql.SQL("({})").format(sql.SQL(", ").join(fields)), number) as stage:
        yield stage


def _place(names: Sequence[str]) -> sql.Identifier:
    """A name for the column of places that no other column has."""
    place = "place"
    while place in names:
        place += "_"
    return sql.Identifier(place)


@contextmanager
def _made(
    connection: AutocommitConnection, names: Sequence[str], definition: sql.Composed, number: int
) -> Iterator[Staging]:
    table = sql.Identifier("pg_temp", f"dbplatform_archived_{number}")
    drop = sql.SQL("drop table if exists {}").format(table)
    connection.execute(drop)
    connection.execute(sql.SQL("create temporary table {} {}").format(table, definition))
    try:
        yield Staging(connection=connection, table=table, names=tuple(names), place=_place(names))
    finally:
        if not connection.closed and connection.info.transaction_status != TransactionStatus.INERROR:
            connection.execute(drop)
