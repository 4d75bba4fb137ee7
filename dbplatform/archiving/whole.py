"""Whether a partition may go: is every row that it holds in a file that was read back? Only reads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from psycopg import sql

from dbplatform.archiving.catalogue import ArchiveEntry, list_archives
from dbplatform.archiving.content import be_exact, row_text, same_key
from dbplatform.archiving.errors import ArchiveDamaged, ArchiveTableChanged
from dbplatform.archiving.kept import reading
from dbplatform.archiving.shape import TableShape, read_shape
from dbplatform.archiving.staging import staging
from dbplatform.archiving.verify import require_same_columns
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.connection import AutocommitConnection
from dbplatform.postgres.identifiers import Relation

_FOUND = sql.Identifier("pg_temp", "dbplatform_found")


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionStanding:
    """How many rows a partition holds, and how many of them lie in archives, unchanged."""

    partition: str
    rows: int
    archived: int
    archives: tuple[ArchiveEntry, ...]
    """The files that hold them."""
    problems: tuple[str, ...]
    """Files that could not be counted on, a sentence each."""

    @property
    def whole(self) -> bool:
        """Whether dropping the partition would lose nothing; an empty one holds nothing to lose."""
        return self.rows == self.archived


def archived_whole(
    connection: AutocommitConnection, ledger: Ledger, *, database: str, table: Relation, partition: Relation
) -> PartitionStanding:
    """Compare the rows of ``partition``, attached or detached, with the archives of ``table``, by key and contents.

    A file counts when it was read back after its export and its SHA-256 is still the recorded one; files are read, the
    newest first, until every row is found. The answer holds as long as nobody writes to the partition: ask once it
    is detached, or inside a transaction that holds SHARE on it. ACCESS SHARE; a temporary table. Raises what
    ``read_shape`` raises, ``NoKey`` only where the partition holds rows.
    """
    rows = _count(connection, partition)
    used: list[ArchiveEntry] = []
    problems: list[str] = []
    archived = 0
    if rows:
        shape = read_shape(connection, partition)
        with _found(connection, shape):
            for entry in list_archives(ledger, database):
                if entry.table != str(table) or entry.status == "exported" or archived == rows:
                    continue
                try:
                    _find(connection, shape, entry)
                except (ArchiveDamaged, ArchiveTableChanged) as error:
                    problems.append(error.message)
                before, archived = archived, _count(connection, _FOUND)
                if archived > before:
                    used.append(entry)
    return PartitionStanding(
        partition=str(partition), rows=rows, archived=archived, archives=tuple(used), problems=tuple(problems)
    )


def _find(connection: AutocommitConnection, shape: TableShape, entry: ArchiveEntry) -> None:
    """Remember the keys of the rows that the file holds as they are; none where the file ends in an error."""
    key = sql.SQL(", ").join(sql.SQL("t.{}").format(sql.Identifier(name)) for name in shape.key)
    statement = sql.SQL("insert into {found} select {key} from {table} as t join {stage} as x on {match} and {same}")
    with connection.transaction():
        be_exact(connection)
        with (
            reading(entry.location, entry.sha256, connection) as reader,
            staging(connection, shape.table, shape.names, by_place=False) as stage,
        ):
            require_same_columns(shape, reader.metadata)
            for block in reader.blocks():
                stage.replace(block)
                connection.execute(
                    statement.format(
                        found=_FOUND,
                        key=key,
                        table=shape.table.identifier,
                        stage=stage.table,
                        match=same_key(shape.key, "t", "x"),
                        same=sql.SQL("{} = {}").format(row_text(shape.names, "t"), row_text(shape.names, "x")),
                    )
                    + sql.SQL(" on conflict do nothing")
                )


@contextmanager
def _found(connection: AutocommitConnection, shape: TableShape) -> Iterator[None]:
    """A temporary table of keys, each once."""
    key = sql.SQL(", ").join(map(sql.Identifier, shape.key))
    connection.execute(sql.SQL("drop table if exists {}").format(_FOUND))
    connection.execute(
        sql.SQL("create temporary table {} as select {} from {} with no data").format(
            _FOUND, key, shape.table.identifier
        )
    )
    try:
        connection.execute(sql.SQL("create unique index on {} ({})").format(_FOUND, key))
        yield
    finally:
        if not connection.closed:
            connection.execute(sql.SQL("drop table {}").format(_FOUND))


def _count(connection: AutocommitConnection, table: Relation | sql.Identifier) -> int:
    name = table.identifier if isinstance(table, Relation) else table
    row = connection.execute(sql.SQL("select count(*) from {}").format(name)).fetchone()
    assert row is not None
    return int(row[0])
