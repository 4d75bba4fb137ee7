"""How far a conversion has come: one row in the managed database, from its first change until it is undone.

A phase that has a transaction commits with its mark. The one that has none, an index built concurrently, is looked up
in the catalog and marked behind it.
"""

from __future__ import annotations

from dataclasses import dataclass

from dbplatform.postgres.connection import AnyConnection, AutocommitConnection
from dbplatform.postgres.identifiers import Relation
from dbplatform.postgres.state import ensure_state

TABLE = "partition_conversion"

_DDL = """
    create table dbplatform.partition_conversion (
        table_name text primary key,
        plain_oid oid not null,
        column_name text not null,
        bound text not null,
        key_name text,
        key_columns text[],
        phase text not null,
        undoing boolean not null default false,
        changed_at timestamptz not null default now()
    );
    comment on table dbplatform.partition_conversion is
        'Tables that partition convert works on or has converted: the last phase that is done.';
"""
_READ = """
    select plain_oid::bigint, column_name, bound, key_name, key_columns, phase, undoing
    from dbplatform.partition_conversion where table_name = %s
"""
_BEGIN = """
    insert into dbplatform.partition_conversion
        (table_name, plain_oid, column_name, bound, key_name, key_columns, phase)
    values (%s, %s, %s, %s, %s, %s, %s)
"""
_MOVE = """
    update dbplatform.partition_conversion set phase = %s, undoing = %s, changed_at = now() where table_name = %s
"""
_CLEAR = "delete from dbplatform.partition_conversion where table_name = %s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One conversion; ``key`` and ``key_columns`` are the primary key before it was extended, None where it is not."""

    plain_oid: int
    column: str
    bound: str
    key: str | None
    key_columns: tuple[str, ...]
    phase: str
    undoing: bool = False


def ensure_marks(connection: AutocommitConnection) -> None:
    """Make the table of the marks where it is missing."""
    ensure_state(connection, TABLE, _DDL)


def read_mark(connection: AnyConnection, table: Relation) -> Mark | None:
    """The conversion of a table, if there is one. Only reads."""
    row = connection.execute("select to_regclass('dbplatform.partition_conversion') is not null").fetchone()
    if row is None or not row[0]:
        return None
    found = connection.execute(_READ, (str(table),)).fetchone()
    if found is None:
        return None
    oid, column, bound, key, key_columns, phase, undoing = found
    return Mark(
        plain_oid=oid,
        column=column,
        bound=bound,
        key=key,
        key_columns=tuple(key_columns or ()),
        phase=phase,
        undoing=undoing,
    )


def begin(connection: AnyConnection, table: Relation, mark: Mark) -> None:
    """The first phase is done."""
    columns = list(mark.key_columns) or None
    values = (str(table), mark.plain_oid, mark.column, mark.bound, mark.key, columns, mark.phase)
    connection.execute(_BEGIN, values)


def move(connection: AnyConnection, table: Relation, phase: str, *, undoing: bool = False) -> None:
    """The phase is done."""
    connection.execute(_MOVE, (phase, undoing, str(table)))


def clear(connection: AnyConnection, table: Relation) -> None:
    """The table is plain again."""
    connection.execute(_CLEAR, (str(table),))
