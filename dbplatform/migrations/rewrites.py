"""Whether an ALTER COLUMN TYPE rewrites its table: seen on an empty copy of the table, not guessed from the types.

PostgreSQL (manual, ALTER TABLE, Notes) rewrites the table and its indexes under ACCESS EXCLUSIVE unless the old type
can be read as the new one, such as ``varchar(10)`` as ``text``; it does so for an empty table too.
"""

from __future__ import annotations

import psycopg
from psycopg import sql

from dbplatform.migrations.classify import Retyped, retyped
from dbplatform.migrations.statements import Statement, Verbatim
from dbplatform.postgres.connection import AnyConnection


def rewrites(connection: AnyConnection, statement: Statement) -> bool | None:
    """Whether a type that the statement changes makes PostgreSQL write its table anew; None where nothing shows it.

    Nothing shows it while the table does not exist. What fails on the copy is taken for a rewrite. The copy is
    temporary and rolled back; ACCESS SHARE on the table meanwhile.
    """
    seen = [_rewrites(connection, statement, change) for change in retyped(statement)]
    if any(seen):
        return True
    return None if None in seen else False


def _rewrites(connection: AnyConnection, statement: Statement, change: Retyped) -> bool | None:
    table = sql.Identifier(*change.table)
    row = connection.execute("select to_regclass(%s)", (table.as_string(connection),)).fetchone()
    if row is None or row[0] is None:
        return None
    begin, end = change.span
    alter = sql.SQL("alter table pg_temp.dbplatform_type_shape {}").format(Verbatim(statement.sql[begin:end]))
    try:
        with connection.transaction(force_rollback=True):
            connection.execute(sql.SQL("create temporary table dbplatform_type_shape (like {})").format(table))
            before = _file(connection)
            connection.execute(alter, prepare=False)
            return _file(connection) != before
    except psycopg.Error:
        return True


def _file(connection: AnyConnection) -> int:
    row = connection.execute("select pg_relation_filenode('pg_temp.dbplatform_type_shape'::regclass)").fetchone()
    assert row is not None
    return int(row[0])
