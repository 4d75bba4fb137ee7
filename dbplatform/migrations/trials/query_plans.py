"""The statements that a database spends most time on, planned before and after migrations, in a scratch database.

The statements are those of ``pg_stat_statements``, whose values are parameters: so each is planned by its generic plan
(``plan_cache_mode``), which the values do not change. Costs are the planner's, not milliseconds.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from dbplatform.migrations.statements import Verbatim
from dbplatform.postgres.connection import AutocommitConnection
from dbplatform.postgres.identifiers import Relation

_EXTENSION = """
    select format('%I.pg_stat_statements', n.nspname)
    from pg_extension x join pg_namespace n on n.oid = x.extnamespace where x.extname = 'pg_stat_statements'
"""
_TOP = """
    select query, sum(calls)::bigint, sum(total_exec_time)
    from {}
    where dbid = (select oid from pg_database where datname = current_database())
    group by query order by 3 desc limit 2000
"""
#: What can be planned, behind the comments that some clients begin with.
_PLANNED = re.compile(
    r"(?:\s|/\*.*?\*/|--[^\n]*\n)*(?:select|with|insert|update|delete|merge|values)\b", re.IGNORECASE | re.DOTALL
)
#: Statements of tools, pg_dump and the platform itself: they fit themselves to any schema.
_OF_TOOLS = re.compile(r"\bpg_[a-z]|\binformation_schema\b|\bdbplatform\b|hashtextextended\(t,", re.IGNORECASE)
_HIDDEN = "<insufficient privilege>"
_SCHEMAS = """
    select nspname from pg_namespace
    where nspname !~ '^pg_' and nspname not in ('information_schema', 'dbplatform') order by nspname <> 'public', 1
"""
_PARAMETER = re.compile(r"\$(\d+)")
#: A dearer plan by less than this is no finding: statistics of two samplings differ that much.
NOTABLE = 1.2


@dataclass(frozen=True, slots=True, kw_only=True)
class TopStatement:
    """One statement as ``pg_stat_statements`` counts it."""

    query: str
    calls: int
    milliseconds: float
    """All its calls together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryPlan:
    """A generic plan, or why there is none."""

    cost: float | None
    nodes: tuple[str, ...]
    """Each node with its table and index, from the top down."""
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanChange:
    """A statement whose plan is another one after the migrations."""

    statement: TopStatement
    before: QueryPlan
    after: QueryPlan

    @property
    def breaks(self) -> bool:
        """Whether it could be planned before, and cannot any more."""
        return self.before.error is None and self.after.error is not None

    def as_json(self) -> dict[str, Any]:
        return {
            "query": self.statement.query,
            "calls": self.statement.calls,
            "breaks": self.breaks,
            "before": {"cost": self.before.cost, "nodes": list(self.before.nodes)},
            "after": {"cost": self.after.cost, "nodes": list(self.after.nodes), "error": self.after.error},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class TopStatements:
    """The statements of the application; or why they are not known."""

    statements: tuple[TopStatement, ...] = ()
    unknown: str | None = None


def top_statements(connection: AutocommitConnection, *, history_table: Relation, limit: int = 50) -> TopStatements:
    """The statements of the connected database with the most time in all. Only reads."""
    row = connection.execute(_EXTENSION).fetchone()
    if row is None:
        return TopStatements(unknown="the database has no pg_stat_statements")
    try:
        rows = connection.execute(sql.SQL(_TOP).format(sql.SQL(row[0]))).fetchall()
    except psycopg.errors.ObjectNotInPrerequisiteState:
        return TopStatements(unknown="pg_stat_statements is not in shared_preload_libraries")
    if any(query == _HIDDEN for query, _, _ in rows):
        return TopStatements(unknown="the user may not read the statements of others: grant pg_read_all_stats to it")
    found = [
        TopStatement(query=query, calls=calls, milliseconds=ms)
        for query, calls, ms in rows
        if _PLANNED.match(query) and not _OF_TOOLS.search(query) and history_table.name not in query
    ]
    return TopStatements(statements=tuple(found[:limit]))


def plans(connection: AutocommitConnection, statements: Sequence[TopStatement]) -> tuple[QueryPlan, ...]:
    """The generic plan of each statement, as the connected database would plan it now; nothing is run.

    A name without a schema is looked for in all of them, ``public`` first: the clients' search_path is not known.
    """
    schemas = [name for (name,) in connection.execute(_SCHEMAS).fetchall()]
    path = ", ".join(sql.Identifier(name).as_string(connection) for name in schemas)
    return tuple(_plan(connection, statement.query, path) for statement in statements)


def changes(
    statements: Sequence[TopStatement], before: Sequence[QueryPlan], after: Sequence[QueryPlan]
) -> tuple[PlanChange, ...]:
    """The statements that break, or whose plan has another shape or notably another cost; those that break first."""
    found = [
        PlanChange(statement=statement, before=old, after=new)
        for statement, old, new in zip(statements, before, after, strict=True)
        if old.error is None and (new.error is not None or old.nodes != new.nodes or _notable(old.cost, new.cost))
    ]
    return tuple(sorted(found, key=lambda change: (not change.breaks, -change.statement.milliseconds)))


def _notable(old: float | None, new: float | None) -> bool:
    if not old or not new:
        return False
    return max(old / new, new / old) >= NOTABLE


def _plan(connection: AutocommitConnection, query: str, path: str) -> QueryPlan:
    parameters = max((int(number) for number in _PARAMETER.findall(query)), default=0)
    values = sql.SQL("({})").format(sql.SQL(", ").join([sql.SQL("null")] * parameters)) if parameters else sql.SQL("")
    try:
        with connection.transaction(force_rollback=True):
            connection.execute("select set_config('search_path', %s, true)", (path,))
            connection.execute("set local plan_cache_mode = force_generic_plan")
            connection.execute("set local statement_timeout = '5s'")
            connection.execute(sql.SQL("prepare dbplatform_planned as {}").format(Verbatim(query)), prepare=False)
            try:
                row = connection.execute(
                    sql.SQL("explain (format json) execute dbplatform_planned{}").format(values)
                ).fetchone()
            finally:
                # A prepared statement outlives its transaction.
                if connection.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS:
                    connection.execute("deallocate dbplatform_planned")
    except psycopg.Error as error:
        _forget(connection)
        return QueryPlan(cost=None, nodes=(), error=error.diag.message_primary or str(error))
    assert row is not None
    top = row[0][0]["Plan"]
    return QueryPlan(cost=float(top["Total Cost"]), nodes=tuple(_nodes(top)), error=None)


def _forget(connection: AutocommitConnection) -> None:
    known = connection.execute("select from pg_prepared_statements where name = 'dbplatform_planned'")
    if known.fetchone() is not None:
        connection.execute("deallocate dbplatform_planned")


def _nodes(plan: dict[str, Any]) -> list[str]:
    words = [plan["Node Type"]]
    if "Relation Name" in plan:
        words.append(f"on {plan['Relation Name']}")
    if "Index Name" in plan:
        words.append(f"by {plan['Index Name']}")
    found = [" ".join(words)]
    for child in plan.get("Plans", []):
        found += _nodes(child)
    return found
