"""Whether a partition may go: is every row that it holds in a file that was read back? Only reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from psycopg import sql
from psycopg.pq import TransactionStatus

from dbplatform.archiving import records
from dbplatform.archiving.catalogue import ArchiveEntry, list_archives
from dbplatform.archiving.content import RowSums, be_exact, find_by_key, row_text, same_key, same_row, sums_of
from dbplatform.archiving.errors import ArchiveDamaged, ArchiveTableChanged
from dbplatform.archiving.kept import reading
from dbplatform.archiving.shape import TableShape, in_order, read_shape
from dbplatform.archiving.staging import staging
from dbplatform.archiving.verify import require_same_columns
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.connection import AnyConnection, AutocommitConnection
from dbplatform.postgres.identifiers import Relation

#: While rows are compared: the key of each row that was found, once, and the archive and the place where it was.
FOUND = sql.Identifier("pg_temp", "dbplatform_found")


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
    equal: bool = False
    """The one file holds exactly these rows: they were compared by their sums, and ``FOUND`` is empty."""

    @property
    def whole(self) -> bool:
        """Whether dropping the partition would lose nothing; an empty one holds nothing to lose."""
        return self.rows == self.archived


def archived_whole(
    connection: AutocommitConnection, ledger: Ledger, *, database: str, table: Relation, partition: Relation
) -> PartitionStanding:
    """Compare the rows of ``partition``, attached or detached, with the archives of ``table``, by key and contents.

    A file counts when it was read back after its export and its SHA-256 is still the recorded one. The answer holds as
    long as nobody writes to the partition: ask once it is detached, or inside a transaction that holds SHARE on it.
    """
    read_back = [e for e in list_archives(ledger, database) if e.table == str(table) and e.status != "exported"]
    with compared(connection, read_back, partition) as standing:
        return standing


@contextmanager
def compared(
    connection: AutocommitConnection, entries: Sequence[ArchiveEntry], partition: Relation
) -> Iterator[PartitionStanding]:
    """How many rows of ``partition`` lie in these archives; ``FOUND`` is there during the block where it has rows.

    One file that holds as many rows with the same sums over all of their contents holds these rows. Otherwise files are
    read in the given order, until every row is found by its key and contents. A row that an archive has marked as kept
    in the table does not count as archived by it. ACCESS SHARE; a temporary table. Raises what ``read_shape`` raises,
    ``NoKey`` only where the partition holds rows.
    """
    rows = count_rows(connection, partition)
    used: list[ArchiveEntry] = []
    problems: list[str] = []
    archived = 0
    if not rows:
        yield PartitionStanding(partition=str(partition), rows=0, archived=0, archives=(), problems=())
        return
    shape = read_shape(connection, partition)
    with _found(connection, shape):
        twin = _twin(connection, entries, shape, rows)
        if twin is not None:
            used, archived = [twin], rows
        for entry in entries:
            if archived == rows:
                break
            try:
                _find(connection, shape, entry)
            except (ArchiveDamaged, ArchiveTableChanged) as error:
                problems.append(error.message)
            before, archived = archived, count_rows(connection, FOUND)
            if archived > before:
                used.append(entry)
        yield PartitionStanding(
            partition=str(partition),
            rows=rows,
            archived=archived,
            archives=tuple(used),
            problems=tuple(problems),
            equal=twin is not None,
        )


def count_rows(connection: AnyConnection, table: Relation | sql.Identifier) -> int:
    """The exact number of rows: an error rather than fewer, where row-level security would hide some."""
    name = table.identifier if isinstance(table, Relation) else table
    with connection.transaction():
        be_exact(connection)
        row = connection.execute(sql.SQL("select count(*) from {}").format(name)).fetchone()
    assert row is not None
    return int(row[0])


def _twin(
    connection: AutocommitConnection, entries: Sequence[ArchiveEntry], shape: TableShape, rows: int
) -> ArchiveEntry | None:
    """The archive that holds exactly the rows of the table, by its recorded sums and a file that is still the same."""
    candidates = [entry for entry in entries if entry.rows == rows and not entry.kept]
    if not candidates:
        return None
    statement = sql.SQL("select {} from (select {} from {} as t offset 0) as rows (text)").format(
        sums_of(sql.SQL("text"), sql.SQL("true")), row_text(sorted(shape.names), "t"), shape.table.identifier
    )
    with connection.transaction():
        be_exact(connection)
        row = connection.execute(statement).fetchone()
    assert row is not None
    sums = RowSums(rows=row[0], first=row[1], second=row[2])
    for entry in candidates:
        if entry.content_hash == sums.hash:
            try:
                with reading(entry.location, entry.sha256, connection):
                    return entry
            except ArchiveDamaged:
                continue  # named when its rows are looked for
    return None


def _find(connection: AutocommitConnection, shape: TableShape, entry: ArchiveEntry) -> None:
    """Remember where the file holds rows of the table as they are; nothing where the file ends in an error."""
    key = sql.SQL(", ").join(sql.SQL("t.{}").format(sql.Identifier(name)) for name in shape.key)
    statement = sql.SQL(
        "insert into {found} select {key}, {archive}::uuid, {place} from {table} as t join {stage} as x"
        " on {match} and {same} where {left} on conflict do nothing"
    )
    with connection.transaction():
        be_exact(connection)
        find_by_key(connection)
        with ExitStack() as stack:
            reader = stack.enter_context(reading(entry.location, entry.sha256, connection))
            shape = in_order(shape, [column.name for column in reader.metadata.columns])
            # Any key will do, because all of the contents are compared.
            require_same_columns(replace(shape, key=reader.metadata.key), reader.metadata)
            stage = stack.enter_context(staging(connection, shape.table, shape.names, by_place=False))
            for block in reader.blocks():
                stage.replace(block)
                connection.execute(
                    statement.format(
                        found=FOUND,
                        key=key,
                        archive=sql.Literal(str(entry.id)),
                        place=stage.ordinal,
                        table=shape.table.identifier,
                        stage=stage.table,
                        match=same_key(shape.key, "t", "x"),
                        same=same_row(shape.names, "t", "x"),
                        left=records.not_kept(connection, entry.id, stage.ordinal),
                    )
                )


@contextmanager
def _found(connection: AutocommitConnection, shape: TableShape) -> Iterator[None]:
    """An empty table ``FOUND``."""
    key = sql.SQL(", ").join(map(sql.Identifier, shape.key))
    drop = sql.SQL("drop table if exists {}").format(FOUND)
    connection.execute(drop)
    connection.execute(
        sql.SQL(
            "create temporary table {} as select {}, null::uuid as dbplatform_archive, 0::bigint as dbplatform_place"
            " from {} with no data"
        ).format(FOUND, key, shape.table.identifier)
    )
    try:
        connection.execute(sql.SQL("create unique index on {} ({})").format(FOUND, key))
        yield
    finally:
        if not connection.closed and connection.info.transaction_status != TransactionStatus.INERROR:
            connection.execute(drop)
