"""Indexes that statements ask for: candidates from their plans, each proven by HypoPG where that is, else estimated.

An index is advised where it saves at least half of what a statement costs by its generic plan, and over all statements
more than it costs the writes of its table. HypoPG's indexes exist in this session alone, and only for EXPLAIN.
Source: https://hypopg.readthedocs.io; Dexter, https://github.com/ankane/dexter.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import psycopg
from psycopg import sql

from dbplatform.advice.actions import Action
from dbplatform.advice.candidates import Candidate, candidates, estimate, index_cost, write_cost
from dbplatform.advice.catalog import Catalog, ColumnStatistics, Table, column_statistics, index_name
from dbplatform.advice.model import Advice, Named
from dbplatform.advice.plans import Plan, Scan, generic_plan
from dbplatform.advice.policy import AdvicePolicy
from dbplatform.advice.words import CONCURRENTLY, manual
from dbplatform.postgres.connection import AutocommitConnection

#: What can be planned.
PLANNED = re.compile(r"\s*(?:select|with|insert|update|delete|merge|values)\b", re.IGNORECASE)
#: A cheaper plan is not worth an index.
LEAST_COST = 100.0
#: What has to be left of the cost of a statement at most.
WORTH = 0.5
#: What one call writes beyond so many rows is a load, which is seldom, and fills an index at little cost.
_BULK = 100
#: So many of one database are advised at most, those first that save most.
MOST = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One statement that would be better off with an index: what it costs now, and with it."""

    named: Named
    before: float
    after: float

    @property
    def saved(self) -> float:
        """Over all its calls."""
        return self.named.calls * (self.before - self.after)


def missing_indexes(
    connection: AutocommitConnection, catalog: Catalog, policy: AdvicePolicy, statements: Iterable[Named]
) -> tuple[list[Advice], list[str]]:
    """The indexes that these statements ask for, and a sentence for each statement that could not be planned.

    Nothing runs; locks as for the planning of each statement.
    """
    by_candidate: dict[Candidate, list[Wanted]] = {}
    entries: dict[str, float] = {}
    unplanned: list[str] = []
    for named in statements:
        if not PLANNED.match(named.query):
            continue
        try:
            plan = generic_plan(connection, named.query)
        except psycopg.Error as error:
            if error.sqlstate is None:
                raise
            unplanned.append(f"statement {named.queryid}: {error.diag.message_primary}")
            continue
        if plan.entries is not None:
            entries[str(plan.entries)] = entries.get(str(plan.entries), 0.0) + min(named.rows, _BULK * named.calls)
        if named.calls < policy.min_calls or plan.cost < LEAST_COST:
            continue
        for scans in _together(plan, catalog):
            best = _best(connection, catalog, named, plan, scans)
            if best is not None:
                candidate, after = best
                by_candidate.setdefault(candidate, []).append(Wanted(named=named, before=plan.cost, after=after))
    found = [
        (candidate, wanted)
        for candidate, wanted in _merged(by_candidate).items()
        if sum(one.saved for one in wanted) > _paid(catalog, entries, candidate)
    ]
    found.sort(key=lambda one: -sum(wanted.saved for wanted in one[1]))
    advised = [
        _advice(connection, catalog, candidate, wanted, _paid(catalog, entries, candidate))
        for candidate, wanted in found[:MOST]
    ]
    return advised, unplanned


def _together(plan: Plan, catalog: Catalog) -> list[list[tuple[Scan, Table]]]:
    """The scans that one index would serve: of one table, or of the partitions of one, for the same conditions."""
    found: dict[object, list[tuple[Scan, Table]]] = {}
    for scan in plan.scans:
        table = catalog.table_named(scan.table.schema, scan.table.name)
        if table is not None:
            asked = tuple((one.column, one.operator) for one in scan.filter)
            key = (table.root or table.oid, asked, scan.order, tuple(column for column, _ in scan.joined))
            found.setdefault(key, []).append((scan, table))
    return list(found.values())


def _best(
    connection: AutocommitConnection,
    catalog: Catalog,
    named: Named,
    plan: Plan,
    scans: Sequence[tuple[Scan, Table]],
) -> tuple[Candidate, float] | None:
    """The index that serves these scans best, of the fewest columns that do; None where none is worth it."""
    scan, table = scans[0]
    best: tuple[Candidate, float] | None = None
    for candidate in candidates(scan, table, statistics_of(connection, table)):
        if _exists(catalog, candidate):
            continue
        if catalog.hypopg is not None and candidate.method == "btree":
            after = _proven(connection, catalog.hypopg, named, candidate, [one for _, one in scans])
        else:
            after = plan.cost
            for one, its in scans:
                of_it = Candidate(its, str(its.relation), candidate.columns, candidate.method, candidate.equal)
                after -= one.cost - estimate(one, of_it, catalog, statistics_of(connection, its))
        # One more column has to save a tenth more.
        if after <= WORTH * plan.cost and (best is None or after < 0.9 * best[1]):
            best = candidate, max(after, 0.01)
    if best is None or table.root is None:
        return best
    root = catalog.tables[table.root]
    candidate, after = best
    return Candidate(root, str(root.relation), candidate.columns, candidate.method, candidate.equal), after


def statistics_of(connection: AutocommitConnection, table: Table) -> Callable[[str], ColumnStatistics | None]:
    """The statistics of the columns of a table, each read once."""
    return cache(lambda column: column_statistics(connection, table.relation, column))


def _exists(catalog: Catalog, candidate: Candidate) -> bool:
    """Whether there is one already that the planner did not want, or that is being built."""
    count = len(candidate.columns)
    return any(
        index.method == candidate.method
        and not index.partial
        and not index.expression
        and (
            tuple(index.columns[:count]) == candidate.columns
            or (candidate.equal == count and set(index.columns[:count]) == set(candidate.columns))
        )
        for index in catalog.indexes_of(candidate.table.oid)
    )


def _proven(
    connection: AutocommitConnection, schema: str, named: Named, candidate: Candidate, tables: Sequence[Table]
) -> float:
    """What the statement costs when the planner may choose the index, which exists for this session alone."""
    create = sql.SQL("select {}.hypopg_create_index(%s)").format(sql.Identifier(schema))
    try:
        for table in tables:
            definition = sql.SQL("CREATE INDEX ON {} ({})").format(
                table.relation.identifier, sql.SQL(", ").join(map(sql.Identifier, candidate.columns))
            )
            connection.execute(create, (definition.as_string(),))
        return generic_plan(connection, named.query).cost
    finally:
        if not connection.closed:
            connection.execute(sql.SQL("select {}.hypopg_reset()").format(sql.Identifier(schema)))


def _merged(found: dict[Candidate, list[Wanted]]) -> dict[Candidate, list[Wanted]]:
    """Fewer indexes for the same statements: one whose columns another begins with is left out."""
    kept: dict[Candidate, list[Wanted]] = {}
    for candidate in sorted(found, key=lambda one: -len(one.columns)):
        wider = next((one for one in kept if _serves(one, candidate)), None)
        kept.setdefault(wider or candidate, []).extend(found[candidate])
    return kept


def _serves(wider: Candidate, narrow: Candidate) -> bool:
    count = len(narrow.columns)
    return (
        (wider.name, wider.method) == (narrow.name, narrow.method)
        and wider.method == "btree"
        and (
            wider.columns[:count] == narrow.columns
            or (narrow.equal == count and set(wider.columns[:count]) == set(narrow.columns))
        )
    )


def _paid(catalog: Catalog, entries: dict[str, float], candidate: Candidate) -> float:
    """What the index costs the statements that write rows into its table, over the same time as its readers."""
    return entries.get(candidate.name, 0.0) * write_cost(catalog)


def _advice(
    connection: AutocommitConnection,
    catalog: Catalog,
    candidate: Candidate,
    wanted: Sequence[Wanted],
    paid: float,
) -> Advice:
    table, columns = candidate.table, candidate.columns
    action = Action(
        verb="create_index",
        schema=table.schema,
        table=table.name,
        name=index_name(connection, table.relation, columns),
        columns=columns,
        method=candidate.method,
    )
    cost, evidence = index_cost(connection, catalog, table, columns)
    before, after = (
        sum(one.before * one.named.calls for one in wanted),
        sum(one.after * one.named.calls for one in wanted),
    )
    proven = catalog.hypopg is not None and candidate.method == "btree"
    how = "as the planner says of a hypothetical index" if proven else "by an estimate, for HypoPG is not there"
    calls = sum(one.named.calls for one in wanted)
    many = len(wanted) > 1
    who = (
        f"{len(wanted)} statements, called {calls:,} times, read"
        if many
        else f"A statement, called {calls:,} times, reads"
    )
    return Advice(
        database=catalog.database,
        kind="missing_index",
        subject=f"{table.relation}({', '.join(columns)})",
        severity="warning",
        reason=f"{who} all of {table.relation} to find rows by {', '.join(columns)}. With an index "
        f"{1 - after / before:.1%} of {'their' if many else 'its'} cost is saved, {how}.",
        evidence={
            "rows": table.rows,
            "cost before": round(before / max(calls, 1), 2),
            "cost after": round(after / max(calls, 1), 2),
            "calls": calls,
            "saved": round(before - after),
            "paid by writes": round(paid),
            **evidence,
        },
        lock=CONCURRENTLY,
        cost=cost,
        confidence="proven" if proven else "estimated",
        document=manual("indexes-multicolumn.html" if len(columns) > 1 else "indexes-intro.html"),
        action=None if table.partitioned else action,
        undo=None if table.partitioned else Action(verb="drop_index", schema=table.schema, name=action.name),
        words=_of_partitions(table, columns) if table.partitioned else "",
        statements=tuple(one.named for one in sorted(wanted, key=lambda one: -one.saved)[:5]),
        table=(table.schema, table.name),
    )


def _of_partitions(table: Table, columns: tuple[str, ...]) -> str:
    """What a person writes as a migration: PostgreSQL builds no index of a partitioned table concurrently."""
    return (
        sql.SQL(
            "CREATE INDEX ON ONLY {} ({}); then of each partition CREATE INDEX CONCURRENTLY and ALTER INDEX ... ATTACH "
            "PARTITION, as a migration"
        )
        .format(table.relation.identifier, sql.SQL(", ").join(map(sql.Identifier, columns)))
        .as_string()
    )
