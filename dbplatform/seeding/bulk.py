"""Many rows into a table at once, for the assets that people write and for seeds: COPY, and upsert by way of COPY.

    from dbplatform.seeding.bulk import copy_rows, upsert_rows

    copy_rows(connection, "public.orders", frame)
    upsert_rows(connection, "public.orders", frame, key=["id"])

Rows are a pandas DataFrame, anything that speaks Arrow (a table, a batch, a reader, a Polars frame), or an iterable of
mappings or sequences. They stream in chunks of about a megabyte, one being sent while the next is made: memory does not
grow with their number. Figures beside ``psql \\copy`` are in ``benchmarks/load``.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import psycopg
from psycopg import sql

from dbplatform import progress
from dbplatform.postgres import catalog
from dbplatform.postgres.identifiers import Relation
from dbplatform.seeding.batches import Ascent, Rows, Source, source
from dbplatform.seeding.errors import KeyNotUnique, KeyTwice, LoadFailed, NoKey, RowsWrong

_PRIMARY_KEY = """
    select array(select a.attname::text from unnest(i.indkey::int2[]) with ordinality u(n, at)
                 join pg_attribute a on a.attrelid = i.indrelid and a.attnum = u.n order by at)
    from pg_index i where i.indrelid = to_regclass(%s) and i.indisprimary
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upserted:
    """``rows`` were given; ``written`` of them were inserted or changed a row, the others are there as they are."""

    rows: int
    written: int

    @property
    def unchanged(self) -> int:
        """Rows that the table held already, with the same values, or whose conflict was left alone."""
        return self.rows - self.written


def copy_rows(
    connection: psycopg.Connection[Any],
    table: str | Relation,
    rows: Rows,
    *,
    columns: Sequence[str] | None = None,
) -> int:
    """Append rows by COPY; gives how many.

    ``columns``: which of the rows' columns, or, for sequences, what their values are (default: the table's columns in
    their order, without generated ones). What is left out gets its default. All of it is one transaction: the
    caller's, where one is open (then inside a savepoint), else one of its own.

    Locks: ROW EXCLUSIVE on the table, as INSERT; readers and other writers go on. Strings are read by the input
    function of their column; times without a zone are of the session's. Raises ``RowsWrong``, ``TableMissing`` and
    ``LoadFailed``; then no row is kept.
    """
    relation = _relation(table)
    with _explained(relation), connection.transaction():
        given, types = _source(connection, relation, rows, columns)
        return copy_source(connection, relation.identifier, given, types, task=f"load {relation.words}")


def upsert_rows(
    connection: psycopg.Connection[Any],
    table: str | Relation,
    rows: Rows,
    *,
    key: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    keep: Sequence[str] = (),
    on_conflict: Literal["update", "nothing"] = "update",
) -> Upserted:
    """Insert rows; those whose ``key`` (default: the primary key) is there already update theirs, where it differs.

    The rows are copied into a temporary table, then go over in one ``INSERT ... ON CONFLICT``, in the order of the key,
    so that two such calls cannot wait for each other in a circle. A row that would stay the same to the byte is not
    written: no dead row, no trigger. Columns in ``keep`` are inserted, but never updated. With
    ``on_conflict="nothing"`` rows that are there stay as they are. Can be run again: the second run writes nothing.

    One transaction, as in ``copy_rows``. Locks: ROW EXCLUSIVE on the table, and the updated rows until the transaction
    ends. The server needs 64 MB for the sort, and disk for the rows once more, in a temporary table without WAL.
    Raises what ``copy_rows`` raises, ``NoKey``, ``KeyNotUnique``, and ``KeyTwice`` where two of the rows have the same
    key.
    """
    relation = _relation(table)
    with _explained(relation), connection.transaction():
        given, types = _source(connection, relation, rows, columns)
        keys = list(key) if key is not None else primary_key(connection, relation)
        if missing := [name for name in (*keys, *keep) if name not in given.columns]:
            raise RowsWrong(f"The rows have no column {missing[0]!r}, which is named as key or keep.", hint="Add it.")
        staged = make_stage(connection, relation, given.columns)
        ascent = Ascent(keys[0])
        copied = copy_source(connection, staged, given, types, task=f"stage {relation.words}", ascent=ascent)
        written = merge(
            connection,
            relation,
            staged,
            given.columns,
            keys=keys,
            keep=keep,
            on_conflict=on_conflict,
            sort=not ascent.holds,
        )
    return Upserted(rows=copied, written=written)


def make_stage(connection: psycopg.Connection[Any], table: Relation, columns: Sequence[str]) -> sql.Identifier:
    """An empty temporary table of some columns of a table, without constraints, for one transaction."""
    name = f"rows_{secrets.token_hex(8)}"
    connection.execute(
        sql.SQL("create temporary table {} on commit drop as select {} from {} with no data").format(
            sql.Identifier(name), _list(columns), table.identifier
        )
    )
    return sql.Identifier("pg_temp", name)


def primary_key(connection: psycopg.Connection[Any], table: Relation) -> list[str]:
    """The columns of the primary key in their order; raises ``NoKey``."""
    row = connection.execute(_PRIMARY_KEY, (str(table),)).fetchone()
    if row is None:
        raise NoKey(table=str(table), hint="Name the columns of a unique index: key=[...].")
    return list(row[0])


def merge(
    connection: psycopg.Connection[Any],
    table: Relation,
    staged: sql.Identifier,
    columns: Sequence[str],
    *,
    keys: Sequence[str],
    keep: Sequence[str] = (),
    on_conflict: Literal["update", "nothing"] = "update",
    sort: bool = True,
) -> int:
    """The rows of a staging table into their table, as ``upsert_rows`` says; drops it. Gives how many were written.

    ``sort`` is for rows that do not lie in the order of the key already.
    """
    changed = [name for name in columns if name not in keys and name not in keep]
    if on_conflict == "nothing" or not changed:
        action: sql.Composable = sql.SQL("nothing")
    else:
        # *<> compares the stored bytes, whatever the type: json and xml have no =, and 1.0 = 1.00. (Without the casts
        # to record it would be asked of each column by itself.)
        action = sql.SQL("update set {} where row({})::record *<> row({})::record").format(
            sql.SQL(", ").join(sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name)) for name in changed),
            sql.SQL(", ").join(sql.SQL("old.{}").format(sql.Identifier(name)) for name in changed),
            sql.SQL(", ").join(sql.SQL("excluded.{}").format(sql.Identifier(name)) for name in changed),
        )
    order = sql.SQL("order by {}").format(_list(keys)) if sort else sql.SQL("")
    statement = sql.SQL(
        "insert into {} as old ({}) overriding system value select {} from {} {} on conflict ({}) do {}"
    ).format(table.identifier, _list(columns), _list(columns), staged, order, _list(keys), action)
    try:
        with connection.transaction(), _sorting_in_memory(connection):
            written = connection.execute(statement).rowcount
    except psycopg.errors.InvalidColumnReference as error:
        raise KeyNotUnique(
            table=str(table), key=", ".join(keys), hint="Make a unique index on it, or name another key."
        ) from error
    except psycopg.errors.CardinalityViolation as error:
        twice = sql.SQL("select concat_ws(', ', {0}) from {1} group by {0} having count(*) > 1 limit 1")
        row = connection.execute(twice.format(_list(keys), staged)).fetchone()
        raise KeyTwice(
            table=str(table), example=f"({', '.join(keys)}) = ({row[0] if row else '?'})", hint="Keep one of them."
        ) from error
    connection.execute(sql.SQL("drop table {}").format(staged))
    return written


@contextmanager
def _sorting_in_memory(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """At least 64 MB of ``work_mem`` for the block: with PostgreSQL's 4 MB the sort costs more than it saves."""
    row = connection.execute(
        "select current_setting('work_mem'), pg_size_bytes(current_setting('work_mem')) < pg_size_bytes('64MB')"
    ).fetchone()
    assert row is not None
    before, is_small = row
    if is_small:
        connection.execute("set local work_mem = '64MB'")
    yield
    connection.execute("select set_config('work_mem', %s, true)", (before,))


def advance_sequences(connection: psycopg.Connection[Any], table: Relation, columns: Sequence[str]) -> None:
    """Set the sequences behind loaded columns beyond their values, so that the next insert finds a free one."""
    for name in columns:
        row = connection.execute(
            "select pg_get_serial_sequence(%s, %s)::regclass::oid::int8", (str(table), name)
        ).fetchone()
        if row is not None and row[0] is not None:
            connection.execute(
                sql.SQL(
                    "select setval({sequence}::oid::regclass,"
                    " greatest(max({column}), coalesce(pg_sequence_last_value({sequence}::oid::regclass), 0)))"
                    " from {table} having max({column}) > 0"
                ).format(sequence=sql.Literal(row[0]), column=sql.Identifier(name), table=table.identifier)
            )


def _relation(table: str | Relation) -> Relation:
    if isinstance(table, Relation):
        return table
    try:
        return Relation.parse(table)
    except ValueError as error:
        raise RowsWrong(f"The table cannot be found: {error}.") from error


def _source(
    connection: psycopg.Connection[Any], table: Relation, rows: Rows, columns: Sequence[str] | None
) -> tuple[Source, dict[str, str]]:
    catalog.require_table(connection, table)
    found = catalog.columns(connection, table)
    types = {column.name: column.type for column in found}
    given = source(rows, columns, [column.name for column in found if not column.generated])
    if unknown := [name for name in given.columns if name not in types]:
        raise RowsWrong(
            f"The table {table} has no column {unknown[0]!r}; it has {', '.join(types)}.",
            hint="Pick the columns to load: columns=[...].",
        )
    return given, types


def copy_source(
    connection: psycopg.Connection[Any],
    target: sql.Composable,
    given: Source,
    types: dict[str, str],
    *,
    task: str,
    ascent: Ascent | None = None,
) -> int:
    """COPY into a table or its staging table; gives how many rows the server took."""
    statement = sql.SQL("copy {} ({}) from stdin (format csv, encoding 'UTF8')").format(target, _list(given.columns))
    rows = 0
    with connection.cursor() as cursor:
        with cursor.copy(statement) as copy, _sending(connection, copy.write) as send:
            for text, count in given.texts(connection, types, ascent):
                send(text)
                rows += count
                progress.report(task, done=rows, unit="rows")
        progress.report(task, done=rows, total=rows, unit="rows")
        return cursor.rowcount


@contextmanager
def _sending(
    connection: psycopg.Connection[Any], write: Callable[[memoryview], None]
) -> Iterator[Callable[[memoryview], None]]:
    """A function that sends a chunk while its caller makes the next one, so that neither side waits for the other.

    One chunk is under way at most. The block ends when the last one is sent; where it ends by an error while the server
    keeps a chunk waiting (for another session's row, say), the server is told to give up.
    """
    with ThreadPoolExecutor(max_workers=1) as thread:
        under_way: Future[None] | None = None

        def send(text: memoryview) -> None:
            nonlocal under_way
            if under_way is not None:
                under_way.result()
            under_way = thread.submit(write, text)

        try:
            yield send
            if under_way is not None:
                under_way.result()
        except BaseException:
            if under_way is not None and not under_way.done():
                connection.cancel_safe()
            raise


def _list(names: Sequence[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, names))


@contextmanager
def _explained(table: Relation) -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        if error.sqlstate is None or error.sqlstate.startswith("57P"):
            raise  # the session is lost: no matter of these rows
        where = (error.diag.context or "").splitlines()[:1]
        reason = "; ".join(
            part.rstrip(".")
            for part in (error.diag.message_primary or str(error), error.diag.message_detail, *where)
            if part
        )
        raise LoadFailed(
            table=str(table), reason=reason, hint="Nothing was kept: mend the rows or the table, then load again."
        ) from error
