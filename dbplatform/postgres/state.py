"""The schema ``dbplatform`` of a managed database: marks that must commit together with the change they speak of.

Results and history belong into the ledger; here lies only what a killed run needs to find out where it stood. Each
capability keeps its own tables in this schema, by ``ensure_state`` with its own DDL.
"""

from __future__ import annotations

from psycopg import sql

from dbplatform.postgres.connection import AutocommitConnection
from dbplatform.postgres.locks import advisory_lock

SCHEMA = "dbplatform"


def ensure_state(connection: AutocommitConnection, table: str, ddl: str) -> None:
    """Create the schema and ``table`` in it by ``ddl`` when it is missing; a no-op costs one look into the catalog.

    Safe when two sessions do it at once. Takes no lock on any table that already exists.
    """
    name = f"{SCHEMA}.{table}"
    if _exists(connection, name):
        return
    with advisory_lock(connection, "state"):
        if not _exists(connection, name):
            with connection.transaction():
                # CREATE SCHEMA IF NOT EXISTS needs the right to create schemas even where the schema exists.
                row = connection.execute("select to_regnamespace(%s) is null", (SCHEMA,)).fetchone()
                if row is not None and row[0]:
                    connection.execute(sql.SQL("create schema {}").format(sql.Identifier(SCHEMA)))
                connection.execute(ddl.encode())


def _exists(connection: AutocommitConnection, name: str) -> bool:
    row = connection.execute("select to_regclass(%s) is not null", (name,)).fetchone()
    return row is not None and bool(row[0])
