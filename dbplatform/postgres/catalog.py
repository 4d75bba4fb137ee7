"""Questions to PostgreSQL's catalog that several capabilities ask. Everything here only reads."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from psycopg import sql

from dbplatform.errors import UsageError
from dbplatform.postgres.connection import AnyConnection
from dbplatform.postgres.identifiers import Relation


class TableMissing(UsageError):
    """The table {table} does not exist in the database {database}."""


_ANY_TABLE = """
    select from pg_tables
    where schemaname !~ '^pg_' and schemaname not in ('information_schema', 'dbplatform') limit 1
"""
_FILE_SETTINGS = """
    select has_table_privilege('pg_file_settings', 'select')
           and has_function_privilege('pg_show_all_file_settings()', 'execute')
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column: its type as ``format_type`` writes it (``character varying(10)``)."""

    name: str
    type: str
    not_null: bool
    generated: bool
    comment: str | None


def table_exists(connection: AnyConnection, relation: Relation) -> bool:
    """Whether there is a plain or partitioned table of that name."""
    return _kind(connection, relation) in ("r", "p")


def has_tables(connection: AnyConnection) -> bool:
    """Whether there is a table of anybody but the platform."""
    return connection.execute(_ANY_TABLE).fetchone() is not None


def is_partitioned(connection: AnyConnection, relation: Relation) -> bool:
    """Whether the relation is a partitioned table."""
    return _kind(connection, relation) == "p"


def require_table(connection: AnyConnection, relation: Relation) -> None:
    """Raise ``TableMissing``, with names that come close, unless the relation is a table."""
    if table_exists(connection, relation):
        return
    near = connection.execute(
        """
        select format('%%I.%%I', n.nspname, c.relname)
        from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where c.relkind in ('r', 'p') and not c.relispartition
          and n.nspname not in ('pg_catalog', 'information_schema', 'pg_toast')
        order by n.nspname = %s desc, c.relname = %s desc, c.relname
        limit 8
        """,
        (relation.schema, relation.name),
    ).fetchall()
    hint = f"It has: {', '.join(row[0] for row in near)}." if near else "It has no tables yet: apply its migrations."
    raise TableMissing(table=str(relation), database=connection.info.dbname, hint=hint)


def columns(connection: AnyConnection, relation: Relation) -> list[Column]:
    """The columns of a table or view in their order."""
    rows = connection.execute(
        """
        select a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
               a.attgenerated <> '' or a.attidentity = 'a', col_description(a.attrelid, a.attnum)
        from pg_attribute a
        join pg_class c on c.oid = a.attrelid
        join pg_namespace n on n.oid = c.relnamespace
        where n.nspname = %s and c.relname = %s and a.attnum > 0 and not a.attisdropped
        order by a.attnum
        """,
        (relation.schema, relation.name),
    ).fetchall()
    return [
        Column(name=name, type=type_, not_null=not_null, generated=generated, comment=comment)
        for name, type_, not_null, generated, comment in rows
    ]


def row_count(connection: AnyConnection, relation: Relation) -> int:
    """The exact number of rows: reads the table, or an index of it."""
    row = connection.execute(sql.SQL("select count(*) from {}").format(relation.identifier)).fetchone()
    assert row is not None
    return int(row[0])


def content_hash(connection: AnyConnection, relation: Relation, *, leave_out: tuple[str, ...] = ()) -> str:
    """A hash of all rows of a table, whatever their order: equal content, equal hash (32 hexadecimal digits).

    Reads the whole table. Columns enter in the order of their names, so that a table rebuilt with another order is the
    same; columns in ``leave_out`` do not enter. Two 64-bit sums over the rows' text forms and the row count are hashed.
    """
    return count_and_hash(connection, relation, leave_out=leave_out)[1]


def count_and_hash(
    connection: AnyConnection,
    relation: Relation,
    *,
    leave_out: tuple[str, ...] = (),
    where: sql.Composable | None = None,
) -> tuple[int, str]:
    """The number of rows and ``content_hash``, by reading the table once; of the rows that fulfil ``where``."""
    names = sorted(c.name for c in columns(connection, relation) if c.name not in leave_out)
    row_text = sql.SQL("row({})::text").format(sql.SQL(", ").join(map(sql.Identifier, names)))
    query = sql.SQL(
        "select count(*), coalesce(sum(hashtextextended(t, 0)::numeric), 0), "
        "coalesce(sum(hashtextextended(t, 1)::numeric), 0) from (select {} from {} where {}) as rows(t)"
    ).format(row_text, relation.identifier, where or sql.SQL("true"))
    row = connection.execute(query).fetchone()
    assert row is not None
    return int(row[0]), hashlib.sha256(repr(row).encode()).hexdigest()[:32]


def may_read_file_settings(connection: AnyConnection) -> bool:
    """Whether the user may read ``pg_file_settings``.

    The view alone is not enough: ``pg_read_all_data`` has it, and not the function behind it.
    """
    row = connection.execute(_FILE_SETTINGS).fetchone()
    return row is not None and bool(row[0])


def _kind(connection: AnyConnection, relation: Relation) -> str | None:
    row = connection.execute(
        """
        select c.relkind::text from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where n.nspname = %s and c.relname = %s
        """,
        (relation.schema, relation.name),
    ).fetchone()
    return None if row is None else str(row[0])
