"""The check that is any query."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from psycopg import sql
from pydantic import AfterValidator

from dbplatform.postgres.connection import SnapshotConnection
from dbplatform.postgres.identifiers import Relation
from dbplatform.quality.checks.base import Outcome, Text, Tolerant, check_type, one_row
from dbplatform.quality.checks.conditions import Count, Part


def _one_query(text: str) -> str:
    query = text.rstrip("; \t\r\n")
    if not query:
        raise ValueError("write a query that returns the failing rows")
    return query


@check_type
class Sql(Tolerant):
    """Every row that the query ``rows`` returns is a failing row; a tolerance in percent is of the table's rows.

    The query is one statement, run as a subquery in the read-only snapshot of the other checks, with ``public`` as its
    search path. A query that writes has errored.
    """

    type = "sql"
    example = 'sql: {name: no_arrival, rows: "select * from flights where arr_time is null"}'
    needs_name = True
    no_sample = "its query reads what it says, a TABLESAMPLE, too"

    rows: Annotated[Text, AfterValidator(_one_query)]

    def probes(self, relation: Relation) -> tuple[sql.Composable, ...]:
        """Alone it must be one query: ``select 1) a, (select 2`` only becomes one between parentheses."""
        return (sql.SQL("{}\n").format(sql.SQL(self.rows)), self._count())

    @property
    def parts(self) -> tuple[Part, ...]:
        """All rows of the table, for a tolerance in percent."""
        return (Count(),)

    def own(self, connection: SnapshotConnection, relation: Relation) -> Sequence[Any]:
        """How many rows the query returns."""
        return one_row(connection, self._count())

    def judge(self, relation: Relation, fused: Sequence[Any], own: Sequence[Any]) -> Outcome:
        """Failed when the query returns more rows than are tolerated."""
        failed, considered = own[0], fused[0]
        message = f"the query returns {failed:,} rows" if failed else "the query returns no row"
        passed = failed == 0
        if failed and self.tolerance is not None:
            passed = self.tolerance.allows(failed, considered)
            message += f", {'within' if passed else 'more than'} the tolerance of {self.tolerance}"
        return Outcome(
            status="passed" if passed else "failed",
            message=f"{message}.",
            failed_rows=failed,
            considered_rows=considered,
        )

    def statement(self, relation: Relation) -> sql.Composable:
        """The query itself."""
        return sql.SQL(self.rows)

    def _count(self) -> sql.Composable:
        """The whole row is counted: with ``count(*)`` an error in its columns would not be met."""
        return sql.SQL("select count(failing.*) from ({}\n) as failing").format(sql.SQL(self.rows))
