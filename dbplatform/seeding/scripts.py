"""Seeds of plain SQL. A script runs inside the transaction of its tables, and the server itself holds it there."""

from __future__ import annotations

import psycopg

from dbplatform.postgres.connection import AutocommitConnection

# What EXECUTE runs may neither commit nor COPY from the client: PostgreSQL refuses both (PL/pgSQL, "Transaction
# Management"), whatever quotes and comments the script has. A setting hands the script over without quoting it.
_RUN = "do $$ begin execute current_setting('dbplatform.seed_script'); end $$"


def run_script(connection: AutocommitConnection, text: str) -> None:
    """Run the statements of a script, inside an open transaction; raises psycopg's errors."""
    connection.execute("select set_config('dbplatform.seed_script', %s, true)", (text,))
    connection.execute(_RUN)


def script_line(error: psycopg.Error, text: str) -> int | None:
    """The line of the script that an error points at, where it points at one."""
    position = error.diag.internal_position
    if position is None or error.diag.internal_query != text:
        return None
    return text.count("\n", 0, int(position) - 1) + 1
