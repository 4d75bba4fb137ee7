"""What statements cost: by their generic plan, and in real time where a statement reads only and values can be had.

``pg_stat_statements`` keeps no values. A parameter that is compared with a column gets one of that column's own, from
the middle of its statistics; it is used in this session alone, and kept nowhere.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from dbplatform.advice.missing import PLANNED
from dbplatform.advice.model import Named
from dbplatform.advice.plans import Plan, generic_plan
from dbplatform.postgres.connection import AutocommitConnection
from dbplatform.postgres.identifiers import Relation
from dbplatform.postgres.prepared import Prepared, prepared

#: Each statement runs so often; the median counts.
_RUNS = 3
_STATEMENT_TIMEOUT_MS = 10_000
_MOST = 5
#: A dearer plan by less is no harm, a cheaper one by less no gain.
NOTABLE = 0.1

_FROM_STATISTICS = """
    select coalesce(histogram_bounds, most_common_vals)::text::text[]
    from pg_stats where schemaname = %s and tablename = %s and attname = %s order by inherited desc limit 1
"""
_NUMBERS = ("smallint", "integer", "bigint")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One statement: the cost of its generic plan, and the median of its times; ``why`` there is none."""

    named: Named
    cost: float
    ms: float | None
    why: str = ""

    def as_json(self) -> dict[str, Any]:
        """One entry of a receipt."""
        timed = {"ms": self.ms, "runs": _RUNS} if self.ms is not None else {"ms": None, "not_timed": self.why}
        return {**self.named.as_json(), "cost": round(self.cost, 2), **timed}


def measure(connection: AutocommitConnection, statements: Iterable[Named]) -> list[Measured]:
    """What each costs now; one that cannot be planned any more is left out.

    Runs only what reads, in a transaction that is read only and rolled back, three times, each ended after 10 s.
    """
    found: list[Measured] = []
    for named in statements:
        try:
            plan = generic_plan(connection, named.query)
        except psycopg.Error as error:
            if error.sqlstate is None:
                raise
            continue
        ms, why = _timed(connection, named, plan)
        found.append(Measured(named=named, cost=plan.cost, ms=ms, why=why))
    return found


def touching(connection: AutocommitConnection, statements: Iterable[Named], table: Relation) -> tuple[Named, ...]:
    """Of these statements the first five whose plan has the table in it."""
    found: list[Named] = []
    for named in statements:
        if len(found) == _MOST:
            break
        if not PLANNED.match(named.query):
            continue
        try:
            plan = generic_plan(connection, named.query)
        except psycopg.Error as error:
            if error.sqlstate is None:
                raise
            continue
        if table in plan.tables:
            found.append(named)
    return tuple(found)


def _timed(connection: AutocommitConnection, named: Named, plan: Plan) -> tuple[float | None, str]:
    if not plan.reads_only:
        return None, "it writes, or locks rows"
    try:
        with connection.transaction(force_rollback=True):
            connection.execute("set transaction read only")
            connection.execute("select set_config('statement_timeout', %s, true)", (str(_STATEMENT_TIMEOUT_MS),))
            with prepared(connection, named.query) as one:
                values = _values(connection, plan, one)
                if values is None:
                    return None, "no values for its parameters are known"
                times = [_once(one, values) for _ in range(_RUNS)]
    except psycopg.errors.QueryCanceled:
        return None, f"it takes longer than {_STATEMENT_TIMEOUT_MS // 1000} s"
    except psycopg.Error as error:
        if error.sqlstate is None:
            raise
        return None, (error.diag.message_primary or "PostgreSQL refused it").rstrip(".")
    return round(statistics.median(times), 3), ""


def _once(one: Prepared, values: Sequence[str | None]) -> float:
    (document,) = one.explain("analyze, timing off, format json", values)
    return float(document[0]["Execution Time"])


def _values(connection: AutocommitConnection, plan: Plan, one: Prepared) -> list[str | None] | None:
    """A value for each parameter: of the column that it is compared with; ten, where it is another whole number."""
    found: list[str | None] = []
    for number, type_ in enumerate(one.types, start=1):
        if number in plan.parameters:
            value = _of_column(connection, *plan.parameters[number])
            if value is None:
                return None
            found.append(_array(value) if type_.endswith("[]") else value)
        elif type_ in _NUMBERS:
            found.append("10")
        else:
            return None
    return found


def _array(value: str) -> str:
    return '{"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"}'


def _of_column(connection: AutocommitConnection, table: Relation, column: str) -> str | None:
    row = connection.execute(_FROM_STATISTICS, (table.schema, table.name, column)).fetchone()
    if row is not None and row[0]:
        return str(row[0][len(row[0]) // 2])
    asked = sql.SQL("select {0}::text from {1} where {0} is not null limit 1").format(
        sql.Identifier(column), table.identifier
    )
    row = connection.execute(asked).fetchone()
    return None if row is None else str(row[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What a change has done to the statements of a receipt."""

    gain: float | None
    """The share of their cost that is saved; none where no statement was measured."""
    worse: tuple[str, ...]
    """The ids of those that cost notably more."""


def effect(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> Effect:
    """Compare two measurements of a receipt, each statement weighed by its calls. Pure."""
    earlier = {one["queryid"]: one for one in before}
    pairs = [(earlier[one["queryid"]], one) for one in after if one["queryid"] in earlier]
    was = sum(one["cost"] * max(one["calls"], 1) for one, _ in pairs)
    now = sum(one["cost"] * max(one["calls"], 1) for _, one in pairs)
    worse = tuple(one["queryid"] for old, one in pairs if one["cost"] > (1 + NOTABLE) * old["cost"])
    return Effect(gain=round(1 - now / was, 4) if was else None, worse=worse)
