"""CREATE INDEX CONCURRENTLY, and what a killed run of it leaves behind.

PostgreSQL (manual, CREATE INDEX, "Building Indexes Concurrently"): a build that fails or is killed leaves an invalid
index of the name, which costs every write and serves no query, and which IF NOT EXISTS then takes for the index.
"""

from __future__ import annotations

from pathlib import Path

from psycopg import sql

from dbplatform.migrations.classify import ConcurrentIndex, concurrent_index
from dbplatform.migrations.errors import IndexInTheWay
from dbplatform.migrations.statements import Statement, Verbatim
from dbplatform.postgres.connection import AutocommitConnection

_FIND = """
    select n.nspname, i.indexrelid is not null and i.indrelid = t.oid, coalesce(i.indisvalid, true),
           p.pid, pg_get_indexdef(i.indexrelid)
    from pg_class t
    join pg_namespace n on n.oid = t.relnamespace
    join pg_class c on c.relnamespace = t.relnamespace and c.relname = %s
    left join pg_index i on i.indexrelid = c.oid
    left join pg_stat_progress_create_index p on p.index_relid = c.oid
    where t.oid = to_regclass(%s)
"""


def prepare(connection: AutocommitConnection, statement: Statement, file: Path) -> bool:
    """Look at what an earlier run left of this statement; whether its work is done already, so that it must not run.

    For ``CREATE INDEX CONCURRENTLY``: a valid index of that name and definition on that table is its work done; an
    invalid one is dropped concurrently, to be built again. Raises ``IndexInTheWay`` when the name is taken by something
    else, or when another session builds it. Other statements are not judged here: see ``reconcile``.
    """
    index = concurrent_index(statement)
    if index is None or index.name is None:
        return False
    parts = [part for part in (index.table_schema, index.table) if part is not None]
    table = sql.Identifier(*parts).as_string(connection)
    found = connection.execute(_FIND, (index.name, table)).fetchone()
    if found is None:
        return False
    schema, on_table, valid, builder, definition = found
    if not on_table:
        raise IndexInTheWay(
            f"{index.name} exists already in the schema {schema}, and is no index of {index.table}.",
            hint="Give the index another name.",
            file=file,
            line=statement.line,
        )
    if builder is not None:
        raise IndexInTheWay(
            f"Backend {builder} is building the index {index.name}.",
            hint="Wait for it, or end it, and apply again.",
            file=file,
            line=statement.line,
        )
    if not valid:
        connection.execute(sql.SQL("drop index concurrently if exists {}").format(sql.Identifier(schema, index.name)))
        return False
    expected = _definition(connection, statement, index)
    if _shape(definition) != _shape(expected):
        raise IndexInTheWay(
            f"The index {index.name} exists already with another definition: {definition}.",
            hint="Drop or rename it, or give the new one another name.",
            file=file,
            line=statement.line,
        )
    return True


def _definition(connection: AutocommitConnection, statement: Statement, index: ConcurrentIndex) -> str:
    """What the statement would build, as the catalog words it: built on an empty copy of the table, rolled back."""
    begin, end = index.table_span
    head = [token.value for token in statement.tokens if token.end <= begin and token.kind == "word"]
    table = sql.Identifier(*[part for part in (index.table_schema, index.table) if part is not None])
    build = sql.SQL("create {unique} index dbplatform_index_shape on pg_temp.dbplatform_table_shape {rest}").format(
        unique=sql.SQL("unique" if "unique" in head[:2] else ""),
        # The file's own words, which may hold anything that SQL may.
        rest=Verbatim(statement.sql[end:]),
    )
    with connection.transaction(force_rollback=True):
        connection.execute(sql.SQL("create temporary table dbplatform_table_shape (like {})").format(table))
        connection.execute(build, prepare=False)
        row = connection.execute("select pg_get_indexdef('pg_temp.dbplatform_index_shape'::regclass)").fetchone()
    assert row is not None
    return str(row[0])


def _shape(definition: str) -> tuple[bool, str]:
    """The definition without the names of index and table."""
    head, _, tail = definition.partition(" USING ")
    return "UNIQUE" in head.split()[:2], tail
