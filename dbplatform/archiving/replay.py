"""Erases again, in a database that was restored from an older copy, what was erased on purpose since.

Rows that refer to them are erased along, downwards, unless their foreign key says SET NULL or SET DEFAULT: when the
rows were erased none referred to them any more, so that those which do in the copy had gone before.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg import sql

from dbplatform.archiving import erasures
from dbplatform.archiving.content import be_exact
from dbplatform.archiving.erasures import Erasure
from dbplatform.archiving.errors import ReplayFailed
from dbplatform.archiving.parquet import first_line
from dbplatform.archiving.shape import read_references
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.catalog import table_exists
from dbplatform.postgres.connection import AutocommitConnection
from dbplatform.postgres.identifiers import Relation


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayReport:
    """How many rows of each table were erased again, those that referred to them under their own tables."""

    erasures: int
    rows: dict[str, int]

    def as_json(self) -> dict[str, Any]:
        """The document of ``archive replay --json``, but for the database."""
        return {"erasures": self.erasures, "tables": [{"table": name, "rows": n} for name, n in self.rows.items()]}


def replay(
    connection: AutocommitConnection,
    ledger: Ledger,
    database: str,
    *,
    since: datetime | None = None,
    dry_run: bool = False,
) -> ReplayReport:
    """Erase what this copy of ``database`` holds of rows that were erased since it was made, in one transaction.

    ROW EXCLUSIVE on their tables, row locks; triggers fire. A copy that has seen an erasure is left alone by it, and by
    those that were done before ``since``. With ``dry_run`` all of it is rolled back. Raises ``ReplayFailed``: then
    nothing was erased.
    """
    known = erasures.seen(connection)
    missing = [one for one in erasures.listed(ledger, database, since=since) if one.id not in known]
    rows: dict[str, int] = {}
    if missing:
        erasures.ensure_seen(connection)
        with connection.transaction(force_rollback=dry_run):
            be_exact(connection)
            for group in erasures.alike(missing):
                with erasures.loaded(connection, ledger, group) as erasure:
                    _erase(connection, erasure, rows)
                for one in group:
                    erasures.see(connection, one, 0)
    return ReplayReport(erasures=len(missing), rows=rows)


def _erase(connection: AutocommitConnection, erasure: Erasure, rows: dict[str, int]) -> None:
    table = Relation.parse(erasure.table)
    if not table_exists(connection, table):
        return
    try:
        _delete(connection, table, erasure.names("t"), "t", frozenset({table}), rows)
        left = connection.execute(
            sql.SQL("select count(*) from {} as t where {}").format(table.identifier, erasure.names("t"))
        ).fetchone()
    except (psycopg.ProgrammingError, psycopg.IntegrityError) as error:
        raise _failed(table, first_line(error)) from error
    if left is not None and left[0]:
        raise _failed(table, f"{left[0]} rows were kept by a trigger, a rule or row-level security")


def _delete(
    connection: AutocommitConnection,
    table: Relation,
    condition: sql.Composed,
    alias: str,
    above: Iterable[Relation],
    rows: dict[str, int],
) -> None:
    """Delete the rows ``alias`` that fulfil the condition, and before them those that refer to them."""
    row = connection.execute(
        "select to_regclass(%s)::oid::bigint", (table.identifier.as_string(connection),)
    ).fetchone()
    assert row is not None
    for reference in read_references(connection, row[0]):
        if reference.lets_go or reference.child in above:
            continue
        child = f"{alias}_"
        refers = sql.SQL("exists (select from {} as {} where {} and {})").format(
            table.identifier, sql.Identifier(alias), reference.joins(child, alias), condition
        )
        _delete(connection, reference.child, refers, child, {*above, reference.child}, rows)
    deleted = connection.execute(
        sql.SQL("delete from {} as {} where {}").format(table.identifier, sql.Identifier(alias), condition)
    ).rowcount
    if deleted:
        rows[str(table)] = rows.get(str(table), 0) + deleted


def _failed(table: Relation, reason: str) -> ReplayFailed:
    return ReplayFailed(
        table=str(table),
        reason=reason,
        hint="Nothing was erased, and nothing restored gets its name. Look at the table's triggers and foreign keys: a "
        "circle of them cannot be followed.",
    )
