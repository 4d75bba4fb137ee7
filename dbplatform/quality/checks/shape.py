"""Checks on the shape of a table, answered by the catalog."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psycopg import sql
from pydantic import Field

from dbplatform.postgres.catalog import columns
from dbplatform.postgres.connection import SnapshotConnection
from dbplatform.postgres.identifiers import Relation
from dbplatform.postgres.words import ColumnName
from dbplatform.quality.checks.base import Check, Outcome, Text, check_type


@check_type
class Schema(Check):
    """The table has these columns with these types. Other columns may be there, too.

    A type is written as ``format_type`` writes it (``character varying(10)``) or by an alias (``varchar(10)``,
    ``int8``, ``timestamptz(3)``); a length that is left out is not any length. A name that is no type has errored.
    """

    type = "schema"
    no_sample = "it reads no rows"
    reads_rows = False
    example = "schema: {columns: {tailnum: text}}"

    columns: dict[ColumnName, Text] = Field(min_length=1)

    @property
    def columns_read(self) -> tuple[str, ...]:
        """None: the values do not matter."""
        return ()

    def own(self, connection: SnapshotConnection, relation: Relation) -> Sequence[Any]:
        """For each declared column: its name, the type wanted (none: no such type), the type found."""
        found = {column.name: column.type for column in columns(connection, relation)}
        return [(name, text, _canonical(connection, text), found.get(name)) for name, text in self.columns.items()]

    def judge(self, relation: Relation, fused: Sequence[Any], own: Sequence[Any]) -> Outcome:
        """Failed when a column is missing or of another type."""
        unknown = [text for _, text, wanted, _ in own if wanted is None]
        if unknown:
            return Outcome(status="errored", message=f"there is no type named {', '.join(unknown)}.")
        wrong = [
            f"{name} is missing" if found is None else f"{name} is {found}, not {wanted}"
            for name, _, wanted, found in own
            if found != wanted
        ]
        if wrong:
            return Outcome(status="failed", message=f"{'; '.join(wrong)}.")
        return Outcome(status="passed", message=f"{len(own)} columns have their declared types.")


def _canonical(connection: SnapshotConnection, text: str) -> str | None:
    """The type with its modifier as ``format_type`` writes it; none when there is no such type.

    ``to_regtype`` accepts nothing but one type name, so that a text which it knows can stand in a cast; the modifier
    can only be read from the cast's description before PostgreSQL 17.
    """
    known = connection.execute("select to_regtype(%s) is not null", (text,)).fetchone()
    if known is None or not known[0]:
        return None
    cast = connection.execute(sql.SQL("select null::{} where false").format(sql.SQL(text)), binary=True)
    assert cast.pgresult is not None
    row = connection.execute(
        """
        select format_type(t.oid, case when t.typtype = 'd' then null else %s end)
        from pg_type t where t.oid = to_regtype(%s)
        """,
        (cast.pgresult.fmod(0), text),
    ).fetchone()
    return None if row is None else str(row[0])
