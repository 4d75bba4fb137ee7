"""A statement with parameters, as ``pg_stat_statements`` keeps it, prepared by the server: asked for its plan, it needs
no values. Source: PostgreSQL manual, "PREPARE", "Message Flow" (extended query).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from psycopg import RawCursor, sql
from psycopg.pq import TransactionStatus

from dbplatform.postgres.connection import AutocommitConnection

_PARAMETER = re.compile(r"\$\d+")
#: ``interval $1`` is how the extension writes ``interval '1 day'``; PostgreSQL itself does not read it.
_TYPED_PARAMETER = re.compile(r"\b(interval|date|timestamptz|timestamp|time)\s+(\$\d+)", re.IGNORECASE)
_NAME = "dbplatform_explained"
_COUNTED = """
declare plan text;
begin
    execute {} into plan;
    perform set_config('dbplatform.plan_bytes', octet_length(plan)::text, true);
exception when others then
    raise exception using errcode = sqlstate, message = left(sqlerrm, 200);
end
"""


def readable(query: str) -> str:
    """The statement as PostgreSQL itself reads it, without a semicolon at its end."""
    return _TYPED_PARAMETER.sub(r"\2::\1", query.strip().rstrip(";"))


def has_parameters(query: str) -> bool:
    """Whether there is a ``$1`` in it."""
    return _PARAMETER.search(query) is not None


def alone(cursor: RawCursor[Any], statement: str) -> RawCursor[Any]:
    """Run one statement. That rows are asked for in binary makes psycopg use the extended protocol, by which the server
    itself refuses two statements in one text; without it "select 1; delete from t" would be both."""
    return cursor.execute(statement.encode(), [], binary=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A prepared statement of the session, with the types of its parameters."""

    connection: AutocommitConnection
    types: tuple[str, ...]

    def explain(self, options: str, values: Sequence[str | None] | None = None) -> list[Any]:
        """The rows of EXPLAIN with these options; left out values are NULL, which a generic plan does not look at."""
        return [row[0] for row in self.connection.execute(self._asked(options, values)).fetchall()]

    def plan_bytes(self) -> int:
        """How large its plan is as JSON, which is the longest form; counted by the server, so that nothing of it comes.

        The server keeps the plan for ``explain`` where it is a generic one. An error comes without more than 200
        characters. Needs PL/pgSQL, which every database has unless somebody has taken it away.
        """
        block = sql.SQL(_COUNTED).format(sql.Literal(self._asked("format json", None).as_string(self.connection)))
        self.connection.execute(sql.SQL("do {}").format(sql.Literal(block.as_string(self.connection))))
        row = self.connection.execute("select current_setting('dbplatform.plan_bytes')::bigint").fetchone()
        assert row is not None
        return int(row[0])

    def _asked(self, options: str, values: Sequence[str | None] | None) -> sql.Composed:
        given: Sequence[str | None] = [None] * len(self.types) if values is None else values
        asked = sql.SQL("explain ({}) execute {}").format(_plain(options), sql.Identifier(_NAME))
        if given:
            asked += sql.SQL("({})").format(sql.SQL(", ").join(sql.Literal(value) for value in given))
        return asked


def _plain(options: str) -> sql.Composed:
    """Options are words of this code: letters, separated by commas."""
    return sql.SQL(", ").join(
        sql.SQL(" ").join(sql.Identifier(word) if at == 0 else sql.Literal(word) for at, word in enumerate(one.split()))
        for one in options.split(",")
    )


@contextmanager
def prepared(connection: AutocommitConnection, query: str) -> Iterator[Prepared]:
    """The statement, prepared for the block. Takes the locks of its parsing. Raises what PostgreSQL answers."""
    # One stays behind in the session where its EXPLAIN failed: a prepared statement does not go with its transaction.
    if connection.execute("select from pg_prepared_statements where name = %s", (_NAME,)).fetchone() is not None:
        connection.execute(sql.SQL("deallocate {}").format(sql.Identifier(_NAME)))
    with RawCursor(connection) as cursor:
        alone(cursor, f"prepare {_NAME} as {readable(query)}")
    try:
        row = connection.execute(
            "select parameter_types::text[] from pg_prepared_statements where name = %s", (_NAME,)
        ).fetchone()
        assert row is not None
        yield Prepared(connection=connection, types=tuple(row[0] or ()))
    finally:
        if connection.info.transaction_status != TransactionStatus.INERROR:
            connection.execute(sql.SQL("deallocate {}").format(sql.Identifier(_NAME)))


def force_generic(connection: AutocommitConnection) -> None:
    """From here to the end of the transaction a prepared statement has the plan that holds for any value."""
    connection.execute("set local plan_cache_mode = force_generic_plan")
